"""Who may open a connection: how many from one address, how fast, and how long without saying who one is.

All of it is counted in this process, in memory: what costs a flood little to send must cost less to refuse. This
machine's own addresses and private networks are not counted by address, for a proxy in front that is not configured
(``TRUSTED_PROXY_HOPS``) would make everybody one.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from datetime import datetime, timedelta

from models.blocks.rules import network_of, spared
from models.errors import Refusal
from models.ports import Clock
from server.limits import TokenBucket

# A burst of handshakes is all the phones behind one address coming back at once, after a restart.
BURST_SECONDS = 20
# Connects on one transport, a second and at once: an app has one, and one more whenever it was signed out in between.
CONNECTS_RATE, CONNECTS_BURST = 1, 20
# From the transport to the connect with a token, and from a disconnect to the next connect or the end.
SILENT_FOR = timedelta(seconds=20)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdmissionLimits:
    """``handshakes`` from one address in a second, in bursts of twenty times as many; open connections
    ``per_address``, ``per_user`` (their devices) and in this ``process``.
    """

    handshakes: int = 20
    per_address: int = 5_000
    per_user: int = 50
    process: int = 50_000


class Admission:
    """One per process."""

    def __init__(self, limits: AdmissionLimits, clock: Clock) -> None:
        self.limits = limits
        self._clock = clock
        self._handshakes = TokenBucket(limits.handshakes, limits.handshakes * BURST_SECONDS)
        self._connects = TokenBucket(CONNECTS_RATE, CONNECTS_BURST)
        self._networks: dict[str, str] = {}
        self._open: Counter[str] = Counter()
        self._silent: deque[tuple[datetime, str]] = deque()

    def handshake(self, address: str) -> Refusal | None:
        """Whether another transport may be opened, or why not."""
        if len(self._networks) >= self.limits.process:
            return Refusal("SERVER_BUSY", retry_after_ms=5_000)
        if spared(address):
            return None
        network = network_of(address)
        wait = self._handshakes.take(network, self._clock.now().timestamp())
        if wait:
            return Refusal("RATE_LIMITED", retry_after_ms=wait)
        if self._open[network] >= self.limits.per_address:
            return Refusal("TOO_MANY_CONNECTIONS")
        return None

    def connect(self, eio_sid: str) -> None:
        """Count a connect on a transport before anything is asked for it, or refuse with ``RATE_LIMITED``."""
        wait = self._connects.take(eio_sid, self._clock.now().timestamp())
        if wait:
            raise Refusal("RATE_LIMITED", retry_after_ms=wait)

    def came(self, eio_sid: str, address: str) -> None:
        """A transport is open."""
        network = network_of(address)
        self._networks[eio_sid] = network
        self._open[network] += 1
        self.silent(eio_sid)

    def gone(self, eio_sid: str) -> None:
        """A transport is closed."""
        network = self._networks.pop(eio_sid, None)
        if network is not None:
            self._open[network] -= 1
            if not self._open[network]:
                del self._open[network]

    def silent(self, eio_sid: str) -> None:
        """From now on it has some time to say who it is."""
        self._silent.append((self._clock.now() + SILENT_FOR, eio_sid))

    def overdue(self) -> list[str]:
        """Open transports whose time to say so is over; whether they have, the caller knows."""
        now, found = self._clock.now(), []
        while self._silent and self._silent[0][0] <= now:
            _, eio_sid = self._silent.popleft()
            if eio_sid in self._networks:
                found.append(eio_sid)
        return found

    def open_at(self, address: str) -> int:
        """How many connections are open from there."""
        return self._open.get(network_of(address), 0)
