"""What counts as one address: whom a limit or a block is about."""

from __future__ import annotations

from datetime import timedelta
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

from models.errors import Refusal

Network = IPv4Network | IPv6Network

# RFC 6177 §2: who gets IPv6 at home or on a phone gets a /64 at least, and so 2**64 addresses to come from.
HOST_BITS_V6 = 64
# The most that one block keeps out: as much as one provider has.
WIDEST_V4, WIDEST_V6 = 8, 24
# Of blocks that nobody has asked for; after a week of peace it begins anew.
AUTOMATIC = (timedelta(minutes=10), timedelta(hours=1), timedelta(hours=6), timedelta(hours=24))
REMEMBERED_FOR = timedelta(days=7)

_MACHINE: dict[int, Network] = {4: ip_network("127.0.0.0/8"), 6: ip_network("::1/128")}
# RFC 1918, RFC 3927, RFC 6598, RFC 4193, RFC 4291 §2.5.6.
_OURS: dict[int, list[Network]] = {
    4: [
        ip_network(text)
        for text in (
            *("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"),
            *("169.254.0.0/16", "100.64.0.0/10"),
        )
    ],
    6: [ip_network(text) for text in ("::1/128", "fc00::/7", "fe80::/10")],
}


@lru_cache(maxsize=8192)
def network_of(address: str) -> str:
    """Whom an address stands for: itself, or its /64 of IPv6. What is no address stands for itself."""
    found = parsed(address)
    if found is None:
        return address[:64]
    if isinstance(found, IPv4Address):
        return str(found)
    return f"{IPv6Address(int(found) >> HOST_BITS_V6 << HOST_BITS_V6)}/{HOST_BITS_V6}"


def parsed(address: str) -> IPv4Address | IPv6Address | None:
    """The address of that text, of IPv4 where it only came by IPv6's way of writing it. None: it is none."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return None
    return found.ipv4_mapped or found if isinstance(found, IPv6Address) else found


def parsed_network(text: str) -> Network:
    """A network or a single address (of IPv6: its /64) as somebody types it.

    Refuses with ``VALIDATION_FAILED`` what is none, what is this machine itself, and half the world.
    """
    try:
        found = ip_network(text.strip(), strict=False)
    except ValueError:
        raise _no_network("Not an address, nor a network such as 203.0.113.0/24.") from None
    if isinstance(found, IPv6Network) and found.prefixlen > HOST_BITS_V6:
        found = found.supernet(new_prefix=HOST_BITS_V6)
    if found.prefixlen < (WIDEST_V4 if isinstance(found, IPv4Network) else WIDEST_V6):
        raise _no_network(f"Too wide: /{WIDEST_V4} of IPv4 or /{WIDEST_V6} of IPv6 at most.")
    if found.overlaps(_MACHINE[found.version]):
        raise _no_network("This machine itself is never kept out.")
    return found


@lru_cache(maxsize=8192)
def spared(address: str) -> bool:
    """Whether an address is never kept out by itself: of this machine, of a private network, of a proxy in one."""
    found = parsed(address)
    return found is None or any(found in network for network in _OURS[found.version])


def automatic_length(times: int) -> timedelta:
    """How long the ``times``-th block in a row lasts that nobody has asked for."""
    return AUTOMATIC[min(times, len(AUTOMATIC)) - 1]


def _no_network(said: str) -> Refusal:
    return Refusal("VALIDATION_FAILED", network=[said])
