"""``python main.py run`` and ``worker``: the server, with the embedded MongoDB where none is given."""

from __future__ import annotations

import argparse
import asyncio
import errno
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import structlog
from aiohttp import web

from models.db import Database, HalfRestored, StandaloneServer, database_away
from models.migrations.service import MigrationFailed
from server.app import drain, health_app, make_app
from server.clock import SystemClock, SystemIds
from server.config import Config, with_jwt_secret
from server.logs import configure_logs
from server.mongod import EmbeddedMongod, MongodFault, running_uri
from server.prepare import prepare
from server.processes import is_free
from server.sandbox_pages import serves_at
from server.siblings import Siblings
from server.supervisor import Supervisor, member_command, member_env, reserve

log = structlog.get_logger(__name__)

WATCH_SECONDS = 1.0
EMBEDDED_IN_PRODUCTION = (
    "ENV=production runs on the embedded MongoDB, which is for development: set MONGO_URI"
)
# What one request may still take once the sockets have been sent away.
SHUTDOWN_SECONDS = 2.0
# More than the cores of the machines on which one port is still the bottleneck of nothing.
PROCESSES_MAX = 64


def add_parser(commands: Any) -> None:
    """``run [--host HOST] [--port PORT] [--processes N]`` and ``worker``."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "run",
        help="start the server (the default)",
        epilog="SIGTERM and SIGINT send everybody away to come back, and end it. So does SIGHUP; with several "
        "processes it replaces them one after the other while calls go on, WebSocket clients are spread over them, and "
        "clients that poll are passed on to the process that knows them. Set REDIS_URL, so that they reach each "
        "other at once.",
    )
    parser.add_argument("--host", help="address to listen on (HOST)")
    parser.add_argument("--port", type=_port, help="port to listen on (PORT), 0 for any free one")
    parser.add_argument("--processes", type=_count, default=1, metavar="N", help="processes at one port (1)")
    parser.add_argument("--member", help=argparse.SUPPRESS)
    worker: argparse.ArgumentParser = commands.add_parser(
        "worker",
        help="do the timed jobs that any process may do, with no port",
        epilog="Beside servers with JOBS=own, or with JOBS=all to take a share from them. It needs their MONGO_URI or "
        "DATA_DIR. Exit status 0 after SIGTERM or SIGINT, 1 when it could not start.",
    )
    worker.add_argument("--host", help="address to listen on for --port (HOST)")
    worker.add_argument(
        "--port", type=_port, help="serve /health and /metrics there, and nothing else (none)"
    )


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() else -1


def _port(text: str) -> int:
    number = _number(text)
    if not 0 <= number <= 65_535:
        raise argparse.ArgumentTypeError("a port is a number from 0 to 65535")
    return number


def _count(text: str) -> int:
    number = _number(text)
    if not 1 <= number <= PROCESSES_MAX:
        raise argparse.ArgumentTypeError(f"a number from 1 to {PROCESSES_MAX}")
    if number > 1 and not hasattr(socket, "SO_REUSEPORT"):
        raise argparse.ArgumentTypeError("this system cannot share a port between processes")
    return number


def event_loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where the platform has it."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


async def run(args: argparse.Namespace, config: Config) -> int:
    """Serve until a signal, then drain; 0. 1 when it could not start, with a sentence that says why."""
    try:
        config = with_jwt_secret(config)
    except OSError as fault:
        print(f"DATA_DIR {config.data_dir} cannot be used: {fault.strerror or fault}.", file=sys.stderr)
        return 2
    configure_logs(config.log_level, production=config.production)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # not under nohup
        # A terminal that closes tells all of its processes: those of a parent leave the answer to it.
        member = args.command == "run" and args.member
        loop.add_signal_handler(signal.SIGHUP, (lambda: None) if member else stop.set)
    if args.command == "worker":
        return await _guarded(_work(config, stop, args.host or config.host, args.port))
    host, port = args.host or config.host, config.port if args.port is None else args.port
    mongod = EmbeddedMongod(config.data_dir) if config.mongo_uri is None else None
    watch: asyncio.Task[None] | None = None
    try:
        uri = config.mongo_uri or ""
        if mongod is not None:
            if config.production:
                log.warning(EMBEDDED_IN_PRODUCTION)
            uri = await mongod.start()
            watch = asyncio.create_task(_keep_alive(mongod))
        if args.processes > 1:
            return await _supervise(config, uri, host, port, args.processes, stop)
        return await _guarded(_serve(config, uri, host, port, stop, args.member))
    except MongodFault as fault:
        print(fault, file=sys.stderr)
        return 1
    finally:
        if watch is not None:
            watch.cancel()
        if mongod is not None:
            await mongod.stop()


async def _guarded(serving: Coroutine[Any, Any, int]) -> int:
    """What is wrong with the database, in a sentence."""
    try:
        return await serving
    except (StandaloneServer, HalfRestored, MigrationFailed) as fault:
        print(f"{fault}.", file=sys.stderr)
        return 1
    except Exception as fault:
        if not database_away(fault):
            raise
        print("The database does not answer. Is MONGO_URI right, and is MongoDB running?", file=sys.stderr)
        return 1


async def _work(config: Config, stop: asyncio.Event, host: str, port: int | None) -> int:
    """The jobs alone; at ``port``, when there is one, how they are."""
    uri = config.mongo_uri or await running_uri(config.data_dir)
    if uri is None:
        print("No database: set MONGO_URI, or DATA_DIR to that of a server that runs.", file=sys.stderr)
        return 1
    app = make_app(config, uri)
    runner = web.AppRunner(app, access_log=None, handle_signals=False)
    await runner.setup()
    watched = web.AppRunner(health_app(app), access_log=None, handle_signals=False)
    await watched.setup()
    try:
        if port is not None:
            try:
                await web.TCPSite(watched, host, port, reuse_address=True).start()
            except OSError as fault:
                return _cannot_listen(host, port, fault)
        log.info("working", port=watched.addresses[0][1] if watched.addresses else None)
        await stop.wait()
        await drain(app)
    finally:
        await watched.cleanup()
        await runner.cleanup()
    log.info("stopped")
    return 0


async def _prepared(config: Config, uri: str) -> int:
    db = Database(uri, config.mongo_database)
    try:
        await prepare(db, SystemClock(), SystemIds().new())
    finally:
        await db.close()
    return 0


async def _supervise(config: Config, uri: str, host: str, port: int, count: int, stop: asyncio.Event) -> int:
    if config.redis_url is None:
        log.warning(
            "REDIS_URL is not set: the processes hear of each other within half a second, by the database"
        )
    try:
        if port and not is_free(port):
            raise OSError(errno.EADDRINUSE, "Address already in use")
        held = reserve(host, port)
    except OSError as fault:
        return _cannot_listen(host, port, fault)
    try:
        # Before the children, who are given up when they are not ready in time.
        status = await _guarded(_prepared(config, uri))
        if status:
            return status
        port = held.getsockname()[1]
        children = Supervisor(member_command(host, port), member_env(uri), count)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, children.roll)
        running = asyncio.create_task(children.run(stop))
        if await children.start():
            _say_where(config, host, port)
        elif not stop.is_set():
            stop.set()
            await running
            return 1
        await running
    finally:
        held.close()
    log.info("stopped")
    return 0


def _cannot_listen(host: str, port: int, fault: OSError) -> int:
    why = fault.strerror or fault
    print(f"Cannot listen on {host}:{port}: {why}. Set HOST and PORT to others.", file=sys.stderr)
    return 1


def _until_orphaned(stop: asyncio.Event) -> None:
    """Whoever has started this process is gone when its standard input ends."""

    def read() -> None:
        if not os.read(0, 1024):
            asyncio.get_running_loop().remove_reader(0)
            stop.set()

    asyncio.get_running_loop().add_reader(0, read)


async def _serve(
    config: Config, uri: str, host: str, port: int, stop: asyncio.Event, member: str | None
) -> int:
    siblings = None
    if member is not None:
        folder, _, number = member.rpartition(":")
        siblings = Siblings(Path(folder), int(number))
        _until_orphaned(stop)
    app = make_app(config, uri, works=config.jobs == "all", siblings=siblings)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_SECONDS, handle_signals=False)
    await runner.setup()
    try:
        if siblings is not None:
            try:
                await web.UnixSite(runner, siblings.path).start()
            except OSError as fault:
                why = fault.strerror or fault
                print(
                    f"Cannot listen on {siblings.path}: {why}. Set TMPDIR to another folder.", file=sys.stderr
                )
                return 1
        reuse_port = True if siblings is not None else None
        site = web.TCPSite(runner, host, port, reuse_address=True, reuse_port=reuse_port)
        try:
            await site.start()
        except OSError as fault:
            return _cannot_listen(host, port, fault)
        serves_at(app, host, port or runner.addresses[0][1])
        if siblings is None:
            _say_where(config, host, runner.addresses[0][1])
        else:
            print("ready", flush=True)
        await stop.wait()
        log.info("draining")
        # A client that is refused by Socket.IO stays away for good; one that finds nobody listening tries again.
        await site.stop()
        await drain(app)
    finally:
        await runner.cleanup()
    log.info("stopped")
    return 0


def _say_where(config: Config, host: str, port: int) -> None:
    shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host  # noqa: S104 - compared, not bound
    address = f"http://{shown}:{port}"
    if config.production:
        print(f"Ringmeter serves on {address}", flush=True)
    else:
        print(
            f"Ringmeter is ready: open {address}/ in two tabs and call yourself.  API: {address}/docs",
            flush=True,
        )


async def _keep_alive(mongod: EmbeddedMongod) -> None:
    """Start the embedded database again when it dies; requests meanwhile are refused with DATABASE_AWAY."""
    while True:
        await asyncio.sleep(WATCH_SECONDS)
        if not mongod.alive():
            log.error("the embedded MongoDB has died; starting it again")
            try:
                await mongod.restart()
            except Exception as fault:
                log.error("the embedded MongoDB does not start", error=str(fault))
