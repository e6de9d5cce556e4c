"""``python main.py backup FILE`` and ``restore FILE`` as an administrator runs them, with the embedded database too."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import pytest

from server.processes import free_port
from tests.doors.serverprocess import ServerProcess, running

pytestmark = pytest.mark.timeout(110)


def register(server: ServerProcess) -> None:
    import json
    import urllib.request

    body = json.dumps({"email": "ann@example.org", "username": "ann", "password": "correct horse battery"})
    request = urllib.request.Request(
        f"{server.address}/api/auth/register", body.encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        assert answer.status == 201


def test_an_embedded_database_goes_into_a_file_and_into_another_folder(tmp_path: Path) -> None:
    file = tmp_path / "night.backup"
    with running(tmp_path / "old") as old:
        register(old)
        beside = old.command("backup", str(file))
        assert beside.returncode == 0, beside.stdout + beside.stderr
        said = re.search(r"is whole: (\d+) bytes, SHA-256 ([0-9a-f]{64})\n", beside.stdout)
        assert said
        assert int(said[1]) == file.stat().st_size
        onto = old.command("restore", str(file))
        assert onto.returncode == 1
        assert "a restore goes into an empty one only. Nothing was changed." in onto.stdout
    new = ServerProcess(tmp_path / "new")
    try:
        done = new.command("restore", str(file))
        assert done.returncode == 0, done.stdout + done.stderr
        assert re.search(r"users\s+│\s+1 ", done.stdout)
        assert done.stdout.endswith("Everything holds.\n")
        again = new.command("restore", str(file))
        assert (again.returncode, "into an empty one only" in again.stdout) == (1, True)
        # With no server on it, it is backed up all the same.
        assert new.command("backup", str(tmp_path / "second")).returncode == 0
        new.start()
        listed = new.command("users", "list")
        assert "ann" in listed.stdout
        assert new.drain() == 0
    finally:
        new.stop()


def test_what_cannot_be_done_is_said_in_a_sentence(tmp_path: Path, mongo_uri: str) -> None:
    file = tmp_path / "a.backup"
    there = ServerProcess(tmp_path / "there", mongo_uri=mongo_uri, database="nobody_was_here")
    assert there.command("backup", str(file)).returncode == 0
    for words, said in (
        (("backup", str(file)), "is there already; a backup is never written over."),
        (("backup", str(tmp_path / "no" / "folder")), "no is not there."),
        (("backup", str(tmp_path)), "is there already"),
        (("restore", str(tmp_path / "nothing")), "nothing is not there."),
        (("restore", str(tmp_path)), "cannot be used: Is a directory."),
    ):
        told = there.command(*words)
        assert (told.returncode, told.stdout.count("\n"), told.stderr) == (1, 1, "")
        assert said in told.stdout
    nowhere = ServerProcess(
        tmp_path / "nowhere", mongo_uri=f"mongodb://127.0.0.1:{free_port()}/?replicaSet=rs0"
    )
    for verb in (("backup", str(tmp_path / "b")), ("restore", str(file))):
        told = nowhere.command(*verb)
        assert (told.returncode, told.stdout.count("\n")) == (1, 1)
    fresh = ServerProcess(tmp_path / "fresh").command("backup", str(tmp_path / "b"))
    assert (fresh.returncode, "There is no database in" in fresh.stdout) == (1, True)
    assert there.command("backup").returncode == 2
    assert there.command("restore", "--help").returncode == 0


def test_a_file_is_looked_at_without_a_database(tmp_path: Path, mongo_uri: str) -> None:
    file = tmp_path / "a.backup"
    there = ServerProcess(tmp_path / "there", mongo_uri=mongo_uri, database="nobody_was_here")
    assert there.command("backup", str(file)).returncode == 0
    nowhere = ServerProcess(tmp_path / "nowhere")
    well = nowhere.command("restore", str(file), "--check")
    assert (well.returncode, "is whole, taken at 20" in well.stdout) == (0, True)
    with zipfile.ZipFile(file, "a") as more:
        more.writestr("more", "x")
    ill = nowhere.command("restore", str(file), "--check")
    assert (ill.returncode, ill.stdout) == (1, f"{file} does not hold what its list names.\n")
