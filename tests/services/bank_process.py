"""A second process of the bank test: ``python -m tests.services.bank_process URI DATABASE SEED TRANSFERS``.

It moves money among the accounts with a ledger and a client of its own, and prints what was accepted, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import Mapping, Sequence

from models.db import Database
from models.errors import Refusal
from models.ledger.journal import Wallet, wallet_key
from models.ledger.service import Ledger
from models.ledger.store import LedgerStore
from models.wallet import rules
from server.clock import SystemClock, SystemIds

ACCOUNTS = [f"01950000-0000-7000-8000-0000000000c{n}" for n in range(8)]
KEYS = [wallet_key(user_id, "NGN") for user_id in ACCOUNTS]
TOTAL, MOST = 100, 5

Moved = tuple[str, str, str, int]


async def move(ledger: Ledger, chance: random.Random, name: str, times: int) -> tuple[list[Moved], list[str]]:
    """Random transfers, one after another: those that were accepted, and the codes of the others."""
    accepted: list[Moved] = []
    codes: list[str] = []
    for n in range(times):
        payer, payee = chance.sample(ACCOUNTS, 2)
        amount = chance.randint(1, MOST)

        def plan(
            wallets: Mapping[str, Wallet], n: int = n, payer=payer, payee=payee, amount=amount
        ) -> Sequence:  # type: ignore[no-untyped-def,type-arg]
            mine = wallets[wallet_key(payer, "NGN")]
            now = SystemClock().now()
            return [rules.transfer(mine, payee, key=f"{name}-{n}", amount_minor=amount, note=None, now=now)]

        keys = [wallet_key(payer, "NGN"), wallet_key(payee, "NGN")]
        try:
            await ledger.post(keys, plan)
        except Refusal as refusal:
            codes.append(refusal.code)
            continue
        accepted.append((rules.transfer_id(payer, f"{name}-{n}"), payer, payee, amount))
    return accepted, codes


async def main(uri: str, name: str, seed: str, times: str) -> None:
    db = Database(uri, name)
    ledger = Ledger(LedgerStore(db), SystemClock(), SystemIds())
    accepted, codes = await move(ledger, random.Random(int(seed)), f"process-{seed}", int(times))
    await db.close()
    print(json.dumps({"accepted": accepted, "codes": codes}))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
