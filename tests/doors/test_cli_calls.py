"""``main.py calls``: an operator looks at the money of a call and gives it back."""

from __future__ import annotations

import argparse
import io
import shlex

from rich.console import Console

from models.audit import service as auditing
from models.db import Database
from server import cli_calls
from server.config import load_config
from tests.fakes import CountingIds, VirtualClock
from tests.services.callkit import Town
from tests.services.test_billing import opened

SECRET = "a secret of the tests, long enough for HS256"


async def told(town: Town, mongo_uri: str, line: str) -> tuple[int, str]:
    """Exit status and output of ``main.py calls LINE`` on the town's database."""
    parser = argparse.ArgumentParser()
    cli_calls.add_parser(parser.add_subparsers(dest="command"))
    config = load_config(
        {
            "MONGO_URI": mongo_uri,
            "MONGO_DATABASE": town.db.db.name,
            "JWT_SECRET": SECRET,
            "BCRYPT_ROUNDS": "4",
            "CALL_RATE_MINOR": "6000",
        }
    )
    out = io.StringIO()
    args = parser.parse_args(["calls", *shlex.split(line)])
    status = await cli_calls.run(args, config, Console(file=out, width=300))
    return status, out.getvalue()


async def test_a_call_is_shown_and_refunded_in_part_once_per_key_and_then_whole(
    db: Database, mongo_uri: str, clock: VirtualClock, ids: CountingIds
) -> None:
    town, _, ann, bob = await opened(db, clock, ids, money=10_000)
    call = await bob.accept(await ann.request(bob))
    clock.pass_(30)
    call = await ann.end(call)
    status, said = await told(town, mongo_uri, f"show {call.id}")
    assert status == 0
    assert "ended (completed), NGN 30.00, settled" in said
    assert "30.000 s" in said
    assert "platform:commission" in said
    assert f"wallet:{call.caller.username}:NGN:primary" in said
    part = f"refund {call.id} --amount 10.50 --key k1 --reason 'a [bad] line'"
    left = "Refunded NGN 10.50 to ann; NGN 19.50 is left of the call.\n"
    assert await told(town, mongo_uri, part) == (0, left)
    again = (0, "It was refunded already under this key; nothing was moved.\n")
    assert await told(town, mongo_uri, part) == again
    assert (await town.wallet("ann")).primary == 8_050
    status, said = await told(town, mongo_uri, f"show {call.id}")
    assert "NGN 30.00, refunded NGN 10.50, settled." in said
    assert "UTC: a [bad] line\n" in said
    status, said = await told(town, mongo_uri, f"refund {call.id} --amount 5 --key k1")
    assert (status, "other" in said or "key" in said) == (1, True), said
    status, said = await told(town, mongo_uri, f"refund {call.id} --amount 20")
    assert (status, "(available: NGN 19.50)" in said) == (1, True), said
    status, said = await told(town, mongo_uri, f"refund {call.id}")
    assert (status, "Refunded NGN 19.50 to ann;" in said) == (0, True)
    assert (await town.wallet("ann")).primary == 10_000
    assert (await auditing.audit(db, clock.now())).clean


async def test_what_cannot_be_refunded_is_said_in_a_sentence_and_changes_nothing(
    db: Database, mongo_uri: str, clock: VirtualClock, ids: CountingIds
) -> None:
    town, _, ann, bob = await opened(db, clock, ids, money=10_000)
    call = await bob.accept(await ann.request(bob))
    clock.pass_(1)
    assert (await told(town, mongo_uri, f"refund {call.id}"))[0] == 1
    await ann.end(call)
    before = await town.wallet("ann")
    for line in ("refund nobody", f"refund {call.id} --amount 1.001", f"refund {call.id} --amount 100000"):
        status, said = await told(town, mongo_uri, line)
        assert (status, len(said.splitlines())) == (1, 1), said
    assert await town.wallet("ann") == before
