"""Identity put together: second factors, and what proves who somebody is."""

from __future__ import annotations

from dataclasses import dataclass

from models.auth.second.service import SecondFactors
from models.auth.second.store import FactorStore
from models.auth.second.vault import Vault
from models.auth.store import Belongings
from models.auth.tries.store import TryStore
from models.db import Database
from models.ports import Clock, Ids
from server.adapters.chance import SystemChance
from server.config import Config


@dataclass(frozen=True, slots=True, kw_only=True)
class WiredIdentity:
    """A process's services of identity, and what goes with an account that is deleted."""

    factors: SecondFactors
    belongings: tuple[Belongings, ...]


def wire_identity(config: Config, db: Database, *, clock: Clock, ids: Ids) -> WiredIdentity:
    """Make it, once per process."""
    assert config.jwt_secret is not None
    chance, tries = SystemChance(), TryStore(db)
    factor_store = FactorStore(db)
    factors = SecondFactors(
        store=factor_store,
        tries=tries,
        vault=Vault(config.identity.totp_secret or config.jwt_secret, chance),
        clock=clock,
        chance=chance,
        issuer=config.identity.totp_issuer,
    )
    return WiredIdentity(factors=factors, belongings=(factor_store,))
