"""The page of the ASVS: every line of levels 1 and 2 once, and what it names is there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from server.variables import VARIABLES
from tests.house.asvs import (
    MET,
    OPERATOR,
    PAGE,
    PART,
    ROOT,
    VERDICTS,
    Line,
    anchor,
    functions_in,
    lines,
    requirements,
    with_summary,
)

LINES = lines()
CODE = [
    ROOT / "main.py",
    *(path for folder in ("models", "handlers", "server") for path in sorted((ROOT / folder).rglob("*.py"))),
]
WEB = ROOT / "server/web"
OURS = [path for path in sorted(WEB.rglob("*")) if "vendor" not in path.parts and path.is_file()]


def test_the_standard_has_70_lines_of_level_1_and_183_more_of_level_2() -> None:
    chapters = requirements()
    assert list(chapters) == [f"V{number}" for number in range(1, 18)]
    first = [one for chapter in chapters.values() for one in chapter["first"]]
    second = [one for chapter in chapters.values() for one in chapter["second"]]
    assert (len(first), len(second), len({*first, *second})) == (70, 183, 253)
    for name, chapter in chapters.items():
        assert all(one.startswith(f"{name[1:]}.") for one in (*chapter["first"], *chapter["second"]))


def test_every_line_of_levels_1_and_2_is_on_the_page_once_and_in_order() -> None:
    wanted = [
        sorted((*chapter["first"], *chapter["second"]), key=numbers) for chapter in requirements().values()
    ]
    assert [line.id for line in LINES] == [one for chapter in wanted for one in chapter]


def test_every_line_stands_under_its_chapter() -> None:
    parts = PAGE.read_text().split("\n## ")
    for name, chapter in requirements().items():
        (part,) = [one for one in parts if one.startswith(f"{name} {chapter['title']}\n")]
        for one in (*chapter["first"], *chapter["second"]):
            assert f"\n| {one} |" in part, one
        assert anchor(name, chapter["title"]) in PAGE.read_text()


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.id)
def test_a_line_has_a_verdict_and_names_what_there_is(line: Line) -> None:
    assert line.verdict in VERDICTS
    assert len(line.asks) >= 8
    if line.verdict in (MET, PART):
        assert line.proofs, "a file or a test that shows it"
    if line.verdict == OPERATOR:
        assert line.proofs, "where the operator is told"
    for proof in line.proofs:
        path, _, test = proof.partition("::")
        assert (ROOT / path).exists(), path
        if test:
            assert test in functions_in(ROOT / path), proof


def test_the_summary_is_the_one_that_the_lines_make() -> None:
    page = PAGE.read_text()
    assert page == with_summary(page), "python -m tests.house.asvs writes it"


def numbers(id: str) -> tuple[int, ...]:
    return tuple(int(part) for part in id.split("."))


# ------------------------------------------------------------------------- what lines say of the whole of the program


def nodes(path: Path) -> Iterator[ast.AST]:
    """What a file is made of."""
    return ast.walk(ast.parse(path.read_text()))


def found_in_code(pattern: str) -> list[str]:
    """Where a pattern is in the program; parsing all of it would take seconds."""
    wanted = re.compile(pattern, re.MULTILINE)
    return [
        f"{path.relative_to(ROOT)}: {hit.group()}"
        for path in CODE
        for hit in wanted.finditer(path.read_text())
    ]


def imports(packages: str) -> str:
    """The pattern of a line that imports one of these, also as one of several."""
    return rf"^\s*(?:from|import(?: .*,)?) +(?:{packages})\b"


def test_nothing_is_evaluated_and_no_pickle_is_read() -> None:
    evaluates = (
        r"(?<![.\w])(?:eval|exec|compile)\(|\bos\.(?:system|popen)\b|create_subprocess_shell|shell=True"
    )
    reads = imports("pickle|marshal|shelve|dill|xml|lxml|yaml")
    assert found_in_code(evaluates) == []
    assert found_in_code(reads) == []


def test_messages_of_the_log_are_fixed() -> None:
    """What differs is in the fields, where it is hidden and encoded as it has to be."""
    levels = {"debug", "info", "warning", "error", "exception", "critical"}
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in CODE
        if re.search(r"\b(?:log|logger|logging)\.", path.read_text())
        for node in nodes(path)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id in ("log", "logger", "logging")
        and node.func.attr in levels
        and not (node.args and is_fixed(node.args[0]))
    ]
    assert found == []


def is_fixed(node: ast.expr) -> bool:
    """Whether a text is written in the program: in quotes, by a constant's name, or one of two such."""
    match node:
        case ast.Constant():
            return True
        case ast.Name(id=name):
            return name.isupper()
        case ast.IfExp(body=body, orelse=other):
            return is_fixed(body) and is_fixed(other)
    return False


def test_no_broken_hash_is_used() -> None:
    """SHA-1 within HMAC for the relay alone, as coturn demands; what has to be chance never comes from ``random``."""
    weak = re.compile(r"\b(?:md5|md4|sha1|ripemd160|blake2s)\b", re.IGNORECASE)
    found = {
        str(path.relative_to(ROOT))
        for path in CODE
        if weak.search(path.read_text())
        for node in nodes(path)
        if isinstance(node, ast.Attribute | ast.Name)
        and weak.search(node.attr if isinstance(node, ast.Attribute) else node.id)
    }
    assert found == {"models/calls/ice.py"}
    assert found_in_code(imports("random")) == []


def test_every_secret_of_the_configuration_is_in_the_list_of_keys() -> None:
    listed = (
        (ROOT / "docs/guides/security.md").read_text().partition("## Keys")[2].partition("## What is kept")[0]
    )
    assert [one.name for one in VARIABLES if one.secret and f"`{one.name}`" not in listed] == []


def test_pages_put_text_in_as_text() -> None:
    """No script of ours writes HTML, and no template lets text through as it is."""
    scripts = re.compile(
        r"\b(?:innerHTML|outerHTML|insertAdjacentHTML|document\.write|srcdoc|createContextualFragment)\b|\beval\("
    )
    found = [
        f"{path.relative_to(ROOT)}: {hit.group()}"
        for path in OURS
        if path.suffix == ".js"
        for hit in scripts.finditer(path.read_text())
    ]
    assert found == []
    inline = re.compile(
        r"<script(?![^>]*\bsrc=)|\son[a-z]+=|\bstyle=|javascript:|[^'\"\s]\s*\|\s*safe\b|autoescape false"
    )
    pages = [path for path in OURS if path.suffix == ".html"]
    assert pages
    assert [str(path) for path in pages if inline.search(path.read_text())] == []


class Inputs(HTMLParser):
    """The ``<input>`` of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[dict[str, str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "input":
            self.found.append({name: value or "" for name, value in attrs})


def test_fields_for_passwords_are_masked_and_take_what_is_pasted() -> None:
    seen = 0
    for path in OURS:
        if path.suffix != ".html":
            continue
        inputs = Inputs()
        inputs.feed(path.read_text())
        for one in inputs.found:
            assert "onpaste" not in one
            if "code" in one.get("class", "").split():
                continue  # what is good once may be seen while it is typed
            if re.search(r"password|pin$", one.get("name", ""), re.IGNORECASE):
                seen += 1
                assert one["type"] == "password", (path, one)
                assert "password" not in one["name"] or one.get("autocomplete") != "off", (path, one)
    assert seen, "there are such fields"
