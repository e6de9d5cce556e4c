"""What a client could send that no honest one does, by chance over the events of the catalogue.

A value is a piece of JSON *text*: much of what is sent here no JSON library would write. A
frame that has an ack id has to be answered exactly once; ``bare`` frames break the protocol below the events, and may
end the connection.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from marshmallow import fields

from handlers.registry import Event
from server.wiring import catalogue

BARE_SHARE = 0.3
# Text that means something to some database, language, screen or parser.
TRICKS = [
    "", " ", "\x00", "a\x00b", "\t\r\n", "\x1b[2J", "\x7f", "\u0085", "\u2028", "\ufeff", "\ufffe",
    "\uffff", "$where", "$ne", "a.b.$c", "__proto__", "constructor", "prototype", "toString",
    "hasOwnProperty", "undefined", "null", "NaN", "true", "0", "-1", "1e309", "../../etc/passwd", "%00",
    "${7*7}", "{{7*7}}", "<script>", "' OR 1=1 --", "\u202egnp.exe", "\u2066x\u2069", "\u200b", "a\u200db",
    "\u00ad", "\U000e0041", "\u3164", "\u115f", "\u2800", "аda", "ａｄａ", "Ⅷ", "ﬁ", "ß", "İ", "ı", "ς",
    "e\u0301", "\u00e9", "z" + "\u0300" * 200, "\u1100\u1161", "👩‍👩‍👧‍👦",
    "🏴\U000e0067\U000e0062\U000e007f", "\U0010ffff", "x" * 65, "x" * 300, "x" * 9_000, "💥" * 3_000,
    "\"\\\"",
]  # fmt: skip


def _nested(depth: int, kind: str) -> str:
    return "[" * depth + "]" * depth if kind == "list" else '{"a":' * depth + "1" + "}" * depth


# Values that are no text, and text that only JSON's escapes can carry.
ODD = [
    "null", "true", "false", "0", "-0", "-1", "1.5", "1e400", "-1e400", "1E-400", "2147483648",
    "9007199254740993", "9223372036854775808", "-9223372036854775809", "1" + "0" * 400,
    "0.1" + "0" * 400 + "1", "[]", "{}", "[[]]", "[null]", r'"\ud800"', r'"\udc00x"', r'"a\ud83d"',
    r'"\u0000"', r'{"\ud800":1}', '{"":""}', '{"$ne":null}', '{"$gt":""}', '{"$regex":".*"}',
    '{"$where":"sleep(9999)"}', '{"$expr":{"$function":{}}}', '["$ne"]',
    '{"$oid":"000000000000000000000000"}', '{"$date":0}', '{"$binary":{"base64":"","subType":"00"}}',
    '{"$numberLong":"1"}', '{"__proto__":{"isAdmin":true}}', '{"constructor":{"prototype":{"ok":true}}}',
    '{"toString":1,"valueOf":1}', '{"length":-1}', '{"_placeholder":true,"num":0}',
    '{"_placeholder":true,"num":-1}', '{"type":"offer"}', '{"type":[],"sdp":{}}',
    '{"type":"offer","sdp":"v=0\\u0000"}', '{"type":"offer","sdp":"v=0\\r\\n"}', '{"candidate":{}}',
    '{"a":1,"a":2}', _nested(31, "list"), _nested(33, "list"), _nested(33, "dict"), _nested(2_000, "list"),
    _nested(2_000, "dict"), "[" + ",".join(["0"] * 3_000) + "]",
    "{" + ",".join(f'"k{n}":{n}' for n in range(1_000)) + "}",
]  # fmt: skip
# Far larger than may be; each is a megabyte to somebody.
HUGE = ['"' + "x" * 140_000 + '"', "[" + ",".join(["{}"] * 60_000) + "]", _nested(60_000, "list")]
# What is no JSON, behind a head that is all right.
BROKEN = [
    "", "[", "]", '["', '["x"', '["x",', '["x",]', '["x",NaN]', '["x",Infinity]', '["x",-Infinity]',
    '["x"]]', "['x']", '["x",undefined]', '["x",{a:1}]', '["x",01]', '["x",1.]', '["x","\\x"]',
    '["x","\t"]', '\ufeff["x"]', "{", "{}", '{"x":1}', "null", '"x"', "[]", "[null]", "[7]", "[[]]",
    "[{}]", '[["x"]]', "[true,{}]", _nested(50_000, "list"), '["x"]garbage', "[,]",
]  # fmt: skip
# Frames below the events. The server may take, refuse or end the connection, and nothing else may come of it.
BARE: list[str | bytes] = [
    "", "0", "1", "2", "2probe", "3", "4", "5", "6", "7", "8", "9", "40", "41", "42", "43", "44", "45",
    "46", "47", "4x", "x", "\x00", "40{", '40{"token":1}', "40/admin,", "40/admin,{}", "41/admin,",
    '42/admin,["CALL_SYNC"]', '42/,["CALL_SYNC"]', "42[", '42["x"', '42-1["CALL_SYNC"]',
    '42x["CALL_SYNC"]', "4" + "9" * 30, "42" + "9" * 5_000 + '["CALL_SYNC"]', '42٣["CALL_SYNC"]',
    '421.5["CALL_SYNC"]', "43[]", '431["x"]', "43" + "9" * 5_000 + "[]", '43-1["x"]', '44{"message":"x"}',
    '450-["x"]', '451-["CALL_SYNC"]', '4517-["x"]', '4599999999999-["x"]', '45-1-["x"]',
    '45' + "9" * 5_000 + '-["x"]', '451-1["CALL_SYNC",{"_placeholder":true,"num":7}]', '461-1["x"]', b"",
    b"\x00", b"4", b"\xff" * 100, b"x" * 70_000,
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sent:
    """A frame: ``head`` and ``tail`` go around the ack id, ``attached`` ones follow. ``bare``: there is no such id."""

    name: str
    head: str | bytes
    tail: str = ""
    attached: tuple[bytes, ...] = ()
    bare: bool = False


RESERVED = [
    "connect",
    "disconnect",
    "connect_error",
    "disconnecting",
    "error",
    "*",
    "message",
    "SYNC",
    "newListener",
]
EVENTS = sorted(catalogue.events)
# They end what the other payloads are about: seldom is enough.
ENDING = {"CALL_ENDED", "CALL_REJECT", "CALL_BUSY", "leave-room", "MESSAGE_DELETE"}
# Code points at which texts are taken apart differently: ASCII, controls, marks, right to left, joiners, far planes.
_PLACES = [
    (0x20, 0x7E), (0x00, 0x1F), (0x80, 0xFF), (0x300, 0x36F), (0x590, 0x6FF), (0x200B, 0x206F),
    (0x1F300, 0x1FAFF), (0xFF00, 0xFFEF), (0x10000, 0x10FFFF),
]  # fmt: skip


def value(chance: Random, real: Sequence[str]) -> str:
    """A value that may be anything; ``real`` are ids that there are."""
    return chance.choice(_KINDS)(chance, real)


def text(some: str) -> str:
    """A text as JSON, with escapes for all that is not ASCII."""
    return json.dumps(some)


def _any_text(chance: Random) -> str:
    places = [chance.choice(_PLACES) for _ in range(chance.randint(0, 12))]
    return "".join(chr(chance.randint(first, last)) for first, last in places)


def _number(chance: Random, _: Sequence[str]) -> str:
    bits = chance.getrandbits(64)
    if chance.random() < 0.5:
        return json.dumps(struct.unpack("d", struct.pack("Q", bits))[0])  # NaN and Infinity too
    return str((bits >> chance.randint(0, 63)) * chance.choice((1, -1)))


def _list(chance: Random, _: Sequence[str]) -> str:
    return f"[{','.join(chance.choice(ODD) for _ in range(chance.randint(0, 4)))}]"


def _dictionary(chance: Random, _: Sequence[str]) -> str:
    return _object({chance.choice(TRICKS): chance.choice(ODD) for _ in range(chance.randint(0, 4))})


_KINDS: list[Callable[[Random, Sequence[str]], str]] = [
    lambda chance, _: chance.choice(ODD),
    lambda chance, _: text(chance.choice(TRICKS)),
    lambda chance, real: text(chance.choice(real)),
    lambda chance, _: text(_any_text(chance)),
    _number,
    _list,
    _dictionary,
]


def _object(some: Mapping[str, str]) -> str:
    return "{" + ",".join(f"{text(name)}:{one}" for name, one in some.items()) + "}"


def _good(event: Event, ids: Mapping[str, str]) -> dict[str, str]:
    """A payload that might pass: ids that there are, and what the example says."""
    shape, found = event.takes(), {}
    for name, field in shape.fields.items():
        wire = field.data_key or name
        value = ids.get(wire, shape.example.get(wire))
        if value is not None:
            found[wire] = json.dumps(
                [value] if isinstance(field, fields.List) and isinstance(value, str) else value
            )
    return found


def payload(chance: Random, event: Event, ids: Mapping[str, str]) -> str:
    """An object for an event that might be right but for a field or two: wrong, missing, or too many."""
    real, some = list(ids.values()), _good(event, ids)
    names = [field.data_key or name for name, field in event.takes().fields.items()] or ["x"]
    for _ in range(chance.randint(0, 2)):
        name = chance.choice(names) if chance.random() < 0.8 else chance.choice(TRICKS)
        some[name] = value(chance, real)
    if chance.random() < 0.15:
        some.pop(chance.choice(names), None)
    return _object(some)


def event_frame(chance: Random, ids: Mapping[str, str]) -> Sent:
    """A frame of an event, as the official clients frame it; whatever is in it, it wants one ack."""
    name, real, which = chance.choice(EVENTS), list(ids.values()), chance.random()
    if name in ENDING and chance.random() < 0.9:
        name = "CALL_SYNC"
    if which < 0.05:
        return Sent("broken body", "42", chance.choice(BROKEN))
    if which < 0.10:
        strange = chance.choice([*TRICKS, *RESERVED, _any_text(chance)])
        return Sent("no such event", "42", f"[{text(strange)},{value(chance, real)}]")
    said = text(name.lower() if name.isupper() and chance.random() < 0.1 else name)
    if which < 0.13:
        return Sent(name, "451-", f'[{said},{{"_placeholder":true,"num":0}}]', (chance.randbytes(40),))
    if which < 0.80:
        event = catalogue.event(name)
        assert event is not None
        args = [payload(chance, event, ids)]
    elif which < 0.90:
        args = [value(chance, real)]
    elif which < 0.995:
        args = [value(chance, real) for _ in range(chance.randint(0, 5))]
    else:
        args = [chance.choice(HUGE)]
    return Sent(name, "42", f"[{','.join([said, *args])}]")


def bare_frame(chance: Random) -> Sent:
    """A frame below the events."""
    which = chance.random()
    frame = chance.choice(BARE) if which < 0.6 else _any_text(chance) if which < 0.8 else chance.randbytes(50)
    return Sent("below the events", frame, bare=True)


def frames(chance: Random, ids: Mapping[str, str], number: int, *, bare: bool) -> list[Sent]:
    """So many frames; with ``bare`` some of them break the protocol below the events."""
    return [
        bare_frame(chance) if bare and chance.random() < BARE_SHARE else event_frame(chance, ids)
        for _ in range(number)
    ]
