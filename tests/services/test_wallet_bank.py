"""Jepsen's bank on the real mongod: money moves at random among accounts while others read all of them at once.

Every total that anybody reads is the same, nothing is ever negative, and afterwards the journal says exactly what was
accepted (github.com/jepsen-io/jepsen, ``tests/bank.clj``: 8 accounts, 100 in all, at most 5 at a time).
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections import Counter
from pathlib import Path

import pytest

from models.db import Database
from models.ledger.journal import Entry, Kind, Leg, Pocket, account_of, clearing
from models.ledger.service import Ledger
from models.ledger.store import LedgerStore
from tests.fakes import CountingIds, VirtualClock
from tests.services.bank_process import ACCOUNTS, KEYS, MOST, TOTAL, Moved, move
from tests.services.wallet_house import books_agree

ROOT = Path(__file__).parents[2]
FROM_ELSEWHERE = "bank"


def a_ledger(db: Database, clock: VirtualClock, ids: CountingIds) -> Ledger:
    return Ledger(LedgerStore(db), clock, ids)


@pytest.fixture
async def ledger(db: Database, clock: VirtualClock, ids: CountingIds) -> Ledger:
    """The accounts with their money: unevenly, so that some run dry."""
    made = a_ledger(db, clock, ids)
    for user_id in ACCOUNTS:
        await made.ensure(user_id, "NGN")
    shares = [TOTAL - 3 * 7, *[3] * 7]
    for key, share in zip(KEYS, shares, strict=True):
        entry = Entry(
            id=f"pay:{FROM_ELSEWHERE}:{key}",
            kind=Kind.DEPOSIT,
            at=clock.now(),
            legs=(
                Leg(clearing(FROM_ELSEWHERE), -share, "NGN"),
                Leg(account_of(key, Pocket.PRIMARY), share, "NGN"),
            ),
        )
        await made.post([key], lambda _, entry=entry: [entry])
    return made


async def readings(db: Database, until: asyncio.Event) -> list[tuple[int, ...]]:
    """All balances at one instant, read again and again."""
    seen: list[tuple[int, ...]] = []
    while not until.is_set() or not seen:
        async with db.client.start_session(snapshot=True) as session:
            rows = {row["_id"]: row["balances"] async for row in db.db["wallets"].find({}, session=session)}
        seen.append(tuple(rows[key]["primary"] for key in KEYS))
        assert all(sum(row.values()) == row["primary"] for row in rows.values())
    return seen


async def agrees(db: Database, accepted: list[Moved]) -> None:
    """The journal has each accepted transfer once and no other, and the wallets are what it says."""
    rows = [row async for row in db["journal"].find({"kind": "transfer"})]
    assert Counter(row["_id"] for row in rows) == Counter(entry_id for entry_id, *_ in accepted)
    said = {row["_id"]: {leg["account"]: leg["amount"] for leg in row["legs"]} for row in rows}
    for entry_id, payer, payee, amount in accepted:
        assert said[entry_id] == {
            account_of(f"{payer}:NGN", Pocket.PRIMARY): -amount,
            account_of(f"{payee}:NGN", Pocket.PRIMARY): amount,
        }
        assert 1 <= amount <= MOST
    await books_agree(db)


def never_wrong(seen: list[tuple[int, ...]]) -> None:
    assert {sum(balances) for balances in seen} == {TOTAL}
    assert min(min(balances) for balances in seen) >= 0


async def test_every_total_is_the_same_while_tasks_and_a_second_ledger_move_money(
    ledger: Ledger, db: Database, mongo_uri: str, clock: VirtualClock, ids: CountingIds
) -> None:
    client = Database(mongo_uri, db.db.name)
    try:
        other, until = a_ledger(client, clock, ids), asyncio.Event()
        readers = [asyncio.create_task(readings(db, until)) for _ in range(2)]
        done = await asyncio.gather(
            *(move(ledger, random.Random(n), f"one-{n}", 60) for n in range(4)),
            *(move(other, random.Random(100 + n), f"two-{n}", 60) for n in range(2)),
        )
        until.set()
        seen = [balances for reader in readers for balances in await reader]
    finally:
        await client.close()
    accepted = [moved for some, _ in done for moved in some]
    codes = Counter(code for _, refusals in done for code in refusals)
    assert set(codes) <= {"INSUFFICIENT_FUNDS", "SERVER_BUSY"}
    assert codes["INSUFFICIENT_FUNDS"] > 0, "some ran dry"
    assert len(accepted) + codes.total() == 360
    assert len(set(seen)) > 1, "they read while money moved"
    never_wrong(seen)
    await agrees(db, accepted)


async def test_every_total_is_the_same_while_another_process_moves_money(
    ledger: Ledger, db: Database, mongo_uri: str
) -> None:
    ours, theirs = 60, 60
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.services.bank_process", mongo_uri, db.db.name, "7", str(theirs)),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    until = asyncio.Event()
    reader = asyncio.create_task(readings(db, until))
    # Ours begin when its first one is seen, so that the two really meet.
    async with asyncio.timeout(30):
        while not await db["journal"].count_documents({"_id": {"$regex": "process-7"}}):
            assert process.returncode is None
    moving = asyncio.gather(*(move(ledger, random.Random(n), f"one-{n}", ours // 2) for n in range(2)))
    out, err = await process.communicate()
    done = await moving
    until.set()
    assert process.returncode == 0, err.decode()
    said = json.loads(out)
    accepted = [moved for some, _ in done for moved in some] + [tuple(row) for row in said["accepted"]]
    codes = [code for _, refusals in done for code in refusals] + said["codes"]
    assert set(codes) <= {"INSUFFICIENT_FUNDS", "SERVER_BUSY"}
    assert len(accepted) + len(codes) == ours + theirs
    assert said["accepted"]
    never_wrong(await reader)
    await agrees(db, accepted)
