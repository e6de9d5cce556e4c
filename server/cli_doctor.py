"""``python main.py doctor``: what works on this machine, with this configuration."""

from __future__ import annotations

import argparse
import asyncio
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from redis.asyncio import Redis
from rich.console import Console
from rich.table import Table

from models.db import Database, Session, StandaloneServer
from server.adapters.apns import SANDBOX_URL
from server.adapters.apns import URL as APNS_URL
from server.adapters.fcm import FcmSender
from server.adapters.smtp import SmtpCarrier, relay_of
from server.adapters.twilio import TwilioCarrier
from server.cli_run import EMBEDDED_IN_PRODUCTION
from server.clock import SystemClock, SystemIds
from server.config import Config
from server.mongod import EmbeddedMongod, MongodFault, running_uri

EXPO = "https://exp.host"
ANSWER_SECONDS = 3.0
REDIS_MIN = 6
STUN_MAGIC = 0x2112A442


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found: ``ok`` True, False, or None for "not configured"; a ``warning`` is no fault."""

    what: str
    ok: bool | None
    sentence: str
    warning: bool = False


def add_parser(commands: Any) -> None:
    """``doctor``."""
    commands.add_parser("doctor", help="say what works: database, transactions, TURN, LiveKit, push, Redis")


async def run(args: argparse.Namespace, config: Config) -> int:
    """Print a table; 0 when everything that is configured works, else 1."""
    findings = await examine(config)
    table = Table("", "what", "found", title="Ringmeter doctor")
    marks = {True: "[green]ok[/]", False: "[red]fault[/]", None: "[dim]off[/]"}
    for finding in findings:
        mark = "[yellow]warning[/]" if finding.warning else marks[finding.ok]
        table.add_row(mark, finding.what, finding.sentence)
    Console().print(table)
    return 1 if any(finding.ok is False for finding in findings) else 0


async def examine(config: Config) -> list[Finding]:
    """Check everything; never raises."""
    findings = await _database(config)
    if config.production and config.mongo_uri is None:
        findings.append(Finding("production", None, EMBEDDED_IN_PRODUCTION, warning=True))
    others = await asyncio.gather(
        _turn(config),
        _livekit(config),
        _push(config),
        _fcm(config),
        _apns(config),
        _mail(config),
        _sms(config),
        _redis(config),
    )
    return [*findings, *others]


async def _database(config: Config) -> list[Finding]:
    mongod: EmbeddedMongod | None = None
    uri = config.mongo_uri
    try:
        if uri is None:
            uri = await running_uri(config.data_dir)
        if uri is None:
            mongod = EmbeddedMongod(config.data_dir)
            uri = await mongod.start()
        return await _ask_database(uri, "MONGO_URI" if config.mongo_uri else "embedded")
    except MongodFault as fault:
        return [Finding("database", False, str(fault))]
    finally:
        if mongod is not None:
            await mongod.stop()


async def _ask_database(uri: str, source: str) -> list[Finding]:
    db = Database(uri, "ringmeter_doctor")
    try:
        await db.ping()
        findings = [Finding("database", True, f"MongoDB {await db.version()} ({source})")]
    except Exception as fault:
        await db.close()
        return [
            Finding(
                "database", False, f"{source}: {type(fault).__name__}. Is it running, and is the URI right?"
            )
        ]
    try:
        await _try_transaction(db)
        findings.append(Finding("transactions", True, "a transaction was committed"))
    except StandaloneServer as fault:
        findings.append(Finding("transactions", False, str(fault)))
    except Exception as fault:
        findings.append(Finding("transactions", False, type(fault).__name__))
    finally:
        await db.client.drop_database("ringmeter_doctor")
        await db.close()
    return findings


async def _try_transaction(db: Database) -> None:
    await db.refuse_standalone()

    async def body(session: Session) -> None:
        await db["probe"].insert_one({"_id": SystemIds().new()}, session=session)

    await db.transaction(body)


async def _turn(config: Config) -> Finding:
    if not config.turn_urls:
        return Finding(
            "TURN", None, "TURN_URLS is not set: calls work where phones reach each other directly"
        )
    said = []
    for url in config.turn_urls:
        host, port = _host_and_port(url)
        tcp = url.startswith("turns:") or "transport=tcp" in url
        reached = await _answers(_tcp(host, port) if tcp else _stun(host, port))
        said.append((url, reached))
    silent = [url for url, reached in said if not reached]
    if silent:
        return Finding("TURN", False, f"no answer from {', '.join(silent)}")
    return Finding("TURN", True, f"{len(said)} server(s) answer")


def _host_and_port(url: str) -> tuple[str, int]:
    rest = url.split(":", 1)[1].split("?", 1)[0]
    parts = urlsplit(f"//{rest}")
    return parts.hostname or "", parts.port or (5349 if url.startswith("turns:") else 3478)


async def _answers(check: Awaitable[None]) -> bool:
    try:
        await asyncio.wait_for(check, ANSWER_SECONDS)
    except (OSError, TimeoutError):
        return False
    return True


async def _tcp(host: str, port: int) -> None:
    _, writer = await asyncio.open_connection(host, port)
    writer.close()


async def _stun(host: str, port: int) -> None:
    """One STUN Binding request (RFC 8489 §5); any answer with its transaction id will do."""
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[None] = loop.create_future()
    transaction = SystemIds().new().replace("-", "")[:24]
    request = struct.pack("!HHI", 0x0001, 0, STUN_MAGIC) + bytes.fromhex(transaction)

    class Probe(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: Any) -> None:
            if data[8:20] == request[8:20] and not answered.done():
                answered.set_result(None)

        def error_received(self, exc: Exception) -> None:
            if not answered.done():
                answered.set_exception(exc)

    transport, _ = await loop.create_datagram_endpoint(Probe, remote_addr=(host, port))
    try:
        transport.sendto(request)
        await answered
    finally:
        transport.close()


async def _livekit(config: Config) -> Finding:
    if not config.livekit_url:
        return Finding("LiveKit", None, "LIVEKIT_URL is not set: rooms are a mesh of their phones")
    # ws and wss become http and https; LiveKit says OK at the root of the address that its clients connect to.
    url = f"http{config.livekit_url.removeprefix('ws')}"

    async def ask() -> None:
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            answer.raise_for_status()

    try:
        await asyncio.wait_for(ask(), ANSWER_SECONDS)
    except (aiohttp.ClientError, OSError, TimeoutError):
        return Finding("LiveKit", False, f"does not answer at {url}")
    return Finding("LiveKit", True, "answers; whether the key is its own shows when a phone joins a room")


async def _push(config: Config) -> Finding:
    url = config.expo_url or EXPO

    async def ask() -> None:
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            await answer.read()

    check: Callable[[], Awaitable[None]] = ask
    try:
        await asyncio.wait_for(check(), ANSWER_SECONDS)
    except (aiohttp.ClientError, OSError, TimeoutError):
        said = f"Expo's push service does not answer at {url}"
        if config.expo_access_token:
            return Finding("push", False, said)
        return Finding("push", None, f"{said}: phones ring only while the app is connected", warning=True)
    token = "with an access token" if config.expo_access_token else "without an access token"
    return Finding("push", True, f"Expo's push service answers, {token}")


async def _fcm(config: Config) -> Finding:
    account = config.fcm_account
    if account is None:
        return Finding(
            "push by FCM", None, "FCM_SERVICE_ACCOUNT is not set: Androids ring as far as Expo's push can"
        )
    sender = FcmSender(account, clock=SystemClock(), url=config.fcm_url)
    try:
        fault = await sender.try_access()
    finally:
        await sender.close()
    if fault is not None:
        return Finding("push by FCM", False, f"Google gives project {account.project_id} no access: {fault}")
    return Finding("push by FCM", True, f"Google gives project {account.project_id} access")


async def _apns(config: Config) -> Finding:
    if config.apns_key is None:
        return Finding("push by APNs", None, "APNS_KEY is not set: iPhones ring as far as Expo's push can")
    url = config.apns_url or (SANDBOX_URL if config.apns_sandbox else APNS_URL)
    parts = urlsplit(url)
    # Whether the key is right shows with the first ring: Apple has no request that only asks for that.
    if not await _answers(_tcp(parts.hostname or "", parts.port or 443)):
        return Finding("push by APNs", False, f"no answer from {url}")
    return Finding("push by APNs", True, f"{url} answers; rings go to {config.apns_topic}.voip")


def _untold(config: Config) -> str:
    return "nobody is told" if config.production else "the log has what people would be told"


async def _mail(config: Config) -> Finding:
    money = config.money
    if money.smtp_url is None or money.mail_from is None:
        return Finding("notices by e-mail", None, f"SMTP_URL is not set: {_untold(config)} by e-mail")
    relay = relay_of(money.smtp_url)
    fault = await SmtpCarrier(relay, money.mail_from).try_access()
    if fault is not None:
        return Finding(
            "notices by e-mail", False, f"the relay {relay.host}:{relay.port} does not take us: {fault}"
        )
    return Finding("notices by e-mail", True, f"the relay {relay.host}:{relay.port} takes us")


async def _sms(config: Config) -> Finding:
    money = config.money
    if money.twilio_account_sid is None or money.twilio_auth_token is None or money.twilio_from is None:
        return Finding("notices by SMS", None, f"TWILIO_ACCOUNT_SID is not set: {_untold(config)} by SMS")
    carrier = TwilioCarrier(
        money.twilio_account_sid, money.twilio_auth_token, money.twilio_from, url=money.twilio_url
    )
    try:
        fault = await carrier.try_access()
    finally:
        await carrier.close()
    if fault is not None:
        return Finding("notices by SMS", False, f"Twilio gives this account no access: {fault}")
    return Finding(
        "notices by SMS", True, f"Twilio gives this account access, sending from {money.twilio_from}"
    )


async def _redis(config: Config) -> Finding:
    if not config.redis_url:
        return Finding(
            "Redis", None, "REDIS_URL is not set: several processes hear of each other within half a second"
        )
    client = Redis.from_url(
        config.redis_url, socket_timeout=ANSWER_SECONDS, socket_connect_timeout=ANSWER_SECONDS
    )
    try:
        version = str((await client.info("server"))["redis_version"])
        if int(version.split(".")[0]) < REDIS_MIN:
            return Finding(
                "Redis", False, f"is version {version}, and {REDIS_MIN} or newer is needed (RESP3)"
            )
        return Finding("Redis", True, f"answers, version {version}: processes reach each other at once")
    except Exception as fault:
        return Finding("Redis", False, f"does not answer: {type(fault).__name__}")
    finally:
        await client.aclose()
