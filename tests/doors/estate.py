"""All that one person can have here, a thing of every kind, for tests about who may get at it.

``CANARY`` is in every text that is nobody else's to read.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

from models.payouts.cards.store import Card, CardStore
from models.users.store import USERS
from tests.doors.conftest import PASSWORD, House, Person, Reply
from tests.services.keykit import Handset
from tests.services.mediakit import PDF, image
from tests.services.wallet_house import PIN

# No limit, and every part of the server switched on; a call costs something.
HOUSE = {
    "EVENTS_PER_SECOND": "1000000",
    "FX_RATES": "USD/NGN=1600",
    "CALL_RATE_MINOR": "1000",
    "CALL_MINIMUM_MINOR": "0",
    "REWARD_POINTS_PER_MINUTE": "5",
    "REWARD_POINT_MINOR": "20",
    "WITHDRAWAL_MINOR_MIN": "1",
    "WITHDRAWAL_DAILY_MINOR_MAX": "900000000",
}
CANARY = "canary"
HANDSET = Handset("handset")
_NUMBERS = itertools.count(1)


def key() -> dict[str, str]:
    """A key that was never used."""
    return {"Idempotency-Key": f"estate-{next(_NUMBERS)}"}


def of(reply: Reply, *names: str, status: int = 200) -> Any:
    """What is in an answer under these names."""
    assert reply.status == status, reply.body
    found = reply.body
    for name in names:
        found = found[name]
    return found


async def rich(house: House, name: str, **fields: Any) -> Person:
    """Somebody with a PIN and money."""
    person = await house.person(name, **fields)
    of(await person.post("/api/wallet/create", {"pin": PIN}), status=201)
    await person.pay_in(10_000_000)
    return person


async def administrator(house: House, name: str = "steward") -> Person:
    """Somebody with a PIN and money who keeps the server."""
    person = await rich(house, name)
    await house.db[USERS].update_one({"_id": person.id}, {"$set": {"role": "admin"}})
    return person


@dataclass(slots=True)
class Estate:
    """What ``owner`` has, and ``friend`` with them. ``make(kind)`` is the id of another one of that kind."""

    house: House
    owner: Person
    friend: Person
    admin: Person

    @classmethod
    async def open(cls, house: House) -> Estate:
        """An owner with wallets, keys and a friend."""
        number = next(_NUMBERS)
        owner = await rich(house, "owner", displayName="Known To All", phone=f"+23480312{number:05d}")
        friend, admin = await rich(house, "friend"), await administrator(house)
        estate = cls(house, owner, friend, admin)
        await estate.keys()
        return estate

    async def make(self, kind: str) -> str:
        """A new thing of that kind; its id."""
        return str(await getattr(self, kind)())

    # -------------------------------------------------------------------------------------------------------- people

    async def user(self) -> str:
        return self.owner.id

    async def stranger(self) -> str:
        """Somebody whom nobody knows, and who may be called, invited and told."""
        return (await self.house.person("stranger")).id

    async def member(self) -> str:
        return self.friend.id

    async def session(self) -> str:
        """A sign-in of the owner on another device."""
        body = {
            "identifier": self.owner.username,
            "password": PASSWORD,
            "device": {"id": f"{CANARY}-device", "name": f"{CANARY} phone"},
        }
        before = {one["id"] for one in of(await self.owner.get("/api/auth/sessions"), "items")}
        of(await self.house.send("POST", "/api/auth/login", body))
        after = {one["id"] for one in of(await self.owner.get("/api/auth/sessions"), "items")}
        return str((after - before).pop())

    async def api_key(self) -> str:
        body = {"name": f"{CANARY} key", "scopes": ["calls:read"], "password": PASSWORD}
        return str(of(await self.owner.post("/api/auth/api-keys", body), "apiKey", "id", status=201))

    async def push_token(self) -> str:
        token = f"ExponentPushToken[{CANARY}{next(_NUMBERS)}]"
        of(await self.owner.post("/api/auth/expo-push-token", {"expoPushToken": token}))
        return token

    async def keys(self) -> str:
        upload = HANDSET.upload(ec=range(1, 60), mls=range(1, 60))
        body = {
            "identityKey": upload.identity_key,
            "registrationId": upload.registration_id,
            "signedPreKey": {
                "id": upload.signed.id,
                "key": upload.signed.key,
                "signature": upload.signed.signature,
            },
        }
        of(await self.owner.send("PUT", "/api/keys", body, headers={"X-Device-Id": HANDSET.name}))
        return HANDSET.name

    # --------------------------------------------------------------------------------------------------------- calls

    async def call(self) -> str:
        """A call that rings at the owner."""
        caller = await rich(self.house, "caller")
        await self._hang_up()
        return str(
            of(
                await caller.post("/api/calls", {"to": self.owner.id, "type": "audio"}),
                "call",
                "id",
                status=201,
            )
        )

    async def outgoing(self) -> str:
        """A call of the owner's that rings at somebody."""
        await self._hang_up()
        body = {"to": await self.stranger(), "type": "audio"}
        return str(of(await self.owner.post("/api/calls", body), "call", "id", status=201))

    async def talking(self) -> str:
        """A call that the owner is in."""
        call_id = await self.call()
        of(await self.owner.post("/api/calls/accept", {"callId": call_id}))
        return call_id

    async def ended(self) -> str:
        call_id = await self.talking()
        of(await self.owner.post("/api/calls/end", {"callId": call_id}))
        return call_id

    async def _hang_up(self) -> None:
        for one in of(await self.owner.get("/api/calls?limit=5"), "items"):
            if one["state"] != "ended":
                of(await self.owner.post("/api/calls/end", {"callId": one["id"]}))

    # ---------------------------------------------------------------------------------------------------------- chat

    async def message(self) -> str:
        return str((await self._said())["id"])

    async def heard(self) -> str:
        """A message of the friend's to the owner."""
        body = {"to": self.owner.id, "text": f"{CANARY} heard", "opId": str(next(_NUMBERS))}
        return str(of(await self.friend.post("/api/chat/messages", body), "message", "id", status=201))

    async def conversation(self) -> str:
        return str((await self._said())["conversationId"])

    async def _said(self) -> dict[str, Any]:
        body = {"to": self.friend.id, "text": f"{CANARY} message", "opId": str(next(_NUMBERS))}
        return dict(of(await self.owner.post("/api/chat/messages", body), "message", status=201))

    async def group(self) -> str:
        body = {"name": f"{CANARY} group", "memberIds": [self.friend.id]}
        return str(of(await self.owner.post("/api/chat/groups", body), "conversation", "id", status=201))

    async def media(self) -> str:
        """A picture that was not sent."""
        head = {"Content-Type": "application/octet-stream", "X-Filename": f"{CANARY}.png"}
        made = await self.owner.send("POST", "/api/media", data=image("PNG", (40, 30)), headers=head)
        return str(of(made, "media", "id", status=201))

    async def attached(self) -> str:
        """A file that was sent to the friend."""
        head = {"Content-Type": "application/octet-stream", "X-Filename": f"{CANARY}.pdf"}
        made = await self.owner.send("POST", "/api/media", data=PDF, headers=head)
        media = str(of(made, "media", "id", status=201))
        body = {"to": self.friend.id, "attachmentId": media, "opId": str(next(_NUMBERS))}
        of(await self.owner.post("/api/chat/messages", body), status=201)
        return media

    async def report(self) -> str:
        body = {"userId": await self.stranger(), "reason": "fraud", "comment": f"{CANARY} comment"}
        return str(of(await self.owner.post("/api/reports", body), "report", "id", status=201))

    # --------------------------------------------------------------------------------------------------------- rooms

    async def room(self) -> str:
        """A room for those who are invited, which the owner is in."""
        room_id = await self.empty_room()
        of(await self.owner.post(f"/api/room/join/{room_id}"))
        return room_id

    async def empty_room(self) -> str:
        await self._close_rooms()
        body = {"name": f"{CANARY} room", "access": "invite"}
        room_id = str(of(await self.owner.post("/api/room/create", body), "room", "id", status=201))
        of(await self.owner.post(f"/api/room/{room_id}/invite", {"userIds": [self.friend.id]}))
        return room_id

    async def logged_room(self) -> str:
        """A room in which a call is logged."""
        room_id = await self.room()
        of(await self.owner.post("/api/call-logs", {"roomId": room_id}), status=201)
        return room_id

    async def _close_rooms(self) -> None:
        for one in of(await self.owner.get("/api/rooms"), "items"):
            if one["closedAt"] is None:
                of(await self.owner.post(f"/api/room/{one['id']}/close"))

    # --------------------------------------------------------------------------------------------------------- money

    async def account(self) -> str:
        return str(of(await self.owner.get("/api/wallets"), "items")[0]["id"])

    async def payment(self) -> str:
        return str((await self._payment())["id"])

    async def reference(self) -> str:
        return str((await self._payment())["reference"])

    async def _payment(self) -> dict[str, Any]:
        made = await self.owner.post("/api/wallet/deposit", {"amountMinor": 7_777_777}, headers=key())
        return dict(of(made, "payment", status=201))

    async def bank_account(self) -> str:
        body = {"bankCode": "001", "accountNumber": f"99{next(_NUMBERS):07d}0"}
        return str(
            of(await self.owner.post("/api/wallet/bank-accounts", body), "bankAccount", "id", status=201)
        )

    async def payout(self) -> str:
        body = {"bankAccountId": await self.bank_account(), "amountMinor": 1_234, "pin": PIN}
        return str(
            of(await self.owner.post("/api/wallet/withdraw", body, headers=key()), "payout", "id", status=202)
        )

    async def card(self) -> str:
        card = Card(
            id=f"card-{next(_NUMBERS)}",
            user_id=self.owner.id,
            gateway="sandbox",
            token=f"{CANARY}-{next(_NUMBERS)}",
            last4="4242",
            brand=f"{CANARY} brand",
            expires=None,
            created_at=self.house.clock.now(),
        )
        return (await CardStore(self.house.db).add(card)).id

    async def quote(self) -> str:
        body = {"from": "NGN", "to": "USD", "amountMinor": 160_000}
        return str(of(await self.owner.post("/api/wallet/fx/quote", body), "quote", "id", status=201))

    async def transfer(self) -> str:
        """A line of the owner's statement."""
        body = {"to": self.friend.id, "amountMinor": 321, "pin": PIN, "note": f"{CANARY} note"}
        made = await self.owner.post("/api/wallet/transfer", body, headers=key())
        return str(of(made, "transfer", "id", status=201))
