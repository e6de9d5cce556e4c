"""Pushes of several processes on one database, the tokens that accounts would keep, stand-ins for the providers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from models.db import Database
from models.notify.delivery import Delivery
from models.notify.invites.service import Invites
from models.notify.invites.store import InviteStore
from models.notify.messages.service import Messages
from models.notify.messages.store import BundleStore
from models.notify.ports import Outcome, ReceiptSource, Sender
from models.notify.receipts.service import Receipts
from models.notify.receipts.store import ReceiptStore
from models.notify.rings.service import Rings
from models.notify.rings.store import RingStore
from models.notify.service import Pushes
from server.adapters.expo import ExpoSender
from tests.fakes import CountingIds, VirtualClock
from tests.standins.expo import ExpoStandIn

ANN = {
    "id": "01950000-0000-7000-8000-00000000000a",
    "username": "ann",
    "displayName": "Ann",
    "avatarUrl": None,
}
CALL = "01950000-0000-7000-8000-0000000000ca"
BOB = "01950000-0000-7000-8000-00000000000b"
CHAT = "01950000-0000-7000-8000-0000000000c1"
PHONE, TABLET = "ExponentPushToken[phone]", "ExponentPushToken[tablet]"


@dataclass(frozen=True)
class Token:
    kind: str
    token: str
    device_id: str
    user_id: str
    shown_at: datetime


@dataclass
class Drawer:
    """The push tokens that accounts would keep."""

    clock: VirtualClock
    tokens: dict[str, list[Token]] = field(default_factory=dict)

    def put(self, user_id: str, *tokens: str, kind: str = "EXPO", device: str | None = None) -> None:
        """A device shows a token: its own device, or ``device``."""
        for rows in self.tokens.values():
            rows[:] = [row for row in rows if row.token not in tokens]
        self.tokens.setdefault(user_id, []).extend(
            Token(kind, token, device or f"d:{token}", user_id, self.clock.now()) for token in tokens
        )

    def of(self, user_id: str) -> list[str]:
        return [row.token for row in self.tokens.get(user_id, [])]

    async def of_users(self, user_ids: Collection[str]) -> list[Token]:
        return [token for user_id in user_ids for token in self.tokens.get(user_id, [])]

    async def dead(self, tokens: Mapping[str, datetime]) -> None:
        for rows in self.tokens.values():
            rows[:] = [row for row in rows if row.token not in tokens or row.shown_at > tokens[row.token]]


@dataclass
class World:
    """What the processes share, and what is around them."""

    db: Database
    clock: VirtualClock
    ids: CountingIds
    expo: ExpoStandIn
    sender: ExpoSender
    drawer: Drawer = field(init=False)
    senders: dict[str, Sender] = field(init=False)
    over: set[str] = field(default_factory=set)
    looking: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    counted: list[tuple[str, str]] = field(default_factory=list)
    receipts_counted: list[tuple[str, str | None]] = field(default_factory=list)
    nudges: int = 0

    def __post_init__(self) -> None:
        self.drawer = Drawer(self.clock)
        self.senders = {"EXPO": self.sender}

    async def _still_rings(self, call_id: str) -> bool:
        return call_id not in self.over

    async def _focused(self, user_id: str, conversation_id: str) -> set[str]:
        return self.looking.get((user_id, conversation_id), set())

    def _nudge(self) -> None:
        self.nudges += 1

    def _count(self, kind: str, outcome: Outcome) -> None:
        self.counted.append((kind, outcome.sent.value))

    def _count_receipt(self, kind: str, outcome: Outcome) -> None:
        self.receipts_counted.append((kind, outcome.reason))

    def process(self, *, db: Any = None, **senders: Sender) -> Pushes:
        """Another process (or the same one after a crash) on the same database; ``senders`` instead of the shared."""
        db = db or self.db
        receipts, clock, ids = ReceiptStore(db), self.clock, self.ids
        sources: dict[str, ReceiptSource] = {"EXPO": self.sender}
        delivery = Delivery(
            senders={**self.senders, **senders},
            tokens=self.drawer,
            receipts=receipts,
            clock=clock,
            count=self._count,
        )
        return Pushes(
            rings=Rings(
                store=RingStore(db),
                tokens=self.drawer,
                delivery=delivery,
                still_rings=self._still_rings,
                clock=clock,
                ids=ids,
                nudge=self._nudge,
            ),
            messages=Messages(
                store=BundleStore(db),
                tokens=self.drawer,
                delivery=delivery,
                focused=self._focused,
                clock=clock,
                ids=ids,
            ),
            invites=Invites(
                store=InviteStore(db),
                tokens=self.drawer,
                delivery=delivery,
                clock=clock,
                ids=ids,
                nudge=self._nudge,
            ),
            receipts=Receipts(
                store=receipts,
                tokens=self.drawer,
                sources=sources,
                clock=clock,
                ids=ids,
                count=self._count_receipt,
            ),
        )

    async def ring(
        self, pushes: Pushes, *, seconds: float = 45, call_id: str = CALL, callee: str = BOB
    ) -> None:
        expires_at = self.clock.now() + timedelta(seconds=seconds)
        await pushes.ring(
            call_id=call_id, call_type="video", caller=ANN, callee_id=callee, expires_at=expires_at
        )

    async def stop(
        self, pushes: Pushes, *, missed: bool, call_id: str = CALL, answered_on: str | None = None
    ) -> None:
        self.over.add(call_id)
        await pushes.stop_ringing(
            call_id=call_id,
            call_type="video",
            caller=ANN,
            callee_id=BOB,
            missed=missed,
            answered_on=answered_on,
        )

    async def write(
        self,
        pushes: Pushes,
        seq: int,
        preview: str | None = "hello",
        *,
        to: Collection[str] = (BOB,),
        chat: str = CHAT,
        title: str | None = None,
    ) -> None:
        """Ann writes the message number ``seq``."""
        await pushes.message(
            conversation_id=chat,
            message_id=f"m{seq}",
            seq=seq,
            sender=ANN,
            recipients=to,
            preview=preview,
            title=title,
        )

    def told(self) -> list[tuple[str, str]]:
        """Which Expo token got what, in order."""
        return [(message["to"], message["data"]["type"]) for message in self.expo.pushed]

    def bodies(self) -> list[str]:
        """What the notifications say, in order."""
        return [message["body"] for message in self.expo.pushed]


@asynccontextmanager
async def pushing(db: Database, clock: VirtualClock, ids: CountingIds) -> AsyncIterator[World]:
    """A world in which Bob has a phone with an Expo token."""
    expo = ExpoStandIn()
    await expo.start()
    sender = ExpoSender(
        access_token="secret",
        url=expo.url,
        monotonic=lambda: clock.now().timestamp(),
        now=clock.now,
    )
    built = World(db, clock, ids, expo, sender)
    built.drawer.put(BOB, PHONE)
    yield built
    await sender.close()
    await expo.stop()
