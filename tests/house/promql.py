"""Enough of PromQL to see that a query can be meant: its brackets, its functions, and which series it asks for."""

from __future__ import annotations

import re
from dataclasses import dataclass

FUNCTIONS = frozenset(
    """
    absent avg bottomk ceil changes clamp_max clamp_min count delta floor histogram_quantile increase irate
    label_replace max min quantile rate resets round scalar sort stddev sum time topk vector
    """.split()
)
WORDS = frozenset("and or unless by without on ignoring group_left group_right bool offset".split())
_TOKEN = re.compile(
    r"""(?P<text>"(?:[^"\\]|\\.)*") | (?P<span>\[\d+[smhd]\]) | (?P<number>\d+(?:\.\d+)?(?:[smhd]\b)?)
    | (?P<name>[A-Za-z_][A-Za-z0-9_]*) | (?P<sign>=~|!~|==|!=|>=|<=|[-+*/%^<>(){},=]) | (?P<space>\s+)""",
    re.VERBOSE,
)
_PAIRS = {")": "(", "}": "{"}


@dataclass(frozen=True)
class Asked:
    """A series that a query asks for, with the label matchers on it (name, operator, value)."""

    metric: str
    matchers: tuple[tuple[str, str, str], ...]


def read(query: str) -> tuple[list[Asked], set[str]]:
    """The series that a query asks for, and the labels it groups by. ``ValueError`` where it cannot be meant."""
    tokens, at = [], 0
    while at < len(query):
        found = _TOKEN.match(query, at)
        if found is None:
            raise ValueError(f"{query!r} has {query[at]!r}, which is nothing")
        at = found.end()
        if found.lastgroup != "space":
            tokens.append((str(found.lastgroup), found[0]))
    _balanced(query, tokens)
    asked, grouped, number = [], set(), 0
    while number < len(tokens):
        kind, text = tokens[number]
        after = tokens[number + 1][1] if number + 1 < len(tokens) else ""
        number += 1
        if kind != "name":
            continue
        if text in ("by", "without", "on", "ignoring"):
            end = number + [one for _, one in tokens[number:]].index(")")
            grouped |= {one for what, one in tokens[number:end] if what == "name"}
            number = end + 1
        elif text in FUNCTIONS and (after == "(" or after in WORDS):
            continue
        elif text not in WORDS:
            if after == "(":
                raise ValueError(f"{query!r} calls {text}, which is no function")
            matchers: list[tuple[str, str, str]] = []
            if after == "{":
                end = number + [one for _, one in tokens[number:]].index("}")
                matchers = _matchers(query, tokens[number + 1 : end])
                number = end + 1
            asked.append(Asked(text, tuple(matchers)))
    return asked, grouped


def _matchers(query: str, tokens: list[tuple[str, str]]) -> list[tuple[str, str, str]]:
    found = []
    for start in range(0, len(tokens), 4):
        (name, label), (_, sign), (text, value) = tokens[start : start + 3]
        if (name, text) != ("name", "text") or sign not in ("=", "!=", "=~", "!~"):
            raise ValueError(f"{query!r} matches labels by {label}{sign}{value}")
        if tokens[start + 3 : start + 4] not in ([], [("sign", ",")]):
            raise ValueError(f"{query!r} lacks a comma between labels")
        found.append((label, sign, value[1:-1]))
    return found


def _balanced(query: str, tokens: list[tuple[str, str]]) -> None:
    open_ = []
    for kind, text in tokens:
        if kind == "sign" and text in "({":
            open_.append(text)
        elif kind == "sign" and text in ")}" and (not open_ or open_.pop() != _PAIRS[text]):
            raise ValueError(f"{query!r} closes what is not open")
    if open_:
        raise ValueError(f"{query!r} leaves {open_[-1]} open")
