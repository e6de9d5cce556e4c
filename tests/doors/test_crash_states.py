"""E38: SIGKILL of the server in every state of a call, then a start on the same database."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from models.db import Database
from server.mongod import number_in
from server.processes import KILL, send_signal
from tests.doors.pyphone import ANSWER, OFFER, Pair, Refused
from tests.doors.serverprocess import ServerProcess, eventually, lodging

STATES = ["unheard", "ringing", "accepted", "active", "reconnecting"]
# Long enough to come back in, short enough to wait for.
PATIENT = {
    "RING_SECONDS": "40",
    "CONNECT_SECONDS": "40",
    "RECONNECT_SECONDS": "40",
    "CALLER_GRACE_SECONDS": "40",
}
SHORT = {"RING_SECONDS": "3", "CONNECT_SECONDS": "3", "RECONNECT_SECONDS": "2", "CALLER_GRACE_SECONDS": "2"}

Server = Callable[..., Awaitable[ServerProcess]]


@pytest.fixture
async def start(mongo_uri: str, tmp_path: Path) -> AsyncIterator[Server]:
    """Starts a server on a database of this test's own."""
    servers: list[ServerProcess] = []
    async with lodging(mongo_uri) as database:

        async def begin(**env: str) -> ServerProcess:
            server = ServerProcess(tmp_path / "server", mongo_uri=mongo_uri, database=database, **env)
            servers.append(server)
            return await asyncio.to_thread(server.start)

        yield begin
        for server in servers:
            await asyncio.to_thread(server.stop)


@pytest.fixture
async def pairs() -> AsyncIterator[list[Pair]]:
    """Filled by a test; whoever is in it is sent home at the end."""
    made: list[Pair] = []
    yield made
    for pair in made:
        await pair.leave()


async def restart(server: ServerProcess) -> None:
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.start)


async def locks_left(server: ServerProcess) -> int:
    db = Database(server.env["MONGO_URI"], server.env["MONGO_DATABASE"])
    try:
        return int(await db["call_locks"].count_documents({}))
    finally:
        await db.close()


async def can_call_again(pair: Pair) -> None:
    """Nobody of the two counts as busy: a new call rings, is taken and is ended."""
    for phone in pair.both:
        if not phone.sio.connected:
            await phone.connect()
    call = await pair.callee.ask("CALL_REQUEST", to=pair.caller.id, type="audio")
    await pair.caller.told("CALL_REQUEST", call["id"])
    await pair.caller.ask("CALL_ACCEPT", callId=call["id"])
    ended = await pair.callee.ask("CALL_ENDED", callId=call["id"])
    assert ended["endReason"] == "completed"
    await pair.caller.told("CALL_ENDED", call["id"])


async def go_on(pair: Pair, state: str) -> None:
    """What apps do whose server was away for a moment; the call must be in the state it was in."""
    caller, callee = pair.both
    call = await caller.call_now(pair.call_id)
    assert call["state"] == {"unheard": "ringing", "reconnecting": "active"}.get(state, state), state
    if state == "unheard":
        await callee.ask("CALL_RINGING", callId=pair.call_id)
        await caller.told("CALL_RINGING", pair.call_id)
    if state in ("unheard", "ringing"):
        await callee.ask("CALL_ACCEPT", callId=pair.call_id, answer=ANSWER, reportsMedia=True)
        accept = await caller.told("CALL_ACCEPT", pair.call_id)
        assert accept["answer"] == ANSWER
    await pair.connect_media()
    ended = await callee.ask("CALL_ENDED", callId=pair.call_id)
    assert (ended["state"], ended["endReason"]) == ("ended", "completed")
    for phone in pair.both:
        await phone.told("CALL_ENDED", pair.call_id)


async def test_e38_calls_whose_phones_come_back_go_on_in_the_state_they_were_in(
    start: Server, pairs: list[Pair]
) -> None:
    server = await start(**PATIENT)
    for state in STATES:
        pairs.append(await (await Pair(server.address).arrive()).bring_to(state))
    greeted = {phone: len(phone.all("SYNC")) for pair in pairs for phone in pair.both}
    await restart(server)
    for pair, state in zip(pairs, STATES, strict=True):
        for phone in pair.both:
            if phone is pair.callee and state == "reconnecting":
                await phone.connect()
            else:
                await phone.back(greeted[phone])
            if state in ("accepted", "active", "reconnecting"):
                await phone.ask("CALL_RESUME", callId=pair.call_id)
                await phone.ask("CALL_CONNECTED", callId=pair.call_id)
    for pair, state in zip(pairs, STATES, strict=True):
        await go_on(pair, "active" if state == "accepted" else state)
        for phone in pair.both:
            phone.assert_each_once()
    assert await locks_left(server) == 0


async def test_e38_calls_whose_phones_stay_away_end_by_their_deadlines_and_nobody_stays_busy(
    start: Server, pairs: list[Pair]
) -> None:
    server = await start(**PATIENT)
    for state in STATES:
        pairs.append(await (await Pair(server.address).arrive()).bring_to(state))
    alone = await (await Pair(server.address).arrive()).bring_to("active")
    pairs.append(alone)
    for pair in pairs[:-1]:
        for phone in pair.both:
            # without a word: the server is dead before it could notice
            phone.sio.reconnection = False
    await alone.callee.away()
    await eventually(alone.is_("reconnecting"))
    await asyncio.to_thread(server.kill)
    server.env |= SHORT
    greeted = len(alone.caller.all("SYNC"))
    await asyncio.to_thread(server.start)
    await alone.caller.back(greeted)
    await alone.caller.ask("CALL_RESUME", callId=alone.call_id)

    # The last one had lost one phone before the crash and the other one through it.
    reasons = ["unreachable", "no_answer", "connect_failed", "server_recovered", "server_recovered"]
    for pair, state, reason in zip(pairs, STATES, reasons, strict=False):
        await eventually(pair.is_("ended"), within=30, what=f"the call that was {state} ends")
        call = await pair.caller.call_now(pair.call_id)
        assert (state, call["endReason"]) == (state, reason)
    await alone.caller.told("CALL_ENDED", alone.call_id)
    assert (await alone.caller.call_now(alone.call_id))["endReason"] == "connection_lost"
    assert await locks_left(server) == 0
    for pair in pairs:
        await can_call_again(pair)
        for phone in pair.both:
            phone.assert_each_once()


async def set_up(pair: Pair, op_id: str, told: Callable[[], None]) -> None:
    """One call from its request to media on both sides, repeated wherever the server died in between."""
    caller, callee = pair.both
    call = await caller.insist("CALL_REQUEST", to=callee.id, type="audio", offer=OFFER, opId=op_id)
    told()
    pair.call_id = call["id"]
    await callee.told("CALL_REQUEST", pair.call_id, within=30)
    told()
    await callee.insist("CALL_RINGING", callId=pair.call_id)
    told()
    await callee.insist("CALL_ACCEPT", callId=pair.call_id, answer=ANSWER)
    told()
    await caller.told("CALL_ACCEPT", pair.call_id, within=30)
    told()
    for phone in pair.both:
        try:
            await phone.insist("CALL_CONNECTED", callId=pair.call_id)
        except Refused as no:
            # The server was away for so long that the leg counted as lost.
            if no.code != "CALL_WRONG_STATE":
                raise
            await phone.insist("CALL_RESUME", callId=pair.call_id)
            await phone.insist("CALL_CONNECTED", callId=pair.call_id)
        told()


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_e38_a_kill_at_any_moment_while_twenty_calls_are_set_up_loses_and_doubles_nothing(
    start: Server, pairs: list[Pair], seed: int
) -> None:
    server = await start(**PATIENT)
    pairs.extend(await asyncio.gather(*(Pair(server.address).arrive() for _ in range(20))))
    steps, moment = 0, random.Random(seed).randrange(1, 130)
    now = asyncio.Event()

    def told() -> None:
        nonlocal steps
        steps += 1
        if steps == moment:
            now.set()

    calls = asyncio.gather(*(set_up(pair, f"op-{n}", told) for n, pair in enumerate(pairs)))
    await now.wait()
    await restart(server)
    await calls
    for pair in pairs:
        assert await pair.is_("active")()
        ended = await pair.caller.insist("CALL_ENDED", callId=pair.call_id)
        assert ended["endReason"] == "completed"
        for phone in pair.both:
            await phone.told("CALL_ENDED", pair.call_id)
            phone.assert_each_once()
            assert len(phone.all("CALL_ENDED")) == 1
        assert len(pair.callee.all("CALL_REQUEST")) == 1
        assert len(pair.caller.all("CALL_ACCEPT")) == 1
    assert await locks_left(server) == 0


async def test_e38_a_power_cut_takes_server_and_database_and_the_call_goes_on_afterwards(
    tmp_path: Path, pairs: list[Pair]
) -> None:
    server = ServerProcess(tmp_path / "server", **PATIENT)
    try:
        await asyncio.to_thread(server.start)
        pairs.append(await (await Pair(server.address).arrive()).bring_to("active"))
        greeted = [len(phone.all("SYNC")) for phone in pairs[0].both]
        mongod = number_in(server.data_dir / "db" / "mongod.lock")
        assert mongod is not None
        server.signal(KILL)
        send_signal(mongod, KILL)
        server.ended()
        await asyncio.to_thread(server.start)
        for phone, times in zip(pairs[0].both, greeted, strict=True):
            await phone.back(times)
            await phone.ask("CALL_RESUME", callId=pairs[0].call_id)
        await go_on(pairs[0], "active")
        for phone in pairs[0].both:
            phone.assert_each_once()
    finally:
        await asyncio.to_thread(server.stop)
