"""SIGKILL of the server in every state of a paid call: afterwards nobody has paid a unit too much or too little.

One server, a pair of phones for every state, one kill. What a call costs is computed here anew, from the intervals
that the server shows, by the words of the tariff and not by the server's own function.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from models.calls.call import Price
from tests.doors.pyphone import Pair, PyPhone
from tests.doors.serverprocess import ServerProcess, eventually, lodging
from tests.services.billing_house import price_of
from tests.standins import payer

MONEY = 100_000
# The fee, 88 for so many seconds that phones are back before they are over, and 1 that buys nothing.
LAST_UNIT, LAST_UNIT_SECONDS = 7 + 88 + 1, 24
# Eleven minor units every three seconds with a fee: prices that do not happen to be round.
PRICES = {
    "CALL_RATE_MINOR": "220",
    "CALL_FIRST_BLOCK_SECONDS": "1",
    "CALL_BLOCK_SECONDS": "1",
    "CALL_MINIMUM_MINOR": "2",
    "CALL_CONNECT_FEE_MINOR": "7",
}
# Before the kill all is long, so that nothing ends by itself; after it short, so that all does.
LONG = {
    "RING_SECONDS": "60",
    "CONNECT_SECONDS": "60",
    "RECONNECT_SECONDS": "60",
    "DISPUTE_WINDOW_SECONDS": "5",
}
# Enough for a server to start and phones to come back on a busy machine.
SHORT = {
    **LONG,
    "RING_SECONDS": "15",
    "CONNECT_SECONDS": "15",
    "RECONNECT_SECONDS": "15",
    "CALLER_GRACE_SECONDS": "15",
}
STATES = ["ringing", "accepted", "active", "extended", "last unit", "reconnecting", "hanging up", "settled"]
_KEYS = (f"crash-{number}" for number in itertools.count(1))


@pytest.fixture
async def server(mongo_uri: str, tmp_path: Path) -> AsyncIterator[ServerProcess]:
    """A server with prices, on a database of this test's own."""
    async with lodging(mongo_uri) as database:
        one = ServerProcess(tmp_path / "server", mongo_uri=mongo_uri, database=database, **PRICES, **LONG)
        await asyncio.to_thread(one.start)
        yield one
        await asyncio.to_thread(one.stop)


class PaidCall(Pair):
    """A pair whose caller has money. ``state`` is where the kill finds it, ``returns`` whether the phones come back."""

    def __init__(self, address: str, state: str, *, returns: bool) -> None:
        super().__init__(address)
        self.state, self.returns = state, returns
        self.greeted: dict[PyPhone, int] = {}
        self.money = LAST_UNIT if state in ("extended", "last unit") else MONEY

    async def begin(self) -> PaidCall:
        """Up to its state, but for what has to be done in the instant of the kill."""
        await self.arrive()
        await self.caller.rest("POST", "/api/wallet/create", {"pin": "4071"})
        await self.pay_in(self.money)
        talks = self.state not in ("ringing", "accepted")
        await self.bring_to("active" if talks else self.state)
        if self.state == "extended":
            await self.pay_in(40_000)
            self.money += 40_000
            await eventually(self.reaches(60_000), what="the payment has been reserved from")
        elif self.state == "reconnecting":
            await self.callee.away()
            await eventually(self.is_("reconnecting"))
        elif self.state == "settled":
            await self.caller.ask("CALL_ENDED", callId=self.call_id)
        return self

    async def pay_in(self, minor: int) -> None:
        head = {"Authorization": f"Bearer {self.caller.token}", "Idempotency-Key": next(_KEYS)}
        await payer.pay_in(self.caller.http, self.caller.address, head, {"amountMinor": minor})

    def reaches(self, ms: int) -> Callable[[], Awaitable[bool]]:
        async def does() -> bool:
            return bool((await self.caller.call_now(self.call_id))["endsInMs"] > ms)

        return does

    async def hang_up_without_waiting(self) -> None:
        await self.callee.sio.emit("CALL_ENDED", {"callId": self.call_id})

    async def come_back(self) -> None:
        """What an app does whose server was away; an ended call needs nothing."""
        for phone in self.both:
            if self.state == "reconnecting" and phone is self.callee:
                await phone.connect()
            else:
                await phone.back(self.greeted[phone])
            call = await phone.call_now(self.call_id)
            if call["state"] in ("active", "reconnecting", "accepted"):
                await phone.insist("CALL_RESUME", callId=self.call_id)
                await phone.insist("CALL_CONNECTED", callId=self.call_id)

    async def over(self) -> dict[str, Any]:
        """The call once it has ended."""
        await eventually(self.is_("ended"), within=30, what=f"the call that was {self.state} ends")
        return await self.caller.call_now(self.call_id)


async def wallet(phone: PyPhone) -> dict[str, Any]:
    found: dict[str, Any] = (await phone.rest("GET", "/api/wallet"))["wallet"]
    return found


def price(call: dict[str, Any]) -> int:
    """What the intervals that the server shows cost, by the tariff that it shows."""
    tariff = Price(
        rate_per_minute_minor=call["price"]["ratePerMinuteMinor"],
        first_block_seconds=call["price"]["firstBlockSeconds"],
        block_seconds=call["price"]["blockSeconds"],
        connect_fee_minor=call["price"]["connectFeeMinor"],
        minimum_minor=call["price"]["minimumMinor"],
    )
    ends = [(datetime.fromisoformat(i["start"]), datetime.fromisoformat(i["end"])) for i in call["intervals"]]
    return price_of(tariff, [round((end - start).total_seconds() * 1000) for start, end in ends])


REASONS = {
    # where the kill finds it: (the phones come back, they stay away)
    "ringing": ("cancelled", "no_answer"),
    "accepted": ("completed", "connect_failed"),
    "active": ("completed", "server_recovered"),
    "extended": ("completed", "server_recovered"),
    "last unit": ("insufficient_funds", "server_recovered"),
    "reconnecting": ("completed", "connection_lost"),
    "hanging up": ("completed", "server_recovered"),
    "settled": ("completed", "completed"),
}


async def test_e38_a_kill_in_every_state_of_a_paid_call_leaves_clean_books_and_right_charges(
    server: ServerProcess,
) -> None:
    calls = [
        PaidCall(server.address, state, returns=returns) for state in STATES for returns in (True, False)
    ]
    try:
        # Those with little money last, or it is used up before the kill.
        for short in (False, True):
            await asyncio.gather(*(call.begin() for call in calls if (call.money < MONEY) is short))
        for call in calls:
            for phone in call.both:
                call.greeted[phone] = len(phone.all("SYNC"))
                phone.sio.reconnection = call.returns
        await asyncio.gather(*(c.hang_up_without_waiting() for c in calls if c.state == "hanging up"))
        await asyncio.to_thread(server.kill)
        server.env |= SHORT
        await asyncio.to_thread(server.start)
        returning = [call for call in calls if call.returns]
        await asyncio.gather(*(call.come_back() for call in returning))
        for call in returning:
            if call.state != "last unit":
                await call.caller.insist("CALL_ENDED", callId=call.call_id)
        for call in calls:
            await charged_rightly(call)
        found = await asyncio.to_thread(server.command, "audit")
        assert found.returncode == 0, found.stdout
    finally:
        for call in calls:
            await call.leave()


async def charged_rightly(call: PaidCall) -> None:
    """The call is over, its price is that of its intervals, and both wallets say so to the unit."""
    over = await call.over()
    # A hang-up in the instant of the kill was written down, or it was not.
    reasons = {REASONS[call.state][0 if call.returns else 1]}
    if call.state == "hanging up":
        reasons.add("completed")
    if call.state in ("reconnecting", "last unit") and not call.returns:
        reasons.add("server_recovered")
    assert over["endReason"] in reasons, (call.state, call.returns, over["endReason"])
    cost = over["costMinor"]
    assert cost == price(over), (call.state, call.returns)
    if call.returns:
        assert (cost > 0) == (call.state != "ringing"), call.state
    if over["endReason"] == "insufficient_funds":
        assert (cost, over["billedSeconds"]) == (LAST_UNIT - 1, LAST_UNIT_SECONDS)

    async def paid_out() -> bool:
        mine = await wallet(call.caller)
        assert mine["availableMinor"] + mine["heldMinor"] <= call.money
        return bool((mine["availableMinor"], mine["heldMinor"]) == (call.money - cost, 0))

    await eventually(paid_out, within=20, what=f"the payer of the call that was {call.state} has paid {cost}")
    if cost:

        async def earned() -> bool:
            theirs = await wallet(call.callee)
            return bool(
                (theirs["availableMinor"], theirs["pendingEarningsMinor"]) == (cost * 8_000 // 10_000, 0)
            )

        await eventually(
            earned, within=20, what=f"the payee of the call that was {call.state} has got the share"
        )
