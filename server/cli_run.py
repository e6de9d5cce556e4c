"""``python main.py run``: the server, with the embedded MongoDB where none is given."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Callable
from typing import Any

import structlog
from aiohttp import web

from models.db import StandaloneServer, database_away
from server.app import drain, make_app
from server.config import Config, with_jwt_secret
from server.logs import configure_logs
from server.mongod import EmbeddedMongod, MongodFault

log = structlog.get_logger(__name__)

WATCH_SECONDS = 1.0
EMBEDDED_IN_PRODUCTION = (
    "ENV=production runs on the embedded MongoDB, which is for development: set MONGO_URI"
)
# What one request may still take once the sockets have been sent away.
SHUTDOWN_SECONDS = 2.0


def add_parser(commands: Any) -> None:
    """``run [--host HOST] [--port PORT]``."""
    parser: argparse.ArgumentParser = commands.add_parser("run", help="start the server (the default)")
    parser.add_argument("--host", help="address to listen on (HOST)")
    parser.add_argument("--port", type=_port, help="port to listen on (PORT), 0 for any free one")


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65_535:
        raise argparse.ArgumentTypeError("a port is a number from 0 to 65535")
    return number


def event_loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where the platform has it."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


async def run(args: argparse.Namespace, config: Config) -> int:
    """Serve until SIGTERM or SIGINT, then drain; 0. 1 when it could not start, with a sentence that says why."""
    try:
        config = with_jwt_secret(config)
    except OSError as fault:
        print(f"DATA_DIR {config.data_dir} cannot be used: {fault.strerror or fault}.", file=sys.stderr)
        return 2
    configure_logs(config.log_level, production=config.production)
    host, port = args.host or config.host, config.port if args.port is None else args.port
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    mongod = EmbeddedMongod(config.data_dir) if config.mongo_uri is None else None
    watch: asyncio.Task[None] | None = None
    try:
        uri = config.mongo_uri or ""
        if mongod is not None:
            if config.production:
                log.warning(EMBEDDED_IN_PRODUCTION)
            uri = await mongod.start()
            watch = asyncio.create_task(_keep_alive(mongod))
        return await _serve(config, uri, host, port, stop)
    except MongodFault as fault:
        print(fault, file=sys.stderr)
        return 1
    except StandaloneServer as fault:
        print(f"{fault}.", file=sys.stderr)
        return 1
    except Exception as fault:
        if not database_away(fault):
            raise
        print("The database does not answer. Is MONGO_URI right, and is MongoDB running?", file=sys.stderr)
        return 1
    finally:
        if watch is not None:
            watch.cancel()
        if mongod is not None:
            await mongod.stop()


async def _serve(config: Config, uri: str, host: str, port: int, stop: asyncio.Event) -> int:
    app = make_app(config, uri)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_SECONDS, handle_signals=False)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, reuse_address=True)
        try:
            await site.start()
        except OSError as fault:
            why = fault.strerror or fault
            print(f"Cannot listen on {host}:{port}: {why}. Set HOST and PORT to others.", file=sys.stderr)
            return 1
        _say_where(config, host, runner.addresses[0][1])
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
