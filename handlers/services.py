"""The verbs that handlers may call, as one typed bundle; ``server/wiring.py`` fills it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from models.ports import Courier, NoCourier

if TYPE_CHECKING:
    from models.auth.service import Accounts
    from models.billing.receipts import Receipts
    from models.billing.service import Billing
    from models.blocks.service import Blocks
    from models.calls.ice import IceServers
    from models.calls.service import Calls
    from models.chat.service import Chat
    from models.desk.service import Desk
    from models.fx.service import Fx
    from models.keys.groups.service import KeyGroups
    from models.keys.service import Keys
    from models.ledger.service import Ledger
    from models.mailbox.service import Mailbox
    from models.media.service import MediaFiles
    from models.notices.service import Notices
    from models.notify.service import Pushes
    from models.papers.service import Papers
    from models.payments.inbox.service import Inbox
    from models.payments.refunds.service import Refunds
    from models.payments.service import Payments
    from models.payouts.accounts.service import BankAccounts
    from models.payouts.cards.service import Cards
    from models.payouts.service import Payouts
    from models.ports import Clock, Doors
    from models.presence.service import Whereabouts
    from models.reports.service import Reports
    from models.rewards.service import Rewards
    from models.rooms.livekit.service import LiveKit
    from models.rooms.service import Rooms
    from models.rooms.talk.service import Talk
    from models.sandbox.service import Sandbox
    from models.trail.service import Trail
    from models.users.service import Users
    from models.wallet.service import Wallets


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """One per process."""

    accounts: Accounts
    users: Users
    calls: Calls
    ice: IceServers
    chat: Chat
    keys: Keys
    key_groups: KeyGroups
    reports: Reports
    desk: Desk
    trail: Trail
    blocks: Blocks
    mailbox: Mailbox
    media: MediaFiles
    presence: Whereabouts
    rooms: Rooms
    livekit: LiveKit | None = None
    talk: Talk
    pushes: Pushes
    notices: Notices
    ledger: Ledger
    wallets: Wallets
    payments: Payments
    payouts: Payouts
    bank_accounts: BankAccounts
    cards: Cards
    fx: Fx
    papers: Papers
    refunds: Refunds
    inbox: Inbox
    rewards: Rewards
    billing: Billing
    receipts: Receipts
    sandbox: Sandbox | None = None
    doors: Doors
    clock: Clock
    courier: Courier = field(default_factory=NoCourier)
