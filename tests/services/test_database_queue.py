"""More requests than connections: they go in order, and a transaction never waits for itself."""

from __future__ import annotations

import asyncio

from models.calls.store import CALLS, LOCKS
from models.db import IN_FLIGHT_MAX, Database, Session, database_away
from tests.patience import SHIPPED_MS, as_shipped


async def test_more_transactions_than_places_come_to_their_end(db: Database) -> None:
    async def one(number: int) -> None:
        async def body(session: Session) -> None:
            await db[LOCKS].insert_one({"_id": f"u{number}"}, session=session)
            found = [row async for row in db[LOCKS].find({"_id": f"u{number}"}, session=session)]
            assert len(found) == 1
            await db[LOCKS].update_one({"_id": f"u{number}"}, {"$set": {"seen": True}}, session=session)

        await db.transaction(body)

    async with asyncio.timeout(60):
        await asyncio.gather(*(one(number) for number in range(IN_FLIGHT_MAX + 30)))
    assert await db[LOCKS].count_documents({"seen": True}) == IN_FLIGHT_MAX + 30


async def test_no_more_exchanges_run_at_once_than_there_are_places(db: Database) -> None:
    # As every server does before its door opens: a database that was never reached counts as away, and has no queue.
    await db.ping()
    busiest = 0

    async def watch(done: asyncio.Event) -> None:
        nonlocal busiest
        while not done.is_set():
            pools = [server.pool for server in db.client._topology._servers.values()]
            busiest = max(busiest, sum(pool.active_sockets for pool in pools))
            await asyncio.sleep(0)

    async def one(number: int) -> None:
        await db[LOCKS].insert_one({"_id": number})
        await db[LOCKS].find_one({"_id": number})
        assert [row async for row in db[LOCKS].find({"_id": number}).sort("_id", 1).limit(1)] != []
        await db[CALLS].find({"caller.user_id": "nobody"}).to_list()

    done = asyncio.Event()
    watching = asyncio.create_task(watch(done))
    await asyncio.gather(*(one(number) for number in range(300)))
    done.set()
    await watching
    assert 1 < busiest <= IN_FLIGHT_MAX + 2, "two for what the driver does by itself"


async def test_while_the_database_is_away_nobody_waits_for_those_before_them() -> None:
    """Three hundred refusals come together, not ninety at a time."""
    with as_shipped():
        away = Database("mongodb://127.0.0.1:9/?replicaSet=nobody", "away")
    try:
        async with asyncio.timeout(SHIPPED_MS / 1000 * 2):
            said = await asyncio.gather(
                *(away[LOCKS].find_one({"_id": number}) for number in range(300)), return_exceptions=True
            )
    finally:
        await away.close()
    assert all(isinstance(no, Exception) and database_away(no) for no in said)
