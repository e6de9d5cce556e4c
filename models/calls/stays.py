"""Stays: what a participant of a room with a price pays to its owner for being there.

A stay is a call without a conversation to begin: the participant is its caller and the owner its callee, it is active
from its first moment, in one interval, and its legs are devices that nobody waits for. So all that is true of a paid
call is true of it: reserved before anybody hears of it, renewed, cut off when the money ends (by whichever process is
awake), settled and cleared once, refunded, audited, and finished by others when its process dies. What belongs to two
people who ring each other does not touch it: nobody is busy by a stay, it is in no history, no device can command it,
and the room says aloud what becomes of it.

The room gives it its id before it begins, and so can end it whatever has become of its beginning.
"""

from __future__ import annotations

import asyncio
from datetime import datetime

from models.calls import commands as c
from models.calls import rules
from models.calls.call import Call, Interval, Leg, Party, Price, Reason, Role, State
from models.calls.engine import TRIES_MAX, Engine
from models.calls.store import STAY
from models.db import Stale
from models.errors import Refusal

# Both legs: the room knows which devices are in it.
_IN_THE_ROOM = Leg(device_id="room")


class Staying(Engine):
    """The verbs of rooms, for the participants who pay."""

    async def enter(
        self, stay_id: str, *, room_id: str, type: str, payer: Party, payee: Party, price: Price
    ) -> Call:
        """Reserve, and let the stay run. Repeating it gives the stay as it is.

        Refuses with ``INSUFFICIENT_FUNDS``, ``WALLET_FROZEN``, and with ``ROOM_NOT_JOINED`` one that is over.
        """
        turn = self._turns.setdefault(stay_id, asyncio.Lock())
        async with turn:
            for _ in range(TRIES_MAX):
                known = await self._store.load(stay_id)
                if known is not None:
                    await self._tell(known, ())  # whoever wrote it may not have lived to know it
                    if not known.live:
                        break
                    return known
                now = self._clock.now()
                stay = Call(
                    id=stay_id,
                    type=type,
                    state=State.ACTIVE,
                    version=1,
                    caller=payer,
                    callee=payee,
                    caller_leg=_IN_THE_ROOM,
                    callee_leg=_IN_THE_ROOM,
                    created_at=now,
                    accepted_at=now,
                    active_at=now,
                    intervals=(Interval(now),),
                    price=price,
                    room_id=room_id,
                )
                try:
                    async with self._meter.opening(stay) as cover:
                        stay = rules.charged(stay, cover.charge, timers=self._timers)
                        cover.written = await self._store.enter(stay, now, cover.post)
                except Stale:
                    continue
                except Refusal:
                    if await self._store.load(stay_id) is None:
                        raise
                    continue  # another process has begun it, with that very money
                if cover.written:
                    await self._tell(stay, ())
                    return stay
                if await self._store.load(stay_id) is None:
                    break  # it was ended before it could begin
        raise Refusal("ROOM_NOT_JOINED", roomId=room_id)

    async def leave(self, stay_id: str, *, reason: Reason, at: datetime, by: Role | None = None) -> None:
        """End a stay as of ``at``. Repeating it changes nothing; one that has not begun never will.

        It waits for nobody's turn, and tells nobody: the room whose participant has left asks in the middle of a move
        of its own, and a stay that ends by itself asks the room to move. What others write meanwhile, the version
        finds.
        """
        for _ in range(TRIES_MAX):
            stay = await self._store.load(stay_id)
            if stay is None:
                await self._store.bury(STAY, stay_id, self._clock.now())
                # It may have slipped in between; one of the two sees the other.
                stay = await self._store.load(stay_id)
            if stay is None or not stay.live:
                return
            now = self._clock.now()
            over = rules.out_of_money(stay, min(at, now))  # before they left
            command = c.Tick() if over else c.Stop(reason, by=by and stay.party(by).user_id, at=at)
            done = rules.step(stay, command, role=Role.SERVER, now=now, timers=self._timers)
            if await self._store.swap(stay, done.call, (), now):
                await self._tell(done.call, ())
                return
        raise Refusal("SERVER_BUSY")
