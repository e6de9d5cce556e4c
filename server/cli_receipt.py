"""``python main.py verify-receipt FILE``: recompute a receipt and check its signature. Needs no database."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from models.billing.receipt_check import verify
from models.billing.signing import KEY_BYTES, Signer, decoded, key_id
from models.money import AMOUNT_MAX, spoken
from server.config import Config

# A call of the greatest number of intervals and renewals is far below.
FILE_BYTES_MAX = 4 * 1024 * 1024
PIPE_COLUMNS = 400

EPILOG = """
FILE is a receipt, or the whole answer of GET /api/calls/{id}. It has to be signed by this server: by the key
of RECEIPT_SECRET, else of JWT_SECRET, else of the secret in DATA_DIR. Without any of them, or with a receipt of
another server, give its public key with --key; "any" believes the key in the receipt and shows only that nothing
was altered since.
Exit status: 0 when all of it is right, 1 when something is wrong, 2 on wrong use or when there is no receipt in it.
"""


class NoReceipt(Exception):
    """The file cannot be read as a receipt; the sentence says why."""


def add_parser(subparsers: Any) -> argparse.ArgumentParser:
    """Add ``verify-receipt`` to ``argparse``'s subparsers; the parser that was made."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "verify-receipt",
        help="recompute the receipt of a call and check its signature",
        description="Recompute the receipt of a call from its intervals and prices, and check its signature.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="FILE", help="a file with the receipt; - is the standard input")
    parser.add_argument(
        "--key", type=_key, help="the public key that must have signed it; any: whichever it is"
    )
    return parser


async def run(args: argparse.Namespace, config: Config, console: Console | None = None) -> int:
    """Print what the receipt says and what is wrong with it. 0: right; 1: wrong; 2: no receipt."""
    # A pipe has no width: there a line is as long as it is.
    console = console or Console(width=None if sys.stdout.isatty() else PIPE_COLUMNS)
    trusted = args.key or own_key(config)
    if trusted is None:
        console.print("There is no secret of a server here: say with --key which key must have signed it.")
        return 2
    try:
        receipt = receipt_in(_read(args.file))
    except NoReceipt as nothing:
        console.print(f"{nothing}", markup=False)
        return 2
    faults = verify(receipt, None if trusted == "any" else trusted)
    _show(receipt, console)
    for fault in faults:
        console.print(fault, markup=False, highlight=False, soft_wrap=True)
    said = "not checked whose key it is" if trusted == "any" else f"signed by {key_id(_bytes(trusted))}"
    console.print(f"The receipt is right, {said}." if not faults else "The receipt is wrong.", markup=False)
    return 1 if faults else 0


def own_key(config: Config) -> str | None:
    """The public key of this server's receipts; None where there is no secret yet. None is made."""
    secret = config.receipt_secret or config.jwt_secret
    kept = config.data_dir / "jwt_secret"
    if secret is None and kept.exists():
        secret = kept.read_text().strip()
    return Signer(secret).public_key if secret else None


def receipt_in(document: Any) -> dict[str, Any]:
    """The receipt in a document: itself, or in the answer about a call. Raises ``NoReceipt``."""
    for name in ("call", "receipt"):
        if isinstance(document, dict) and name in document:
            document = document[name]
    if document is None:
        raise NoReceipt("The call has no receipt yet: it has not ended, or is not settled.")
    if not isinstance(document, dict) or "signature" not in document:
        raise NoReceipt("There is no receipt in it.")
    return document


def _read(name: str) -> Any:
    try:
        if name == "-":
            raw = sys.stdin.buffer.read(FILE_BYTES_MAX + 1)
        else:
            with Path(name).open("rb") as file:
                raw = file.read(FILE_BYTES_MAX + 1)
    except OSError as fault:
        raise NoReceipt(f"{name}: {fault.strerror}.") from fault
    if len(raw) > FILE_BYTES_MAX:
        raise NoReceipt(f"{name}: larger than any receipt.")
    try:
        return json.loads(raw, object_pairs_hook=_once)
    except (ValueError, RecursionError) as fault:
        raise NoReceipt(f"{name}: not JSON.") from fault


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A name that is there twice could show one value and have the other one signed."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name twice")
    return found


def _show(receipt: dict[str, Any], console: Console) -> None:
    """What it says, before anything is believed."""
    table = Table(show_header=False)
    table.add_column("", style="bold")
    table.add_column("", overflow="fold")
    for title, text in (
        ("call", f"{receipt.get('callId')} ({receipt.get('type')})"),
        ("whose copy", f"the {receipt.get('copy')}"),
        ("payer", _name(receipt.get("payer"))),
        ("payee", _name(receipt.get("payee"))),
        ("ended", f"{receipt.get('endedAt')} ({receipt.get('endReason')})"),
        ("conversation", f"{_talked(receipt)} in {_count(receipt.get('intervals'))} interval(s)"),
        ("total", _money(receipt.get("totalMinor"), receipt.get("currency"))),
        ("refunded", _money(receipt.get("refundedMinor"), receipt.get("currency"))),
        ("issued", f"{receipt.get('issuedAt')}"),
    ):
        table.add_row(title, escape(text))
    console.print(table)


def _name(person: Any) -> str:
    return f"{person.get('username')} ({person.get('id')})" if isinstance(person, dict) else f"{person}"


def _count(items: Any) -> str:
    return f"{len(items)}" if isinstance(items, list) else "?"


def _talked(receipt: dict[str, Any]) -> str:
    segments = receipt.get("segments")
    spans = [s.get("talkMs") for s in segments if isinstance(s, dict)] if isinstance(segments, list) else []
    known = [span for span in spans if type(span) is int and 0 <= span <= AMOUNT_MAX]
    return f"{sum(known) // 1000} s" if known and len(known) == len(spans) else "?"


def _money(amount: Any, currency: Any) -> str:
    if type(amount) is not int or abs(amount) > AMOUNT_MAX or not isinstance(currency, str):
        return f"{amount} {currency}"
    return (
        spoken(amount, currency) if len(currency) == 3 and currency.isascii() and currency.isupper() else "?"
    )


def _bytes(key: str) -> bytes:
    raw = decoded(key, KEY_BYTES)
    assert raw is not None
    return raw


def _key(text: str) -> str:
    if text != "any" and decoded(text, KEY_BYTES) is None:
        raise argparse.ArgumentTypeError("32 bytes in base64url without padding are expected, or any")
    return text
