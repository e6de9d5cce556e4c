"""The page docs/asvs.md as data, and its summary: ``python -m tests.house.asvs`` writes the summary anew."""

from __future__ import annotations

import ast
import re
import tomllib
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/asvs.md"
DATA = Path(__file__).with_name("asvs-5.0.0.toml")
BEGIN, END = "<!-- summary -->", "<!-- /summary -->"
# How a line stands; ``VERDICTS`` are the words on the page, in the order of the summary's columns.
MET, PART, NOT_MET, OPERATOR, NONE = "met", "in part", "not met", "operator", "n/a"
VERDICTS = (MET, PART, NOT_MET, OPERATOR, NONE)
_LINE = re.compile(r"\| (\d+\.\d+\.\d+) \| (.+?) \| (.+?) \| (.+) \|")
_CODE = re.compile(r"`([^`]+)`")
# A path of ours in code quotes: what has a folder, or is a file at the top that has an ending.
_PATH = re.compile(
    r"(?:(?:models|handlers|server|tests|docs|deploy)/[\w./-]+"
    r"|[\w-]+\.(?:py|yaml|md|lock|cfg|toml|txt)|Dockerfile|Makefile|\.dockerignore)(?:::\w+)?"
)


@dataclass(frozen=True, slots=True)
class Line:
    """One requirement on the page."""

    id: str
    asks: str
    verdict: str
    by: str

    @property
    def proofs(self) -> list[str]:
        """The files and tests that it names, as ``path`` or ``path::test``."""
        return [text for text in _CODE.findall(self.by) if _PATH.fullmatch(text)]


def requirements() -> dict[str, Any]:
    """The chapters by their names (``V1``), with ``title``, ``first`` and ``second``."""
    return tomllib.loads(DATA.read_text())


def lines() -> list[Line]:
    """The lines of the page, in their order."""
    return [Line(*found) for found in _LINE.findall(PAGE.read_text())]


@cache
def functions_in(path: Path) -> frozenset[str]:
    """The names of the functions of a file."""
    nodes = ast.walk(ast.parse(path.read_text()))
    return frozenset(one.name for one in nodes if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef))


def summary() -> str:
    """The table of how many lines of which chapter stand how."""
    count = Counter((line.id.split(".")[0], line.verdict) for line in lines())
    rows = [f"| chapter | {' | '.join(VERDICTS)} |", f"|---|{'---:|' * len(VERDICTS)}"]
    for name, chapter in requirements().items():
        figures = [str(count[name[1:], verdict] or "") for verdict in VERDICTS]
        rows.append(
            f"| [{name}](#{anchor(name, chapter['title'])}) {chapter['title']} | {' | '.join(figures)} |"
        )
    totals = [str(sum(count[name[1:], verdict] for name in requirements())) for verdict in VERDICTS]
    rows.append(f"| **all** | {' | '.join(f'**{total}**' for total in totals)} |")
    return "\n".join(rows)


def anchor(name: str, title: str) -> str:
    """Where a chapter's heading is found on the page."""
    return f"{name} {title}".lower().replace(" ", "-")


def with_summary(page: str) -> str:
    """The page with its summary as it should be."""
    head, _, rest = page.partition(BEGIN)
    return f"{head}{BEGIN}\n{summary()}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(with_summary(PAGE.read_text()))
    print(summary())
