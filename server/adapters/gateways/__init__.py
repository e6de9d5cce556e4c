"""The payment gateways: one file for each, and their registry.

A gateway's file has ``make(config, clock, db)``, which gives it or, where the configuration has no key for it, None.
"""

from __future__ import annotations

from collections.abc import Callable

from models.db import Database
from models.payments.gateway import Gateway
from models.ports import Clock
from server.adapters.gateways import monnify, paystack, sandbox
from server.config import Config

Factory = Callable[[Config, Clock, Database], Gateway | None]


def _stripe(config: Config, clock: Clock, db: Database) -> Gateway | None:
    if config.money.stripe_secret_key is None:
        return None
    from server.adapters.gateways import stripe  # a large library, which nobody else has to load

    return stripe.make(config, clock, db)


# By the name that the API has for it; the first one that is configured is the default. The sandbox comes last.
FACTORIES: dict[str, Factory] = {
    "monnify": monnify.make,
    "paystack": paystack.make,
    "stripe": _stripe,
    sandbox.NAME: sandbox.make,
}


def gateways(config: Config, clock: Clock, db: Database) -> dict[str, Gateway]:
    """The gateways that the configuration names, by name, once per process; each has to be closed."""
    made = {name: make(config, clock, db) for name, make in FACTORIES.items()}
    return {name: gateway for name, gateway in made.items() if gateway is not None}
