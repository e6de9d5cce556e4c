"""Stand-ins for the edges: time, ids, sockets. Nothing inside is ever replaced."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from models.ports import Letter


class VirtualClock:
    """Time that moves only when a test says so."""

    def __init__(self, start: datetime = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)) -> None:
        self._now = start

    def now(self) -> datetime:
        return self._now

    def pass_(self, seconds: float) -> datetime:
        """Let time pass; returns the new present."""
        self._now += timedelta(milliseconds=round(seconds * 1000))
        return self._now


class CountingIds:
    """UUIDv7-shaped ids that count up, so that a test's ids never change."""

    def __init__(self) -> None:
        self._n = 0

    def new(self) -> str:
        self._n += 1
        return f"01950000-0000-7000-8000-{self._n:012x}"


class CountingChance:
    """Bytes that differ each time and are the same in each run."""

    def __init__(self) -> None:
        self._n = 0

    def bytes(self, count: int) -> bytes:
        self._n += 1
        return hashlib.shake_128(str(self._n).encode()).digest(count)


class FakeAlarms:
    """Remembers what is armed; a test rings by ticking itself."""

    def __init__(self) -> None:
        self.armed: dict[str, datetime] = {}

    def set(self, key: str, at: datetime) -> None:
        self.armed[key] = at

    def clear(self, key: str) -> None:
        self.armed.pop(key, None)


class FakeDoors:
    """Sockets as lists: what each connected device was told."""

    def __init__(self) -> None:
        self.devices: dict[tuple[str, str], list[Letter]] = {}
        self.closed: list[tuple[str, frozenset[str] | None, str]] = []

    def connect(self, user_id: str, device_id: str) -> list[Letter]:
        """Connect a device; the list returned fills with its letters."""
        return self.devices.setdefault((user_id, device_id), [])

    def disconnect(self, user_id: str, device_id: str) -> None:
        self.devices.pop((user_id, device_id), None)

    def told(self, user_id: str, device_id: str) -> list[str]:
        """The names of the events that a device was told, in order."""
        return [letter.event for letter in self.devices.get((user_id, device_id), [])]

    def last(self, user_id: str, device_id: str, event: str) -> dict[str, Any]:
        """The payload of the newest event of that name."""
        return dict([x for x in self.devices[user_id, device_id] if x.event == event][-1].payload)

    async def deliver(self, letters: Sequence[Letter]) -> None:
        for letter in letters:
            for (user_id, device_id), inbox in self.devices.items():
                if user_id != letter.user_id or letter.only_device not in (None, device_id):
                    continue
                if letter.except_device != device_id:
                    inbox.append(letter)

    def online(self, user_id: str) -> bool:
        return any(user == user_id for user, _ in self.devices)

    def connected(self, user_id: str, device_id: str) -> bool:
        return (user_id, device_id) in self.devices

    def renew(self, user_id: str, device_id: str, expires_at: datetime) -> None:
        pass

    async def close(self, user_id: str, *, session_ids: Collection[str] | None = None, code: str) -> None:
        self.closed.append((user_id, None if session_ids is None else frozenset(session_ids), code))
        if session_ids is None:
            for key in [key for key in self.devices if key[0] == user_id]:
                del self.devices[key]
