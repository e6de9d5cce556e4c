"""``python main.py docs``: write the documents that the program makes of itself, or check that they are up to date.

docs/openapi.json, docs/asyncapi.json, docs/calls.md, docs/errors.md, .env.example, and the configuration table
between its markers in README.md.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import orjson

from models.errors import CODES
from server.asyncapi import asyncapi
from server.calls_doc import calls_page
from server.config import Config
from server.openapi import openapi
from server.variables import env_example, markdown_table
from server.wiring import catalogue

ROOT = Path(__file__).parents[1]
BEGIN = "<!-- configuration: written by `python main.py docs` -->\n"
END = "<!-- /configuration -->\n"


def add_parser(commands: Any) -> None:
    """``docs [--check]``."""
    parser: argparse.ArgumentParser = commands.add_parser("docs", help="write the generated documents")
    parser.add_argument("--check", action="store_true", help="write nothing; 1 when one is out of date")


async def run(args: argparse.Namespace, config: Config) -> int:
    """Write what has changed, 0. With ``--check``: 1, naming what is stale, else 0."""
    changed = stale(ROOT)
    if args.check:
        for name in changed:
            print(f"{name} is out of date: run `make docs`", file=sys.stderr)
        return 1 if changed else 0
    for name, text in changed.items():
        path = ROOT / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(f"wrote {name}")
    return 0


def stale(root: Path) -> dict[str, str]:
    """The documents under ``root`` that are not as they should be: name → the text that they should have."""
    found = {}
    for name, text in documents(root).items():
        path = root / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            found[name] = text
    return found


def documents(root: Path) -> dict[str, str]:
    """Every generated document: name → text. Of the README in ``root`` all but the table stays."""
    return {
        "docs/openapi.json": _json(openapi(catalogue)),
        "docs/asyncapi.json": _json(asyncapi(catalogue)),
        "docs/calls.md": calls_page(),
        "docs/errors.md": errors_page(),
        "README.md": with_table((root / "README.md").read_text(encoding="utf-8"), markdown_table()),
        ".env.example": env_example(),
    }


def errors_page() -> str:
    """``docs/errors.md``: every code, with its status, its sentence, and whether to try again."""
    rows = []
    for name, code in CODES.items():
        wait = f"{code.retry_after_ms} ms" if code.retry_after_ms is not None else ""
        rows.append(f"| `{name}` | {code.status} | {code.sentence} | {wait} |")
    return "\n".join([_ERRORS_HEAD, *rows, ""])


def with_table(text: str, table: str) -> str:
    """``text`` with ``table`` between the two markers. Raises ValueError when one of them is missing."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("README.md has lost the markers of its configuration table")
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def _json(document: dict[str, Any]) -> str:
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()


_ERRORS_HEAD = """\
# Codes of refusals

Written by `python main.py docs` from `models/errors.py`; do not edit.

A refusal looks alike everywhere: `{code, message, details?, retryAfterMs?}`, in an ack as
`{"ok": false, "error": …}`, over REST as `{"error": …, "requestId": …}` with the status below. Programs go by the
code; the sentence is for people. `details` carries what a program can act on: for `VALIDATION_FAILED` each field with
its sentences. Where a time stands in the last column the very same request may succeed later; `retryAfterMs` says
when, and with 429 and 503, and a 403 that ends by itself, so does the header `Retry-After`.

| code | status | sentence | again after |
|---|---|---|---|"""
