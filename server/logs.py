"""Logs: one JSON object per line on stderr, or coloured lines when a person looks on in development.

Whatever is bound with `structlog.contextvars` (request_id, user_id, call_id) is in every line of that request. Secrets
are kept out twice: by the name of the key, and by the look of the text. Values of local variables are never shown.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping
from typing import Any, TextIO

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

HIDDEN = "[hidden]"
TEXT_MAX = 4096  # a line stays a line: an SDP or a page of HTML is no log entry

# Compared without case, _ and -, so that one entry covers refreshToken, refresh_token and Refresh-Token.
HIDDEN_KEYS = frozenset(
    "password newpassword currentpassword passwordhash token accesstoken refreshtoken idtoken expopushtoken "
    "authorization cookie setcookie secret jwtsecret turnsecret clientsecret credential credentials apikey pin "
    "devicetoken newpin oldpin currentpin transactionpin newtransactionpin currenttransactionpin "
    "totp recoverycode recoverycodes sdp description offer answer candidate candidates text body "
    "message payload ask mongouri redisurl".split()
)
_HIDDEN_LOOKS = re.compile(
    r"eyJ[\w-]{5,}\.[\w-]+\.[\w-]*"  # a JWT
    r"|rk_[a-z2-7]{16}_[\w-]+"  # an API key
    r"|Expo(?:nent)?PushToken\[[^\]]*\]"
    r"|(?<=://)[^\s/@:]*:[^\s/@]+(?=@)"  # user:password in an address
    r"|(?i:(?<=bearer )\S+)"
    r"|v=0\r?\no=[\s\S]*"  # an SDP, RFC 8866 §5
    r"|candidate:\S+ \d \S+ \d+ [\s\S]*?(?=\"|$)"  # RFC 8839 §5.1; it holds addresses of people
)


def configure_logs(level: str = "info", *, production: bool = False, stream: TextIO | None = None) -> None:
    """Set up structlog and the standard library's logging alike. `level` is a word of LOG_LEVEL."""
    out = stream or sys.stderr
    pretty = not production and out.isatty()
    number = logging.getLevelNamesMapping()[level.upper()]
    before: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
        hide_secrets,
    ]
    ending: list[Processor] = (
        [structlog.dev.ConsoleRenderer(timestamp_key="at", exception_formatter=structlog.dev.plain_traceback)]
        if pretty
        else [structlog.processors.format_exc_info, hide_looks, structlog.processors.JSONRenderer(_json)]
    )
    structlog.configure(
        processors=[*before, *ending],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(out),
        cache_logger_on_first_use=False,  # tests configure anew
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*before[:2], structlog.stdlib.add_logger_name, *before[2:]],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *ending],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(number)
    # These speak of every packet and heartbeat, with contents; httpx of every address, and Apple's hold push tokens.
    for chatty in (
        "socketio",
        "engineio",
        "pymongo",
        "aiohttp.access",
        "asyncio",
        "httpx",
        "httpcore",
        "hpack",
    ):
        logging.getLogger(chatty).setLevel(max(number, logging.WARNING))


def hide_secrets(_logger: WrappedLogger, _method: str, entry: EventDict) -> EventDict:
    """Processor: hides by key, at any depth, and by look."""
    for key, value in entry.items():
        if key not in ("exc_info", "event"):
            entry[key] = HIDDEN if _is_hidden(key) and value is not None else _clean(value)
    if isinstance(entry.get("event"), str):
        entry["event"] = _clean(entry["event"])
    return entry


def hide_looks(_logger: WrappedLogger, _method: str, entry: EventDict) -> EventDict:
    """Processor: the same for the text of a rendered exception."""
    if isinstance(entry.get("exception"), str):
        entry["exception"] = _HIDDEN_LOOKS.sub(HIDDEN, entry["exception"])
    return entry


def _is_hidden(key: object) -> bool:
    return isinstance(key, str) and key.lower().replace("_", "").replace("-", "") in HIDDEN_KEYS


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return _HIDDEN_LOOKS.sub(HIDDEN, value[:TEXT_MAX])
    if isinstance(value, Mapping):
        return {key: HIDDEN if _is_hidden(key) and v is not None else _clean(v) for key, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean(item) for item in value]
    return value


def _json(entry: EventDict, **_: Any) -> str:
    return orjson.dumps(entry, default=_as_text, option=orjson.OPT_NON_STR_KEYS).decode()


def _as_text(value: Any) -> Any:
    """What JSON does not know is shown by its text, cleaned as any other: a repr may hold what a key did not name."""
    return _clean(repr(value))
