"""Identity put together: second factors, and what proves who somebody is."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass

from models.auth.codes.service import Codes
from models.auth.codes.store import CodeStore
from models.auth.second.service import SecondFactors
from models.auth.second.store import FactorStore
from models.auth.second.vault import Vault
from models.auth.store import AccountStore, Belongings
from models.auth.strength import Strength
from models.auth.tries.store import TryStore
from models.db import Database
from models.notices.notice import Carrier
from models.ports import Clock, Ids
from models.users.store import UserStore
from server.adapters.chance import SystemChance
from server.adapters.messenger import CarrierMessenger
from server.adapters.strength import Zxcvbn
from server.config import Config


@dataclass(frozen=True, slots=True, kw_only=True)
class WiredIdentity:
    """A process's services of identity, and what goes with an account that is deleted."""

    factors: SecondFactors
    codes: Codes
    strength: Strength
    belongings: tuple[Belongings, ...]


def wire_identity(
    config: Config, db: Database, *, carriers: Mapping[str, Carrier], clock: Clock, ids: Ids
) -> WiredIdentity:
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
    code_store = CodeStore(db)
    codes = Codes(
        store=code_store,
        accounts=AccountStore(db),
        people=UserStore(db),
        tries=tries,
        messenger=CarrierMessenger(carriers, development=not config.production),
        clock=clock,
        ids=ids,
        chance=chance,
        pepper=hmac.digest(config.jwt_secret.encode(), b"ringmeter codes v1", "sha256"),
        house=config.identity.totp_issuer,
    )
    return WiredIdentity(
        factors=factors,
        codes=codes,
        strength=Zxcvbn(config.identity.password_score_min),
        belongings=(factor_store, code_store),
    )
