"""The part of the configuration that bounds what strangers may do: rings, connections, addresses that are kept out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from environs import Env

from models.calls.rings.service import RingLimits
from server.admission import AdmissionLimits
from server.config_read import whole

# CONTRACT §1: ring attempts per pair.
RINGS_PER_MINUTE_PAIR = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsConfig:
    """What the server was told about limits."""

    rings: RingLimits
    admission: AdmissionLimits
    block_after: int  # refusals of an address's strangers; 0: no address is blocked by itself


def limits_config(read: Env) -> LimitsConfig:
    """Read the variables; faults are kept by ``read``."""
    return LimitsConfig(
        rings=RingLimits(
            per_pair=RINGS_PER_MINUTE_PAIR,
            per_caller=whole(read, "RINGS_PER_MINUTE", 1, 1_000_000),
            strangers=whole(read, "STRANGER_RINGS_PER_MINUTE", 1, 1_000_000),
            cool_off=timedelta(seconds=whole(read, "DECLINE_COOL_OFF_SECONDS", 0, 3600)),
        ),
        admission=AdmissionLimits(
            handshakes=whole(read, "HANDSHAKES_PER_SECOND", 1, 1_000_000),
            per_address=whole(read, "SOCKETS_PER_ADDRESS", 1, 1_000_000),
            per_user=whole(read, "SOCKETS_PER_USER", 1, 1_000_000),
            process=whole(read, "SOCKETS_MAX", 1, 1_000_000),
        ),
        block_after=whole(read, "BLOCK_AFTER_REFUSALS", 0, 1_000_000),
    )
