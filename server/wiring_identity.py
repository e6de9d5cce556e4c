"""Identity put together: second factors, and what proves who somebody is."""

from __future__ import annotations

import hmac
from collections.abc import Sequence

from models.auth.apikeys.service import ApiKeys
from models.auth.apikeys.store import ApiKeyStore
from models.auth.codes.service import Codes
from models.auth.codes.store import CodeStore
from models.auth.guesses import Guesses
from models.auth.known import KnownDevices
from models.auth.oauth.rules import Provider
from models.auth.oauth.service import Keys, OAuth
from models.auth.oauth.store import IdentityStore
from models.auth.second.service import SecondFactors
from models.auth.second.store import FactorStore
from models.auth.second.vault import Vault
from models.auth.service import Accounts
from models.auth.session import Hasher
from models.auth.store import AccountStore, Belongings
from models.auth.tries.store import TryStore
from models.db import Database
from models.ports import Clock, Courier, Doors, Ids, LiveCalls, Windows
from models.users.store import UserStore
from server.adapters.chance import SystemChance
from server.adapters.jwks import JwksKeys
from server.adapters.messenger import CarrierMessenger
from server.adapters.strength import Zxcvbn
from server.config import Config
from server.config_identity import IdentityConfig
from server.wiring_notices import WiredNotices

# developers.google.com/identity: verify the Google ID token on your server side
GOOGLE_ISSUERS = ("https://accounts.google.com", "accounts.google.com")
GOOGLE_KEYS = ["https://www.googleapis.com/oauth2/v3/certs"]
# developers.facebook.com/docs/facebook-login/limited-login/token: the app's own login, and that on the web
FACEBOOK_ISSUERS = ("https://www.facebook.com", "https://limited.facebook.com")
FACEBOOK_KEYS = [
    "https://limited.facebook.com/.well-known/oauth/openid/jwks/",
    "https://www.facebook.com/.well-known/oauth/openid/jwks/",
]


def wire_accounts(
    config: Config,
    db: Database,
    *,
    belongings: Sequence[Belongings],
    notices: WiredNotices,
    calls: LiveCalls,
    hasher: Hasher,
    doors: Doors,
    courier: Courier,
    windows: Windows,
    clock: Clock,
    ids: Ids,
) -> Accounts:
    """Make it, once per process. ``belongings`` are other features' things that go with a sign-in or an account."""
    assert config.jwt_secret is not None
    chance, tries = SystemChance(), TryStore(db)
    factor_store, code_store = FactorStore(db), CodeStore(db)
    identities, key_store = IdentityStore(db), ApiKeyStore(db)
    store = AccountStore(db, [*belongings, factor_store, code_store, identities, key_store])
    notices.listen_to_accounts(accounts=store, factors=factor_store, api_keys=key_store)
    factors = SecondFactors(
        store=factor_store,
        tries=tries,
        vault=Vault(config.identity.totp_secret or config.jwt_secret, chance),
        clock=clock,
        chance=chance,
        issuer=config.identity.totp_issuer,
    )
    known = KnownDevices(config.jwt_secret)
    guesses = Guesses(
        tries=tries,
        known=known,
        clock=clock,
        pepper=hmac.digest(config.jwt_secret.encode(), b"ringmeter guesses v1", "sha256"),
    )
    codes = Codes(
        store=code_store,
        accounts=store,
        people=UserStore(db),
        tries=tries,
        messenger=CarrierMessenger(notices.carriers, development=not config.production),
        known=known,
        windows=windows,
        clock=clock,
        ids=ids,
        chance=chance,
        pepper=hmac.digest(config.jwt_secret.encode(), b"ringmeter codes v1", "sha256"),
        house=config.identity.totp_issuer,
    )
    oauth = OAuth(
        providers=_providers(config.identity, clock),
        identities=identities,
        store=store,
        factors=factors,
        clock=clock,
    )
    return Accounts(
        store=store,
        clock=clock,
        ids=ids,
        doors=doors,
        courier=courier,
        calls=calls,
        hasher=hasher,
        factors=factors,
        codes=codes,
        oauth=oauth,
        api_keys=ApiKeys(store=key_store, accounts=store, clock=clock, chance=chance),
        guesses=guesses,
        chance=chance,
        strength=Zxcvbn(config.identity.password_score_min, config.identity.totp_issuer),
        secret=config.jwt_secret,
        access_token_seconds=config.access_token_seconds,
        refresh_token_days=config.refresh_token_days,
        currency=config.currency,
        session_days_max=config.identity.session_days_max,
    )


def _providers(config: IdentityConfig, clock: Clock) -> dict[str, tuple[Provider, Keys]]:
    providers: dict[str, tuple[Provider, Keys]] = {}
    if config.google_client_ids:
        google = Provider("google", GOOGLE_ISSUERS, config.google_client_ids)
        urls = [config.google_keys_url] if config.google_keys_url else GOOGLE_KEYS
        providers["google"] = (google, JwksKeys(urls, clock))
    if config.facebook_app_id:
        facebook = Provider("facebook", FACEBOOK_ISSUERS, (config.facebook_app_id,))
        urls = [config.facebook_keys_url] if config.facebook_keys_url else FACEBOOK_KEYS
        providers["facebook"] = (facebook, JwksKeys(urls, clock))
    return providers
