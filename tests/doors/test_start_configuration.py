"""``python main.py`` as a user meets it: what it says when it starts, and when it cannot.

An interpreter of its own shows that the program starts, and how it ends, well and with a fault: once each. What else
is said comes from forks of one that has imported everything, except where processes are started in turn.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from server.mongod import number_in
from server.processes import free_port
from tests.doors.serverprocess import MAIN, ServerProcess, lodging_now, rss_mb, running

SERVER_MB_MAX = 120
DATABASE_MB_MAX = 250


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server on an empty folder, not started."""
    server = ServerProcess(tmp_path / "server")
    yield server
    server.stop()


@pytest.fixture
def database(mongo_uri: str) -> Iterator[str]:
    with lodging_now(mongo_uri) as name:
        yield name


@pytest.fixture
def cold(fresh: ServerProcess) -> ServerProcess:
    """The same, with an interpreter of its own."""
    fresh.cold = True
    return fresh


def test_it_starts_on_an_empty_folder_and_again_on_a_full_one_and_stays_within_its_memory(
    cold: ServerProcess,
) -> None:
    cold.start()
    assert f"http://127.0.0.1:{cold.port}/ in two tabs" in cold.line
    mongod = number_in(cold.data_dir / "db" / "mongod.lock")
    assert mongod is not None
    server_mb, database_mb = rss_mb(cold.pid), rss_mb(mongod)
    assert cold.drain() == 0
    first = cold.started_in
    cold.start()
    print(f"server {server_mb:.0f} MiB, database {database_mb:.0f} MiB")
    print(f"first start {first:.1f} s, second start {cold.started_in:.1f} s")
    assert server_mb < SERVER_MB_MAX
    assert database_mb < DATABASE_MB_MAX
    assert cold.drain() == 0


def test_every_fault_of_the_configuration_is_named_at_once_and_nothing_is_opened(
    cold: ServerProcess,
) -> None:
    cold.env |= {
        "PORT": "eighty",
        "MONGO_URI": "postgres://somewhere",
        "ENV": "staging",
        "RING_SECONDS": "0",
        "TURN_URLS": "turn:turn.example.org:3478",
        "JWT_SECRET": "short",
    }
    done = cold.command("run")
    assert done.returncode == 2
    for name in ("PORT", "MONGO_URI", "ENV", "RING_SECONDS", "TURN_SECRET", "JWT_SECRET"):
        assert f"\n  {name} " in done.stderr, name
    assert "Traceback" not in done.stderr
    assert not cold.data_dir.exists(), "nothing was begun"


def test_a_python_without_the_dependencies_says_which_one_to_use(tmp_path: Path) -> None:
    # -S is without site-packages, as the system's Python is.
    done = subprocess.run(
        [sys.executable, "-S", str(MAIN), "doctor"], cwd=tmp_path, env={}, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "start it with .venv/bin/python main.py, or with make run" in done.stderr


def test_production_refuses_to_make_up_a_secret(fresh: ServerProcess) -> None:
    fresh.env["ENV"] = "production"
    done = fresh.command("run")
    assert done.returncode == 2
    assert "JWT_SECRET is required with ENV=production" in done.stderr


def test_in_production_it_writes_nothing_to_the_disk(tmp_path: Path, mongo_uri: str, database: str) -> None:
    """So that its file system may be one that is only read."""
    here = ServerProcess(
        tmp_path / "here", mongo_uri=mongo_uri, database=database, ENV="production", JWT_SECRET="s" * 32
    )
    try:
        here.start()
        assert here.drain() == 0
    finally:
        here.stop()
    assert sorted(path.name for path in here.folder.iterdir()) == ["server.log", "server.out"]


def test_a_port_that_is_taken_gives_a_sentence(fresh: ServerProcess, mongo_uri: str, database: str) -> None:
    fresh.env |= {"MONGO_URI": mongo_uri, "MONGO_DATABASE": database}
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        fresh.env["PORT"] = str(port)
        done = fresh.command("run")
    assert done.returncode == 1
    assert f"Cannot listen on 127.0.0.1:{port}" in done.stderr
    assert "Set HOST and PORT to others." in done.stderr
    assert "Traceback" not in done.stderr


def test_two_servers_on_one_folder_are_one_too_many(fresh: ServerProcess) -> None:
    fresh.start()
    done = fresh.command("run")
    assert done.returncode == 1
    assert "Another server uses" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_database_that_is_not_there_gives_a_sentence(fresh: ServerProcess) -> None:
    fresh.env["MONGO_URI"] = f"mongodb://127.0.0.1:{free_port()}/?replicaSet=nowhere"
    done = fresh.command("run")
    assert done.returncode == 1
    assert "The database does not answer." in done.stderr
    assert "Traceback" not in done.stderr


def test_wrong_words_on_the_command_line_end_with_2_and_help_with_0(fresh: ServerProcess) -> None:
    for words in (["fly"], ["users", "ban"]):
        assert fresh.command(*words).returncode == 2, words
    done = fresh.command("users", "--help")
    assert done.returncode == 0
    assert "usage:" in done.stdout


def test_people_are_looked_after_while_the_server_runs(mongo_uri: str, database: str, tmp_path: Path) -> None:
    with running(tmp_path / "server", mongo_uri=mongo_uri, database=database) as server:
        asyncio.run(_register(server.address, "ada"))

        def users(*words: str) -> tuple[int, str]:
            done: subprocess.CompletedProcess[str] = server.command("users", *words)
            assert "Traceback" not in done.stderr
            return done.returncode, done.stdout

        status, table = users("list")
        assert status == 0
        assert "ada" in table
        assert "active" in table
        assert users("ban", "ada") == (0, "ada is banned.\n")
        assert users("unban", "ada") == (0, "ada is active.\n")
        assert users("promote", "ada") == (0, "ada is an administrator.\n")
        assert users("ban", "nobody")[0] == 1


async def _register(address: str, username: str) -> None:
    from tests.doors.pyphone import PyPhone

    async with PyPhone(address) as phone:
        phone.username = username
        await phone.register()


def test_users_without_a_running_server_says_what_to_do(fresh: ServerProcess) -> None:
    done = fresh.command("users", "list")
    assert done.returncode == 1
    assert "No server runs with the data in" in done.stdout


def test_doctor_says_what_works_and_what_does_not(fresh: ServerProcess, mongo_uri: str) -> None:
    fresh.env["EXPO_URL"] = "http://127.0.0.1:9/"
    done = fresh.command("doctor")
    assert "a transaction was committed" in done.stdout
    assert "TURN_URLS is not set" in done.stdout
    assert "REDIS_URL is not set" in done.stdout
    assert "LIVEKIT_URL is not set" in done.stdout
    assert "warning" in done.stdout, "Expo does not answer there"
    assert done.returncode == 0
    fresh.env |= {"EXPO_ACCESS_TOKEN": "wanted", "ENV": "production", "JWT_SECRET": "s" * 32}
    done = fresh.command("doctor")
    assert done.returncode == 1, "push is wanted"
    assert "is for development" in " ".join(done.stdout.split())
    fresh.env |= {"REDIS_URL": f"redis://127.0.0.1:{free_port()}/0", "MONGO_URI": mongo_uri}
    assert "does not answer: ConnectionError" in fresh.command("doctor").stdout


def test_a_folder_for_sockets_that_is_too_deep_is_said_in_a_sentence(
    mongo_uri: str, cold: ServerProcess, tmp_path: Path
) -> None:
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    cold.env |= {"MONGO_URI": mongo_uri, "TMPDIR": str(deep)}
    done = cold.command("run", "--port", str(free_port()), "--processes", "2")
    assert done.returncode == 1
    assert "Set TMPDIR to another folder." in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
