"""What counts as one address: whom a limit or a block is about."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

# RFC 6177 §2: who gets IPv6 at home or on a phone gets a /64 at least, and so 2**64 addresses to come from.
HOST_BITS_V6 = 64


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
