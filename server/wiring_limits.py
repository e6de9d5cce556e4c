"""Limits put together: where they are counted, and what the doors ask."""

from __future__ import annotations

from models.auth.guesses import Guesses
from models.ports import Clock, Windows
from server.config import Config
from server.funnel import Limits
from server.limits import LocalWindows
from server.limits_shared import SharedWindows
from server.metrics import LIMITS_SHARED

WiredWindows = LocalWindows | SharedWindows


def windows_of(config: Config) -> WiredWindows:
    """Counted with the other processes where there is a Redis, else by this one."""
    if config.redis_url is None:
        return LocalWindows()
    return SharedWindows(config.redis_url, name=config.mongo_database, told=LIMITS_SHARED.set)


def limits_of(config: Config, *, windows: Windows, clock: Clock, guesses: Guesses) -> Limits:
    """The rates of the doors."""
    return Limits(
        config.auth_per_minute, config.events_per_second, windows=windows, clock=clock, guesses=guesses
    )
