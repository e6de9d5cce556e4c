"""Notices of account activity put together: the carriers that the configuration names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from models.auth.apikeys.store import ApiKeyStore
from models.auth.second.store import FactorStore
from models.auth.store import AccountStore
from models.db import Database
from models.ledger.store import LedgerStore
from models.notices.notice import EMAIL, SMS, Carrier, What
from models.notices.service import Notices
from models.notices.store import NoticeStore
from models.ports import Clock, Ids
from models.users.service import Users
from models.wallet.store import WalletStore
from server.adapters.messenger import LogCarrier
from server.adapters.smtp import SmtpCarrier, relay_of
from server.adapters.twilio import TwilioCarrier
from server.backlogs import Queue
from server.config_money import MoneyConfig
from server.metrics import count_notice


@dataclass(frozen=True, slots=True, kw_only=True)
class WiredNotices:
    """A process's notices, and what has to be closed with it. ``told``: somebody or something carries them."""

    notices: Notices
    carriers: Mapping[str, Carrier]
    told: bool
    queues: Mapping[str, Queue]  # by the name that the metrics call them

    def listen(self, *, ledger: LedgerStore, pins: WalletStore) -> None:
        """Keep what these stores write and somebody is to be told, in the same transactions; nothing without a
        carrier."""
        if not self.told:
            return
        ledger.beside = self.notices.with_entries
        ledger.beside_freeze = self.notices.with_freeze
        pins.beside_change = self.notices.with_pin

    def listen_to_accounts(
        self, *, accounts: AccountStore, factors: FactorStore, api_keys: ApiKeyStore
    ) -> None:
        """The same for what guards an account."""
        if not self.told:
            return
        tells = self.notices.with_change
        accounts.beside_password = tells(What.PASSWORD_CHANGED)
        factors.beside_on, factors.beside_off = tells(What.SECOND_FACTOR_ON), tells(What.SECOND_FACTOR_OFF)
        api_keys.beside_made = tells(What.API_KEY_MADE)

    async def close(self) -> None:
        """Close the connections."""
        for carrier in self.carriers.values():
            await carrier.close()


def wire_notices(
    config: MoneyConfig, db: Database, *, development: bool, users: Users, clock: Clock, ids: Ids
) -> WiredNotices:
    """Make it, once per process. In ``development`` the log stands in for the carriers that are not configured."""
    carriers, store = carriers_of(config), NoticeStore(db)
    logged: dict[str, Carrier] = {way: LogCarrier(way) for way in (EMAIL, SMS)} if development else {}
    told = {**logged, **carriers}
    notices = Notices(store=store, users=users, carriers=told, clock=clock, ids=ids, count=count_notice)
    queues = {"notices": store} if told else {}
    return WiredNotices(notices=notices, carriers=carriers, told=bool(told), queues=queues)


def carriers_of(config: MoneyConfig) -> dict[str, Carrier]:
    """The mail relay and Twilio, as far as they are configured."""
    carriers: dict[str, Carrier] = {}
    if config.smtp_url is not None:
        assert config.mail_from, "the configuration has both, or none"
        carriers[EMAIL] = SmtpCarrier(relay_of(config.smtp_url), config.mail_from)
    if config.twilio_account_sid is not None:
        assert config.twilio_auth_token, "the configuration has all of it, or none"
        assert config.twilio_from
        carriers[SMS] = TwilioCarrier(
            config.twilio_account_sid,
            config.twilio_auth_token,
            config.twilio_from,
            url=config.twilio_url,
        )
    return carriers
