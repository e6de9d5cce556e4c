"""How one variable is read: its text, checked, as the type that is wanted. Faults are kept until ``seal``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from environs import Env

from server.config_checks import within
from server.variables import VARIABLES

DEFAULTS = {variable.name: variable.default for variable in VARIABLES}
ONE_OF = "must be one of: {choices}."


class Mapped(Env):
    """environs over a mapping of ours, so that a test need not touch the process's environment."""

    def __init__(self, values: Mapping[str, str]) -> None:
        super().__init__(eager=False)  # collect every fault instead of stopping at the first
        self._given = {name: value.strip() for name, value in values.items() if value.strip()}

    def _get_value(self, env_key: str, default: Any) -> Any:
        return self._given.get(env_key, default)


def whole(read: Env, name: str, least: int, most: int) -> int:
    # A fault is kept by environs and told by seal(); until then the default stands in.
    parsed = parse(read, name, within(least, most), default=DEFAULTS[name])
    return cast(int, parsed) if parsed is not None else int(DEFAULTS[name])


def optional_whole(read: Env, name: str, least: int, most: int) -> int | None:
    return cast("int | None", parse(read, name, within(least, most), default=None))


def optional(read: Env, name: str, check: Callable[[str], None] | None = None) -> str | None:
    return read.str(name, None, validate=check)


def words(read: Env, name: str, default: tuple[str, ...], check: Callable[[str], None]) -> tuple[str, ...]:
    def split(text: str) -> tuple[str, ...]:
        found = tuple(dict.fromkeys(word.strip() for word in text.split(",") if word.strip()))
        if found == ("none",):
            return ()
        for word in found:
            check(word)
        return found

    parsed = parse(read, name, split, default=None)
    return cast(tuple[str, ...], parsed) if parsed is not None else default


def parse(read: Env, name: str, parser: Callable[[str], Any], default: str | None) -> Any:
    """`parser` applied to the variable's text. None when it is not set and has no default, or has a fault."""
    if not hasattr(read, f"parse_{name}"):
        read.add_parser(f"parse_{name}", lambda text, **_: None if text is None else parser(text))
    return getattr(read, f"parse_{name}")(name, default)
