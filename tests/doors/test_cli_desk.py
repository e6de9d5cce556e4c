"""``main.py admin``, ``trail`` and the verbs of an operator: what is done beside a server is in the trail too."""

from __future__ import annotations

import argparse
import io
import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from models.auth.session import SignInDevice
from models.db import Database
from models.trail.rules import Row
from models.trail.store import TRAIL, TrailStore
from server import cli_admin, cli_calls, cli_payouts, cli_trail, cli_users, cli_wallets
from server.config import load_config
from tests.fakes import CountingIds, VirtualClock
from tests.services.deskkit import ENV, Office

MODULES: dict[str, Any] = {
    "admin": cli_admin,
    "trail": cli_trail,
    "users": cli_users,
    "wallets": cli_wallets,
    "calls": cli_calls,
    "payouts": cli_payouts,
}
PASSWORD = "seven quiet herons by the weir"


class Terminal:
    """Somebody with the command line."""

    def __init__(self, office: Office, mongo_uri: str) -> None:
        self.office, self.db = office, office.db
        self.config = load_config(
            {**ENV, "MONGO_URI": mongo_uri, "MONGO_DATABASE": office.db.db.name, "PORT": "3210"}
        )

    async def types(self, line: str) -> tuple[int, str]:
        """Exit status and output of ``main.py LINE``."""
        words = shlex.split(line)
        parser = argparse.ArgumentParser()
        MODULES[words[0]].add_parser(parser.add_subparsers(dest="command"))
        out = io.StringIO()
        status = await MODULES[words[0]].run(
            parser.parse_args(words), self.config, Console(file=out, width=300)
        )
        return status, out.getvalue()

    async def rows(self) -> list[Row]:
        return await self.office.rows()


@pytest.fixture
def terminal(db: Database, mongo_uri: str, clock: VirtualClock, ids: CountingIds) -> Terminal:
    return Terminal(Office(db, clock, ids), mongo_uri)


def typed(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """What comes in by a pipe."""
    monkeypatch.setattr("sys.stdin", io.StringIO(text))


# ------------------------------------------------------------------------------------------------------------- admin


async def test_a_new_administrator_is_made_with_a_password_from_a_file_and_can_sign_in(
    terminal: Terminal, tmp_path: Path
) -> None:
    kept = tmp_path / "password"
    kept.write_text(PASSWORD + "\n")
    status, said = await terminal.types(
        f"admin create warden --email warden@example.com --password-file {kept} --reason 'the first'"
    )
    assert status == 0
    assert "warden has an account and is an administrator." in said
    assert "http://127.0.0.1:3210/admin" in said
    assert "QR code" in said
    assert PASSWORD not in said
    account = await terminal.office.desk.people.find("warden@example.com")
    assert (account.profile.role, account.profile.username) == ("admin", "warden")
    signed = await terminal.office.services.accounts.login(
        identifier="warden", password=PASSWORD, device=SignInDevice()
    )
    assert signed.account.profile.role == "admin"
    [row] = await terminal.rows()
    assert (row.act, row.actor.kind, row.reason) == ("user.create_admin", "operator", "the first")
    assert row.target.id == account.profile.user_id
    assert PASSWORD not in json.dumps(row.reason + str(row.details))
    status, said = await terminal.types("admin list")
    assert (status, "warden@example.com" in said, "none yet" in said) == (0, True, True)


async def test_a_password_comes_in_by_a_pipe_and_an_address_is_a_name(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed(monkeypatch, PASSWORD + "\n")
    assert (await terminal.types("admin create keeper@example.com"))[0] == 0
    assert (await terminal.office.desk.people.find("keeper@example.com")).profile.role == "admin"


async def test_somebody_who_has_an_account_keeps_its_password(terminal: Terminal) -> None:
    await terminal.office.people("ann")
    before = await terminal.office.person("ann")
    status, said = await terminal.types("admin create ann")
    assert (status, "ann is an administrator." in said) == (0, True)
    assert f"since {before['created_at']:%Y-%m-%d}" in said, (
        "by which its owner can be told from somebody else"
    )
    after = await terminal.office.person("ann")
    assert (after["role"], after["password_hash"]) == ("admin", before["password_hash"])
    assert (await terminal.types("admin create ann"))[0] == 0, "safe to repeat"
    assert [row.act for row in await terminal.rows()] == ["user.promote"]


async def test_who_has_registered_the_name_before_becomes_no_administrator_in_the_place_of_a_new_account(
    terminal: Terminal, tmp_path: Path
) -> None:
    await terminal.office.people("warden")
    kept = tmp_path / "password"
    kept.write_text(PASSWORD + "\n")
    for more in ("--email warden@example.com", f"--password-file {kept}"):
        assert (await terminal.types(f"admin create warden {more}"))[0] == 2
    assert (await terminal.office.person("warden"))["role"] == "user"
    assert await terminal.rows() == []


@pytest.mark.parametrize(
    ("line", "comes_in", "status"),
    [
        ("admin create warden --email warden@example.com", "password1\n", 1),
        ("admin create warden --email warden@example.com", "short\n", 1),
        ("admin create warden --email not-an-address", PASSWORD, 1),
        ("admin create warden --email warden@example.com", "", 2),
        ("admin create warden", PASSWORD, 2),
        ("admin create warden --email w@example.com --password-file /does/not/exist", "", 2),
    ],
)
async def test_what_makes_no_administrator_is_said_and_leaves_nothing(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, line: str, comes_in: str, status: int
) -> None:
    typed(monkeypatch, comes_in)
    assert (await terminal.types(line))[0] == status
    assert await terminal.db["users"].count_documents({}) == 0
    assert await terminal.rows() == []


# ------------------------------------------------------------------------------------------------- operators' acts


async def test_what_an_operator_does_is_in_the_trail(terminal: Terminal) -> None:
    office = terminal.office
    await office.people("ann", "bob", "eve")
    call = await office.call("ann", "bob")
    payout = await office.payout("ann")
    done = [
        ("users ban eve --reason 'spam calls'", "user.ban", "spam calls"),
        ("users unban eve", "user.unban", "by the command line"),
        ("users promote bob", "user.promote", "by the command line"),
        ("wallets freeze ann --reason fraud", "wallet.freeze", "fraud"),
        ("wallets unfreeze ann --currency NGN", "wallet.unfreeze", "by the command line"),
        (f"calls refund {call.id} --amount 1 --key k", "call.refund", "by the command line"),
        (f"payouts reject {payout.id} --reason 'not theirs'", "payout.reject", "not theirs"),
    ]
    for line, _, _ in done:
        status, said = await terminal.types(line)
        assert status == 0, said
    rows = await terminal.rows()
    assert [(row.act, row.reason) for row in rows] == [(act, why) for _, act, why in done]
    assert {row.actor.kind for row in rows} == {"operator"}
    assert (await terminal.types("users demote bob"))[0] == 1, "the last administrator"
    assert (await terminal.types(f"payouts approve {payout.id}"))[0] == 1
    assert len(await terminal.rows()) == len(done)


# ------------------------------------------------------------------------------------------------------------- trail


async def test_the_trail_is_listed_verified_and_exported(terminal: Terminal, tmp_path: Path) -> None:
    await terminal.office.people("ann", "eve")
    assert "The chain holds: 0 rows" in (await terminal.types("trail verify"))[1]
    for line in ("users ban eve --reason 'rude words'", "users unban eve", "users ban ann"):
        await terminal.types(line)
    rows = await terminal.rows()
    status, said = await terminal.types("trail list --target eve --text 'rude'")
    assert (status, "rude words" in said, "user.unban" in said) == (0, True, False)
    assert (await terminal.types("trail list --limit 1"))[1].endswith("There are older ones: --limit.\n")
    status, said = await terminal.types(f"trail verify --at 2:{rows[1].hash}")
    assert (status, f"3:{rows[2].hash}" in said) == (0, True)
    kept = tmp_path / "trail.jsonl"
    assert (await terminal.types(f"trail export --out {kept}"))[0] == 0
    assert kept.stat().st_mode & 0o077 == 0, "for its owner's eyes"
    lines = kept.read_text().splitlines()
    assert [json.loads(line)["seq"] for line in lines] == [1, 2, 3]
    assert (await terminal.types(f"trail verify --file {kept}"))[0] == 0
    kept.write_text("\n".join([lines[0], lines[2]]) + "\n")
    status, said = await terminal.types(f"trail verify --file {kept}")
    assert (status, "row 2 is missing" in said) == (1, True)
    assert (await terminal.types(f"trail verify --file {tmp_path / 'none'}"))[0] == 2


async def test_a_broken_trail_is_said_by_its_exit_status(terminal: Terminal) -> None:
    await terminal.office.people("ann", "eve")
    for name in ("ann", "eve"):
        await terminal.types(f"users ban {name}")
    rows = await terminal.rows()
    wrong = "0" * 64
    status, said = await terminal.types(f"trail verify --at 1:{wrong}")
    assert (status, "row 1 is another than the log outside has kept" in said) == (1, True)
    await terminal.db[TRAIL].update_one({"_id": 1}, {"$set": {"reason": "nothing"}})
    status, said = await terminal.types("trail verify")
    assert (status, "row 1 was changed" in said) == (1, True)
    assert await TrailStore(terminal.db).head() is not None
    assert len(rows) == 2


@pytest.mark.parametrize(
    "line", ["trail verify --at 17", "trail list --since yesterday", "trail", "admin create"]
)
async def test_wrong_use_is_2(terminal: Terminal, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as no:
        await terminal.types(line)
    assert no.value.code == 2
    assert "usage" in capsys.readouterr().err
