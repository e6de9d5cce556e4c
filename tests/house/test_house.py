"""The rules of the house that no other tool checks."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = sorted(
    [
        ROOT / "main.py",
        *(p for folder in ("models", "handlers", "server") for p in (ROOT / folder).rglob("*.py")),
    ]
)
TESTS = sorted((ROOT / "tests").rglob("*.py"))
LINES_MAX = 400
# Looked at again, and better in one piece.
LONG = {
    "server/mongod.py": 410,
}

# Calls that read a clock or start time running, as they are written in code.
CLOCKS = {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.today", "date.today"}
SLEEPS = {"asyncio.sleep", "time.sleep"}
# Monotonic figures: how long something took, or how often something may happen. They decide nothing about calls.
STOPWATCHES = {"time.monotonic", "time.perf_counter", "time.monotonic_ns", "time.perf_counter_ns"}
STOPWATCH_FILES = {
    "server/funnel.py",
    "server/health.py",
    "server/limits.py",
    "server/mongod.py",
    "server/relay.py",
}
# Only the port of time and what runs outside the loop's business: programs that are started, and their waiting.
SLEEP_FILES = {"server/clock.py", "server/mongod.py", "server/cli_run.py", "server/supervisor.py"}
# Where none of these is, there is none of those calls.
SPOKEN_OF = re.compile(r"sleep|time|now|today|random|uuid")
# sleep(0) only gives way to other tasks.
GIVES_WAY = "sleep(0)"


@dataclass(frozen=True, slots=True)
class Call:
    """A call: its dotted name as far as it is a plain name (``datetime.now``)."""

    name: str
    where: str
    gives_way: bool


@dataclass(frozen=True, slots=True)
class Source:
    """What the tests here ask of a file, which is parsed once: a tree that is kept is walked by the collector too.

    ``calls`` is empty where none of them is spoken of in the file.
    """

    described: bool
    calls: list[Call]


@cache
def source(path: Path) -> Source:
    text = path.read_text()
    if not SPOKEN_OF.search(text) and path not in CODE:
        return Source(True, [])
    tree = ast.parse(text)
    place = path.relative_to(ROOT)
    calls = [
        Call(name := dotted(node.func), f"{place}:{node.lineno}", "sleep" in name and gives_way(node))
        for node in (ast.walk(tree) if SPOKEN_OF.search(text) else ())
        if isinstance(node, ast.Call)
    ]
    return Source(bool(ast.get_docstring(tree)), calls)


def dotted(func: ast.expr) -> str:
    """The last two parts of what is called."""
    match func:
        case ast.Name(name):
            return name
        case ast.Attribute(ast.Name(of) | ast.Attribute(attr=of), name):
            return f"{of}.{name}"
    return ".".join(ast.unparse(func).split(".")[-2:])


def calls_in(path: Path) -> list[Call]:
    return source(path).calls


def gives_way(node: ast.Call) -> bool:
    return ast.unparse(node).endswith(GIVES_WAY)


def test_only_the_clock_reads_the_clock() -> None:
    found = [
        call.where
        for path in CODE
        if path != ROOT / "server/clock.py"
        for call in calls_in(path)
        if call.name in CLOCKS
    ]
    assert found == []


def test_stopwatches_are_only_where_something_is_measured_or_limited() -> None:
    files = {
        str(path.relative_to(ROOT))
        for path in CODE
        for call in calls_in(path)
        if call.name in STOPWATCHES and path != ROOT / "server/clock.py"
    }
    assert files <= STOPWATCH_FILES


def test_models_and_handlers_never_sleep_and_servers_only_in_their_own_loops() -> None:
    files = {
        str(path.relative_to(ROOT))
        for path in CODE
        for call in calls_in(path)
        if call.name in SLEEPS and not call.gives_way
    }
    assert files <= SLEEP_FILES


def test_no_test_sleeps() -> None:
    """A test that waits for time is slow or wrong: it waits for what it expects, or turns the virtual clock."""
    helpers = {"serverprocess.py", "browser.py"}  # polling of programs that are started
    found = [
        call.where
        for path in TESTS
        if path.name not in helpers and not {"bench", "chaos"} & set(path.parts)
        for call in calls_in(path)
        if call.name in SLEEPS and not call.gives_way
    ]
    assert found == []


def test_chance_and_new_ids_come_through_ports() -> None:
    found = [
        call.where
        for folder in ("models", "handlers")
        for path in (ROOT / folder).rglob("*.py")
        for call in calls_in(path)
        if call.name.startswith(("random.", "uuid.")) or call.name in ("uuid4", "uuid1", "uuid7")
    ]
    assert found == []


@pytest.mark.parametrize("path", [*CODE, *TESTS], ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_is_short_enough_to_be_read(path: Path) -> None:
    usual = LINES_MAX if path in CODE else 2 * LINES_MAX
    most = LONG.get(str(path.relative_to(ROOT)), usual)
    assert len(path.read_text().splitlines()) <= most


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_opens_with_what_it_is(path: Path) -> None:
    assert source(path).described or not path.read_text(), "its first line says what it is"


def test_nothing_is_left_for_later_in_a_comment() -> None:
    word = re.compile(r"#.*\b(TO" r"DO|FIX" r"ME|XX" r"X)\b")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in [*CODE, *TESTS]
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if word.search(line)
    ]
    assert found == []


def test_what_is_checked_in_knows_no_machine() -> None:
    """Paths of whoever works on it have no place in a repository."""
    places = re.compile(r"/(?:home|Users|root|work)/[a-z.]")
    found = [
        str(path.relative_to(ROOT))
        for path in [*CODE, *TESTS, *ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "Makefile"]
        if path != Path(__file__) and places.search(path.read_text())
    ]
    assert found == []


def test_the_journal_is_only_ever_inserted_into_and_read() -> None:
    """Every use of the collection in the program: by ``db[JOURNAL]``, and by the name that its owner gives it."""
    uses = set()
    for path in CODE:
        text = path.read_text()
        uses.update(re.findall(r"\[JOURNAL\]\.(\w+)\(", text))
        for name in re.findall(r"(self\.\w+) = db\[JOURNAL\]", text):
            uses.update(re.findall(rf"{re.escape(name)}\.(\w+)\(", text))
    assert "insert_many" in uses, "the journal has an owner"
    assert uses <= {"insert_many", "find", "find_one", "aggregate"}
