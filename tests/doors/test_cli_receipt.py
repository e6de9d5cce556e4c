"""``python main.py verify-receipt FILE`` as whoever got a receipt runs it."""

from __future__ import annotations

import json
import os
import subprocess
from argparse import ArgumentParser
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from models.billing.signing import Signer
from models.calls.call import Role
from server import cli_receipt
from server.config import kept_secret, load_config
from tests.doors import warm
from tests.rules.test_receipt import long_one, talked

SECRET = "a secret of thirty-two bytes or more"
OTHERS = "another secret of thirty-two bytes or more"


@pytest.fixture
def receipt() -> dict[str, Any]:
    return long_one().signed(Role.CALLER)


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    returncode: int
    stdout: str


async def run(folder: Path, *words: str, **env: str) -> Done:
    """The command within this process, with nothing configured but ``env``."""
    parser = ArgumentParser()
    cli_receipt.add_parser(parser.add_subparsers())
    said = StringIO()
    try:
        args = parser.parse_args(["verify-receipt", *words])
    except SystemExit as wrong_use:
        return Done(int(str(wrong_use)), "")
    config = load_config({"DATA_DIR": str(folder / "data"), **env})
    return Done(await cli_receipt.run(args, config, Console(file=said, width=200)), said.getvalue())


def program(folder: Path, *words: str, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    """The program itself."""
    return warm.run(
        ["verify-receipt", *words],
        env={"PATH": os.environ["PATH"], "DATA_DIR": str(folder / "data"), **env},
        cwd=folder,
        stdin=stdin,
    )


def written(folder: Path, document: Any) -> str:
    path = folder / "receipt.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return str(path)


async def test_a_right_receipt_is_0_in_a_file_in_an_answer_and_on_the_standard_input(
    tmp_path: Path, receipt: dict[str, Any]
) -> None:
    done = program(tmp_path, written(tmp_path, receipt), RECEIPT_SECRET=SECRET)
    assert (done.returncode, done.stderr) == (0, "")
    for said in ("153.00", "the ann (ann)", "130 s in 2 interval(s)", "whose copy"):
        assert said in done.stdout
    assert done.stdout.endswith(f"The receipt is right, signed by {Signer(SECRET).key_id}.\n")
    answer = {"call": {"id": receipt["callId"], "receipt": receipt}}
    assert (await run(tmp_path, written(tmp_path, answer), JWT_SECRET=SECRET)).returncode == 0
    read = program(tmp_path, "-", stdin=json.dumps({"receipt": receipt}), JWT_SECRET=SECRET)
    assert (read.returncode, read.stderr) == (0, "")
    assert not (tmp_path / "data").exists(), "no secret is made by looking for one"


async def test_a_wrong_receipt_is_1_and_what_is_wrong(tmp_path: Path, receipt: dict[str, Any]) -> None:
    receipt["totalMinor"] -= 1
    done = await run(tmp_path, written(tmp_path, receipt), RECEIPT_SECRET=SECRET)
    assert done.returncode == 1
    assert "The signature does not fit: something was altered after signing.\n" in done.stdout
    assert "totalMinor and refundedMinor are 16799, the segments cost 16800.\n" in done.stdout
    assert done.stdout.endswith("The receipt is wrong.\n")


async def test_whose_key_it_is(tmp_path: Path, receipt: dict[str, Any]) -> None:
    file = written(tmp_path, receipt)
    foreign = await run(tmp_path, file, RECEIPT_SECRET=OTHERS, JWT_SECRET=SECRET)
    assert foreign.returncode == 1
    assert f"It is signed with the key {Signer(SECRET).key_id}: by another server" in foreign.stdout
    nobody = await run(tmp_path, file)
    assert (nobody.returncode, nobody.stdout) == (
        2,
        "There is no secret of a server here: say with --key which key must have signed it.\n",
    )
    assert (await run(tmp_path, file, "--key", Signer(SECRET).public_key)).returncode == 0
    assert (await run(tmp_path, file, f"--key={Signer(OTHERS).public_key}")).returncode == 1
    believed = await run(tmp_path, file, "--key", "any", RECEIPT_SECRET=OTHERS)
    assert believed.returncode == 0
    assert "not checked whose key it is" in believed.stdout
    own = Signer(kept_secret(tmp_path / "data" / "jwt_secret"))
    body = {name: value for name, value in receipt.items() if name != "signature"}
    assert (await run(tmp_path, written(tmp_path, own.signed(body)))).returncode == 0


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ("not json", "not JSON"),
        ('{"a": 1, "a": 2}', "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"call": {"id": "x", "receipt": null}}', "no receipt yet"),
        ('{"error": {"code": "CALL_UNKNOWN"}}', "There is no receipt in it."),
        ("[]", "There is no receipt in it."),
    ],
)
async def test_what_is_no_receipt_is_2(tmp_path: Path, document: str, said: str) -> None:
    done = await run(tmp_path, written(tmp_path, document), JWT_SECRET=SECRET)
    assert done.returncode == 2
    assert said in done.stdout


async def test_wrong_use_is_2(tmp_path: Path) -> None:
    assert (await run(tmp_path)).returncode == 2
    assert (await run(tmp_path, "nowhere.json", JWT_SECRET=SECRET)).returncode == 2
    assert (await run(tmp_path, ".", JWT_SECRET=SECRET)).returncode == 2
    assert (await run(tmp_path, written(tmp_path, talked(5_000).signed()), "--key", "short")).returncode == 2


async def test_what_it_prints_of_a_stranger_is_only_text(tmp_path: Path) -> None:
    """Names that look like markup, amounts of no currency: shown as they are, and found wrong."""
    odd = {
        "signature": {},
        "payer": {"username": "[red]x[/]", "id": 7},
        "totalMinor": 10**400,
        "currency": "[bold]",
        "segments": [{"talkMs": "long"}, 3],
    }
    done = await run(tmp_path, written(tmp_path, odd), JWT_SECRET=SECRET)
    assert done.returncode == 1
    assert "[red]x[/] (7)" in done.stdout
