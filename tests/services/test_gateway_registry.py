"""Which gateways a configuration makes."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from models.db import Database
from server.adapters.gateways import FACTORIES, gateways
from server.adapters.gateways.monnify import Monnify
from server.config import Config, ConfigFault, load_config
from server.config_money import GATEWAYS
from tests.fakes import VirtualClock

KEYS = {
    "MONNIFY_API_KEY": "MK_TEST_X",
    "MONNIFY_SECRET_KEY": "secret",
    "MONNIFY_CONTRACT_CODE": "1",
    "PAYSTACK_SECRET_KEY": "sk_test_x",
    "STRIPE_SECRET_KEY": "sk_test_x",
    "STRIPE_WEBHOOK_SECRETS": "whsec_a,whsec_b",
}
PRODUCTION = {
    "ENV": "production",
    "JWT_SECRET": "x" * 40,
    "MONGO_URI": "mongodb://db.example.org/?replicaSet=rs0",
}


def config(**more: str) -> Config:
    return load_config({"JWT_SECRET": "a secret of the tests, long enough", **more})


def test_every_gateway_that_can_be_named_has_its_maker() -> None:
    assert tuple(FACTORIES) == GATEWAYS


async def test_a_gateway_without_its_keys_is_not_there(db: Database) -> None:
    assert list(gateways(config(), VirtualClock(), db)) == ["sandbox"]
    made = gateways(config(**KEYS), VirtualClock(), db)
    assert list(made) == ["monnify", "paystack", "stripe", "sandbox"]
    assert {name: gateway.name for name, gateway in made.items()} == {name: name for name in made}
    for gateway in made.values():
        await gateway.close()


async def test_in_production_there_is_no_play_money(db: Database) -> None:
    made = gateways(load_config({**PRODUCTION, **KEYS}), VirtualClock(), db)
    assert list(made) == ["monnify", "paystack", "stripe"]


@pytest.mark.parametrize("missing", ["MONNIFY_SECRET_KEY", "MONNIFY_CONTRACT_CODE", "STRIPE_WEBHOOK_SECRETS"])
def test_half_of_a_gateways_keys_is_a_fault_before_anything_starts(missing: str) -> None:
    with pytest.raises(ConfigFault, match=missing):
        config(**{name: value for name, value in KEYS.items() if name != missing})


@pytest.mark.parametrize(
    ("key", "url"), [("MK_TEST_X", "https://sandbox.monnify.com"), ("MK_PROD_X", "https://api.monnify.com")]
)
def test_the_key_says_which_of_monnifys_two_addresses_it_is_for(key: str, url: str) -> None:
    made: Any = Monnify(api_key=key, secret_key="s", contract_code="1", clock=VirtualClock())
    assert made._http._url == url


def test_stripes_library_is_loaded_only_where_stripe_is_used() -> None:
    code = "import sys, server.adapters.gateways; sys.exit('stripe' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
