"""Environment → one frozen `Config`. Every fault is found before a port opens, and all are told at once.

A value is looked for in the environment first and in a `.env` file of the working folder second; an empty
value counts as not set. Every secret is also taken from the file that its name with `_FILE` names. `VARIABLES` names
every variable with its default and meaning: the README's table and `.env.example` are made from it, and a test holds
that no other variable is read.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, cast

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from dotenv import dotenv_values
from environs import EnvValidationError
from marshmallow.validate import OneOf

from models.fx.rules import contradictions
from server.adapters.credentials import ServiceAccount, apns_private_key, service_account
from server.config_checks import (
    JWT_SECRET_BYTES_MIN,
    apple_id,
    bundle_id,
    currency,
    database_name,
    flag,
    ice,
    long_enough,
    origin,
    redis_url,
    socket_or_port,
    url,
)
from server.config_identity import IdentityConfig, identity_config
from server.config_limits import LimitsConfig, limits_config
from server.config_money import WHOLES, MoneyConfig, live_keys, money_config
from server.config_read import (
    DEFAULTS,
    FILE,
    ONE_OF,
    Mapped,
    optional,
    optional_whole,
    parse,
    whole,
    with_files,
    words,
)
from server.tracing import endpoint
from server.variables import PUBLIC_STUN

TURN_TTL_SECONDS_MAX = 86_400  # a leaked TURN credential is good for a day at most
DEVELOPMENT_ORIGINS = (
    "http://localhost:*",
    "http://127.0.0.1:*",
    "https://localhost:*",
    "https://127.0.0.1:*",
)
# A file is one upload, which has a quarter of an hour.
MEDIA_BYTES_MOST = 2 * 1024**3
# Ten million naira a minute.
MINOR_MAX = 999_999_999
LOG_LEVELS = ("debug", "info", "warning", "error")


class ConfigFault(Exception):
    """The environment cannot be used. `faults`: one sentence for each variable, its name first."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


@dataclass(frozen=True, slots=True)
class Config:
    """What the server was told. Secrets are left out of its text form."""

    host: str
    port: int
    env: Literal["development", "production"]
    log_level: str
    jobs: Literal["all", "own"]
    data_dir: Path
    mongo_uri: str | None = field(repr=False)  # None: embedded
    mongo_database: str
    redis_url: str | None = field(repr=False)
    jwt_secret: str | None = field(repr=False)  # None only in development, until with_jwt_secret()
    cors_origins: tuple[str, ...]  # exact origins, or with port "*"
    trusted_proxy_hops: int
    stun_urls: tuple[str, ...]
    turn_urls: tuple[str, ...]
    turn_secret: str | None = field(repr=False)
    turn_ttl_seconds: int
    turn_in_calls_only: bool
    expo_access_token: str | None = field(repr=False)
    expo_url: str | None
    fcm_account: ServiceAccount | None = field(repr=False)
    fcm_url: str | None
    apns_key: EllipticCurvePrivateKey | None = field(repr=False)
    apns_key_id: str | None
    apns_team_id: str | None
    apns_topic: str | None
    apns_sandbox: bool
    apns_url: str | None
    livekit_url: str | None
    livekit_api_key: str | None
    livekit_api_secret: str | None = field(repr=False)
    currency: str
    call_rate_minor: int
    call_video_rate_minor: int | None
    call_first_block_seconds: int
    call_block_seconds: int
    call_minimum_minor: int
    call_connect_fee_minor: int
    platform_share_bps: int
    dispute_window_seconds: int
    receipt_secret: str | None = field(repr=False)
    pin_pepper: str | None = field(repr=False)
    ring_seconds: int
    connect_seconds: int
    reconnect_seconds: int
    call_max_seconds: int
    caller_grace_seconds: int
    payee_proof_seconds: int
    media_bytes_max: int
    media_user_bytes_max: int
    clamd: str | None
    room_capacity: int
    room_grace_seconds: int
    room_empty_seconds: int
    access_token_seconds: int
    refresh_token_days: int
    bcrypt_rounds: int
    auth_per_minute: int
    events_per_second: int
    otel_endpoint: str | None
    money: MoneyConfig
    identity: IdentityConfig
    limits: LimitsConfig

    @property
    def production(self) -> bool:
        return self.env == "production"


def load_config(env: Mapping[str, str] | None = None) -> Config:
    """Read `env`, or the process's environment over a `.env` file. Raises `ConfigFault` with every fault."""
    if env is None:
        env = {**{k: v for k, v in dotenv_values(".env").items() if v is not None}, **os.environ}
    env, misread = with_files(env)
    read = Mapped(env)
    production = env.get("ENV", "").strip() == "production"
    config = Config(
        host=read.str("HOST", "127.0.0.1"),
        port=whole(read, "PORT", 0, 65_535),
        env=cast(
            Literal["development", "production"],
            read.str("ENV", "development", validate=OneOf(["development", "production"], error=ONE_OF)),
        ),
        log_level=read.str("LOG_LEVEL", "info", validate=OneOf(LOG_LEVELS, error=ONE_OF)),
        jobs=cast(
            Literal["all", "own"], read.str("JOBS", "all", validate=OneOf(["all", "own"], error=ONE_OF))
        ),
        data_dir=Path(read.str("DATA_DIR", ".data")).expanduser(),
        mongo_uri=optional(read, "MONGO_URI", url("mongodb", "mongodb+srv")),
        mongo_database=read.str("MONGO_DATABASE", "ringmeter", validate=database_name),
        redis_url=optional(read, "REDIS_URL", redis_url),
        jwt_secret=optional(read, "JWT_SECRET", long_enough),
        cors_origins=words(read, "CORS_ORIGINS", () if production else DEVELOPMENT_ORIGINS, origin),
        trusted_proxy_hops=whole(read, "TRUSTED_PROXY_HOPS", 0, 10),
        stun_urls=words(read, "STUN_URLS", (PUBLIC_STUN,), ice("stun", "stuns")),
        turn_urls=words(read, "TURN_URLS", (), ice("turn", "turns")),
        turn_secret=optional(read, "TURN_SECRET"),
        turn_ttl_seconds=whole(read, "TURN_TTL_SECONDS", 60, TURN_TTL_SECONDS_MAX),
        turn_in_calls_only=bool(
            parse(read, "TURN_IN_CALLS_ONLY", flag, default=DEFAULTS["TURN_IN_CALLS_ONLY"])
        ),
        expo_access_token=optional(read, "EXPO_ACCESS_TOKEN"),
        expo_url=optional(read, "EXPO_URL", url("http", "https")),
        fcm_account=parse(read, "FCM_SERVICE_ACCOUNT", service_account, default=None),
        fcm_url=optional(read, "FCM_URL", url("http", "https")),
        apns_key=parse(read, "APNS_KEY", apns_private_key, default=None),
        apns_key_id=optional(read, "APNS_KEY_ID", apple_id),
        apns_team_id=optional(read, "APNS_TEAM_ID", apple_id),
        apns_topic=optional(read, "APNS_TOPIC", bundle_id),
        apns_sandbox=bool(parse(read, "APNS_SANDBOX", flag, default=DEFAULTS["APNS_SANDBOX"])),
        apns_url=optional(read, "APNS_URL", url("https")),
        livekit_url=optional(read, "LIVEKIT_URL", url("ws", "wss")),
        livekit_api_key=optional(read, "LIVEKIT_API_KEY"),
        livekit_api_secret=optional(read, "LIVEKIT_API_SECRET", long_enough),
        currency=read.str("CURRENCY", "NGN", validate=currency),
        call_rate_minor=whole(read, "CALL_RATE_MINOR", 0, MINOR_MAX),
        call_video_rate_minor=optional_whole(read, "CALL_VIDEO_RATE_MINOR", 0, MINOR_MAX),
        call_first_block_seconds=whole(read, "CALL_FIRST_BLOCK_SECONDS", 1, 3600),
        call_block_seconds=whole(read, "CALL_BLOCK_SECONDS", 1, 3600),
        call_minimum_minor=whole(read, "CALL_MINIMUM_MINOR", 0, MINOR_MAX),
        call_connect_fee_minor=whole(read, "CALL_CONNECT_FEE_MINOR", 0, MINOR_MAX),
        platform_share_bps=whole(read, "PLATFORM_SHARE_BPS", 0, 10_000),
        dispute_window_seconds=whole(read, "DISPUTE_WINDOW_SECONDS", 0, 31_536_000),
        receipt_secret=optional(read, "RECEIPT_SECRET", long_enough),
        pin_pepper=optional(read, "PIN_PEPPER", long_enough),
        ring_seconds=whole(read, "RING_SECONDS", 1, 600),
        connect_seconds=whole(read, "CONNECT_SECONDS", 1, 600),
        reconnect_seconds=whole(read, "RECONNECT_SECONDS", 1, 600),
        call_max_seconds=whole(read, "CALL_MAX_SECONDS", 10, 86_400),
        caller_grace_seconds=whole(read, "CALLER_GRACE_SECONDS", 1, 600),
        payee_proof_seconds=whole(read, "PAYEE_PROOF_SECONDS", 0, 86_400),
        media_bytes_max=whole(read, "MEDIA_BYTES_MAX", 1, MEDIA_BYTES_MOST),
        media_user_bytes_max=whole(read, "MEDIA_USER_BYTES_MAX", 1, 10**15 - 1),
        clamd=optional(read, "CLAMD", socket_or_port),
        room_capacity=whole(read, "ROOM_CAPACITY", 2, 100),
        room_grace_seconds=whole(read, "ROOM_GRACE_SECONDS", 1, 600),
        room_empty_seconds=whole(read, "ROOM_EMPTY_SECONDS", 60, 31_536_000),
        access_token_seconds=whole(read, "ACCESS_TOKEN_SECONDS", 1, 86_400),
        refresh_token_days=whole(read, "REFRESH_TOKEN_DAYS", 1, 366),
        bcrypt_rounds=whole(read, "BCRYPT_ROUNDS", 4, 16),
        auth_per_minute=whole(read, "AUTH_PER_MINUTE", 1, 1_000_000),
        events_per_second=whole(read, "EVENTS_PER_SECOND", 1, 1_000_000),
        otel_endpoint=optional(read, "OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
        money=money_config(read, production=production),
        identity=identity_config(read, production=production),
        limits=limits_config(read),
    )
    faults: dict[str, list[str]] = {}
    try:
        read.seal()
    except EnvValidationError as fault:
        told = cast(dict[str, list[str]], fault.error_messages)
        faults = {name: list(sentences) for name, sentences in told.items()}
    faults |= {name: [said] for name, said in misread.items()}
    # What was to come from a file that is at fault is not missing besides.
    env |= {name.removesuffix(FILE): name for name in misread}
    if config.production and not env.get("JWT_SECRET", "").strip():
        faults["JWT_SECRET"] = [f"is required with ENV=production, at least {JWT_SECRET_BYTES_MIN} bytes."]
    if config.turn_urls and not env.get("TURN_SECRET", "").strip():
        faults.setdefault("TURN_SECRET", []).append("is required because TURN_URLS is set.")
    if config.turn_secret and not config.turn_urls and "TURN_URLS" not in faults:
        faults["TURN_URLS"] = ["is required because TURN_SECRET is set."]
    if config.production and config.money.gateway == "sandbox":
        faults["GATEWAY"] = ["is the sandbox, which collects nothing, with ENV=production."]
    if not config.production:
        said = (
            "moves real money, which takes ENV=production: else the sandbox's play money could be withdrawn."
        )
        faults |= {name: [said] for name in live_keys(config.money) if name not in faults}
    if "FX_RATES" not in faults and (odd := contradictions(config.money.fx_rates)):
        faults["FX_RATES"] = [f"has {', '.join(odd)}, which the pairs before contradict."]
    for whose, names in {**_WHOLES, **WHOLES}.items():
        lacking = [name for name in names if not env.get(name, "").strip()]
        if len(lacking) < len(names):
            faults |= {name: [f"is required because {whose} other variables are set."] for name in lacking}
    if faults:
        raise ConfigFault([f"{name} {' '.join(said)}" for name, said in sorted(faults.items())])
    return config


def with_jwt_secret(config: Config) -> Config:
    """The same config with a secret in it: the one given, else the one in DATA_DIR, made on the first call."""
    if config.jwt_secret:
        return config
    return replace(config, jwt_secret=kept_secret(config.data_dir / "jwt_secret"))


def kept_secret(path: Path) -> str:
    """The secret in `path`, readable by its owner only; made on the first call, once even if two race for it."""
    path.parent.parent.mkdir(parents=True, exist_ok=True)
    path.parent.mkdir(exist_ok=True, mode=0o700)
    if not path.exists():
        # Written whole under another name and then linked: whoever finds `path` finds all of it.
        draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
        try:
            os.link(draft, path)
        except FileExistsError:
            pass  # the other process was first; its secret is the one
        except OSError:  # a file system without hard links
            os.replace(draft, path)
        draft.unlink(missing_ok=True)
    return path.read_text().strip()


# Set as a whole or not at all.
_WHOLES = {
    "LiveKit's": ("LIVEKIT_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET"),
    "APNs'": ("APNS_KEY", "APNS_KEY_ID", "APNS_TEAM_ID", "APNS_TOPIC"),
}
