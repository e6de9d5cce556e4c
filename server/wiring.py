"""The only place that says ``Service(Store(db), clock, …)``."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import server.declared  # noqa: F401 - puts what handlers declare into the catalogue
from handlers.calls_views import CallTeller
from handlers.chat_news import ChatNews
from handlers.chat_views import ChatTeller
from handlers.keys import KeysTeller
from handlers.keys_groups import GroupTeller
from handlers.presence import PresenceTeller
from handlers.registry import catalogue
from handlers.reports import ReportsTeller
from handlers.services import Services
from handlers.wallet import WalletTeller
from models.admin.store import AdminSessionStore
from models.billing.meter import WalletMeter
from models.billing.receipts import Receipts
from models.billing.service import Billing
from models.billing.signing import Signer
from models.billing.tariffs import Tariffs
from models.blocks.service import Blocks
from models.blocks.store import BlockStore
from models.calls.call import Timers
from models.calls.ice import IceServers
from models.calls.rings.service import Rings
from models.calls.rings.store import PastStore
from models.calls.service import Calls
from models.calls.store import CallStore
from models.chat.service import Chat, ChatStores
from models.db import Database
from models.keys.groups.service import KeyGroups
from models.keys.groups.store import GroupStore
from models.keys.service import Keys
from models.keys.store import KeyStore
from models.ledger.service import Ledger
from models.ledger.store import LedgerStore
from models.live import Together
from models.mailbox.service import Mailbox
from models.mailbox.store import MailboxStore
from models.media.store import MediaStore
from models.notices.store import NoticeStore
from models.once import Once
from models.ports import Alarms, Clock, Courier, Doors, Ids, NoCourier
from models.presence.service import Whereabouts
from models.presence.store import PresenceStore
from models.users.service import Users
from models.users.store import UserStore
from models.wallet.service import Wallets
from models.wallet.store import WalletStore
from server.adapters.passwords import Passwords
from server.backlogs import Backlogs, backlogs_of
from server.config import Config
from server.funnel import Funnel
from server.wiring_desk import wire_desk, wire_reports, wire_stewards, wire_trail
from server.wiring_identity import wire_accounts
from server.wiring_limits import WiredWindows, limits_of, windows_of
from server.wiring_media import WiredMedia, wire_media
from server.wiring_money import WiredMoney, wire_money
from server.wiring_notices import WiredNotices, wire_notices
from server.wiring_payouts import belongings_of_payouts, wire_payouts
from server.wiring_purse import WiredPurse, wire_purse
from server.wiring_push import WiredPush, wire_push
from server.wiring_rooms import WiredRooms, wire_rooms


@dataclass(frozen=True, slots=True, kw_only=True)
class Edges:
    """What comes from outside: real in a server, virtual in a test."""

    clock: Clock
    ids: Ids
    alarms: Alarms
    doors: Doors
    process: str
    courier: Courier = field(default_factory=NoCourier)
    nudge: Callable[[], None] = lambda: None
    nudge_billing: Callable[[], None] = lambda: None
    nudge_presence: Callable[[], None] = lambda: None
    give_way: Callable[[], Awaitable[None]] = lambda: asyncio.sleep(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wired:
    """A process's services, its funnel, and what has to be closed with it."""

    services: Services
    funnel: Funnel
    passwords: Passwords
    push: WiredPush
    media: WiredMedia
    rooms: WiredRooms
    money: WiredMoney
    backlogs: Backlogs
    purse: WiredPurse
    notices: WiredNotices
    windows: WiredWindows

    async def close(self) -> None:
        """Stop the threads and the connections."""
        self.passwords.close()
        await self.push.close()
        await self.media.close()
        await self.rooms.close()
        await self.money.close()
        await self.purse.close()
        await self.notices.close()
        await self.windows.close()


def wire(config: Config, db: Database, edges: Edges) -> Wired:
    """Make everything, once per process."""
    assert config.jwt_secret is not None
    clock, ids, doors = edges.clock, edges.ids, edges.doors
    windows = windows_of(config)
    users = Users(store=UserStore(db), clock=clock)
    ledger = Ledger(LedgerStore(db), clock, ids)
    notices = wire_notices(
        config.money, db, development=not config.production, users=users, clock=clock, ids=ids
    )
    pins = WalletStore(db)
    notices.listen(ledger=ledger.store, pins=pins)
    call_store = CallStore(db)
    meter = WalletMeter(
        ledger=ledger,
        calls=call_store,
        tariffs=Tariffs(
            currency=config.currency,
            rate_minor=config.call_rate_minor,
            video_rate_minor=config.call_video_rate_minor,
            first_block_seconds=config.call_first_block_seconds,
            block_seconds=config.call_block_seconds,
            minimum_minor=config.call_minimum_minor,
            connect_fee_minor=config.call_connect_fee_minor,
        ),
        share_bps=config.platform_share_bps,
        dispute_seconds=config.dispute_window_seconds,
        clock=clock,
    )
    calls = Calls(
        store=call_store,
        users=users,
        meter=meter,
        clock=clock,
        ids=ids,
        alarms=edges.alarms,
        doors=doors,
        rings=Rings(windows=windows, past=PastStore(db), clock=clock, limits=config.limits.rings),
        timers=Timers(
            ring=config.ring_seconds,
            connect=config.connect_seconds,
            reconnect=config.reconnect_seconds,
            longest=config.call_max_seconds,
            caller_grace=config.caller_grace_seconds,
            payee_proof=config.payee_proof_seconds,
        ),
        process=edges.process,
        courier=edges.courier,
    )
    wired_rooms = wire_rooms(
        config,
        db,
        calls=calls,
        processes=call_store.processes,
        users=users,
        meter=meter,
        clock=clock,
        ids=ids,
        alarms=edges.alarms,
        doors=doors,
        process=edges.process,
        courier=edges.courier,
    )
    rooms = wired_rooms.rooms
    lives = Together(calls, rooms)
    users.bind(lives)
    presence_store = PresenceStore(db, edges.process)
    presence = Whereabouts(
        store=presence_store,
        people=users,
        processes=call_store.processes,
        doors=doors,
        busy=lambda user_id: calls.board.call_of(user_id) is not None or rooms.board.in_room(user_id),
        busy_among=[call_store.busy_among, wired_rooms.store.busy_among],
        clock=clock,
        process=edges.process,
        others_live=lambda: calls.others_live,
        nudge=edges.nudge_presence,
        courier=edges.courier,
    )
    mailbox = Mailbox(MailboxStore(db, edges.process), doors, clock, edges.courier)
    presence.announcer = PresenceTeller(mailbox=mailbox)
    passwords = Passwords(rounds=config.bcrypt_rounds)
    media = wire_media(config, db, users=users, clock=clock, ids=ids)
    accounts = wire_accounts(
        config,
        db,
        belongings=[
            KeyStore(db),
            MediaStore(db),
            presence_store,
            NoticeStore(db),
            WalletStore(db),
            AdminSessionStore(db),
            *belongings_of_payouts(db),
        ],
        notices=notices,
        calls=lives,
        hasher=passwords,
        doors=doors,
        courier=edges.courier,
        windows=windows,
        clock=clock,
        ids=ids,
    )
    push = wire_push(
        config,
        db,
        still_rings=calls.still_rings,
        focused=presence.focused,
        clock=clock,
        ids=ids,
        nudge=edges.nudge,
    )
    pushes = push.pushes
    calls.announcer = CallTeller(
        mailbox=mailbox,
        presence=presence,
        pusher=pushes,
        clock=clock,
        ring_seconds=config.ring_seconds,
        process=edges.process,
        courier=edges.courier,
    )
    wired_rooms.announce(mailbox=mailbox, presence=presence, pusher=pushes)
    billing = Billing(
        calls=calls,
        ledger=ledger,
        doors=doors,
        clock=clock,
        nudge=edges.nudge_billing,
        give_way=edges.give_way,
    )
    keys = Keys(store=KeyStore(db), users=users, windows=windows, clock=clock, ids=ids)
    keys.announcer = KeysTeller(mailbox)
    chat = Chat(
        stores=ChatStores(db), users=users, clock=clock, ids=ids, attachments=media.files, key_devices=keys
    )
    chat.announcer = ChatTeller(mailbox=mailbox, presence=presence, users=users, pusher=pushes.messages)
    pushes.messages.fresh = ChatNews(chat=chat, presence=presence).now
    wallets = Wallets(
        ledger=ledger,
        store=pins,
        users=users,
        hasher=passwords,
        passwords=accounts,
        clock=clock,
        currency=config.currency,
        # Not the key itself: what signs tokens does nothing else.
        pepper=hmac.digest((config.pin_pepper or config.jwt_secret).encode(), b"ringmeter pin v1", "sha256"),
    )
    ledger.listeners.append(WalletTeller(mailbox=mailbox, clock=clock, others_live=lambda: calls.others_live))
    money = wire_money(
        config,
        db,
        ledger=ledger,
        wallets=wallets,
        users=users,
        mailbox=mailbox,
        clock=clock,
        ids=ids,
    )
    out = wire_payouts(
        config,
        db,
        gateways=money.gateways,
        inbox=money.inbox,
        payments=money.payments,
        ledger=ledger,
        pins=wallets.pins,
        mailbox=mailbox,
        notices=notices.notices,
        clock=clock,
        ids=ids,
    )
    out.payouts.weakened_at = accounts.factors.turned_off_at
    purse = wire_purse(config, db, ledger=ledger, wallets=wallets, users=users, clock=clock, ids=ids)
    out.payouts.worth = purse.fx.worth
    key_groups = KeyGroups(store=GroupStore(db), members=chat.members, clock=clock, ids=ids)
    key_groups.announcer = GroupTeller(mailbox)
    trail = wire_trail(db, clock)
    stewards = wire_stewards(db, accounts=accounts, trail=trail, clock=clock, ids=ids)
    reports = wire_reports(db, stewards, trail, users=users, evidence=chat.evidence, clock=clock, ids=ids)
    reports.announcer = ReportsTeller(mailbox=mailbox, presence=presence)
    desk = wire_desk(
        db,
        stewards,
        trail,
        accounts=accounts,
        ledger=ledger,
        calls=calls,
        refunds=money.refunds,
        payouts=out.payouts,
        clock=clock,
    )
    services = Services(
        accounts=accounts,
        users=users,
        calls=calls,
        ice=IceServers(
            stun_urls=config.stun_urls,
            turn_urls=config.turn_urls,
            turn_secret=config.turn_secret or "",
            ttl_seconds=config.turn_ttl_seconds,
            clock=clock,
            only_while=presence.busy if config.turn_in_calls_only else None,
        ),
        chat=chat,
        keys=keys,
        key_groups=key_groups,
        reports=reports,
        desk=desk,
        trail=trail,
        blocks=Blocks(store=BlockStore(db), trail=trail, clock=clock),
        mailbox=mailbox,
        media=media.files,
        presence=presence,
        rooms=rooms,
        livekit=wired_rooms.livekit,
        talk=wired_rooms.talk,
        pushes=pushes,
        notices=notices.notices,
        ledger=ledger,
        wallets=wallets,
        payments=money.payments,
        refunds=money.refunds,
        inbox=money.inbox,
        payouts=out.payouts,
        bank_accounts=out.accounts,
        cards=out.cards,
        sandbox=money.sandbox.sandbox if money.sandbox else None,
        fx=purse.fx,
        papers=purse.papers,
        rewards=purse.rewards,
        billing=billing,
        receipts=Receipts(
            calls=call_store, ledger=ledger.store, signer=Signer(config.receipt_secret or config.jwt_secret)
        ),
        doors=doors,
        courier=edges.courier,
        clock=clock,
    )
    limits = limits_of(config, windows=windows, clock=clock, guesses=accounts.guesses)
    funnel = Funnel(limits=limits, once=Once(db, edges.process))
    return Wired(
        services=services,
        funnel=funnel,
        passwords=passwords,
        push=push,
        media=media,
        rooms=wired_rooms,
        money=money,
        backlogs=backlogs_of({**push.queues, **money.queues, **out.queues, **notices.queues}, clock),
        purse=purse,
        notices=notices,
        windows=windows,
    )


__all__ = ["Edges", "Wired", "catalogue", "wire"]
