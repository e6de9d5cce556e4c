"""What is installed is pinned by hashes, under licences that were looked at, and asked about for known faults."""

from __future__ import annotations

import configparser
import json
import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.house.supply import (
    BUILDS,
    LOCK,
    PAGE,
    TAKEN,
    UNREACHABLE,
    judge,
    licence_of,
    locked,
    page,
    parts_of,
    plain,
)

ROOT = Path(__file__).parents[2]


def wanted(extra: str | None = None) -> list[Requirement]:
    settings = configparser.ConfigParser(interpolation=None)
    settings.read(ROOT / "setup.cfg")
    text = settings["options.extras_require"][extra] if extra else settings["options"]["install_requires"]
    return [
        Requirement(line) for line in text.splitlines() if line.strip() and not line.strip().startswith("#")
    ]


def constrained() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return {
        plain(name): version for name, _, version in (line.partition("==") for line in lines if "==" in line)
    }


def test_whatever_a_server_needs_is_in_the_lock_file() -> None:
    there = locked()
    for one in [*wanted(), *wanted("otel")]:
        if one.marker is None or one.marker.evaluate({"sys_platform": "linux", "platform_machine": "x86_64"}):
            assert plain(one.name) in there, f"{one.name} is missing: make lock"
            assert one.specifier.contains(there[plain(one.name)]), f"{one.name} is too old: make lock"


def test_the_lock_file_has_the_versions_that_are_tested_together() -> None:
    tested = constrained()
    for name, version in locked().items():
        if name not in BUILDS:
            assert tested.get(name) == version, f"{name} differs: make lock"


def test_what_is_wanted_is_constrained() -> None:
    tested = constrained()
    for one in [*wanted(), *wanted("otel"), *wanted("dev")]:
        if one.marker is None or one.marker.evaluate({"sys_platform": "linux", "platform_machine": "x86_64"}):
            assert plain(one.name) in tested, f"{one.name} is missing in constraints.txt"
            assert one.specifier.contains(tested[plain(one.name)])


def test_every_line_of_the_lock_file_has_its_hashes() -> None:
    text = LOCK.read_text()
    blocks = re.findall(r"^[A-Za-z0-9._-]+==.*(?:\n(?:    ).*)*", text, re.MULTILINE)
    assert len(blocks) == len(locked())
    for block in blocks:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", block), block
    plain_lines = "".join(
        line for line in text.splitlines(keepends=True) if not line.lstrip().startswith("#")
    )
    assert not re.search(r"https?://|file:|@ |^-", plain_lines, re.MULTILINE), "nothing comes from elsewhere"


def test_the_page_of_licences_is_the_one_that_the_packages_make() -> None:
    assert PAGE.read_text() == page(), "python -m tests.house.supply licences"


@pytest.mark.parametrize("name", sorted(set(locked()) - BUILDS))
def test_a_licence_is_one_that_was_looked_at(name: str) -> None:
    assert parts_of(licence_of(name)) <= TAKEN


def test_known_faults_fail_and_silence_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    well = {"name": "a", "version": "1", "vulns": []}
    ill = {"name": "b", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["2.1"]}]}
    silent = {"name": "c", "skip_reason": "Dependency not found on PyPI"}
    cases = [
        ([well, ill], 1, "b 2: CVE-1, put right in 2.1\n"),
        ([well], 0, "No known faults in 1 packages.\n"),
        ([well, silent], 0, "No known faults in 1 packages.\nNobody knows of: c.\n"),
        ([silent], 0, f"{UNREACHABLE}\n"),
    ]
    for rows, status, said in cases:
        assert judge(json.dumps({"dependencies": rows}), 0) == status
        assert capsys.readouterr().out == said
    assert judge("", 1) == 0
    assert capsys.readouterr().out == f"{UNREACHABLE}\n"
