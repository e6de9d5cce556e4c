"""How one variable is read: its text, checked, as the type that is wanted. Faults are kept until ``seal``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from environs import Env

from server.config_checks import within
from server.variables import VARIABLES

DEFAULTS = {variable.name: variable.default for variable in VARIABLES}
ONE_OF = "must be one of: {choices}."
# Every secret is also read from the file that NAME_FILE names, as orchestrators hand them to a container.
FILE = "_FILE"
# The longest secret is a service account's JSON of some 2 KB; another file is a mistake.
FILE_BYTES_MAX = 64 * 1024


def with_files(env: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """`env` with the secrets that stand in files, and the faults of those: variable → end of a sentence.

    No sentence holds any of a file's content. One newline at the end of a file is not part of the secret.
    """
    values, faults = dict(env), {}
    for variable in VARIABLES:
        name = variable.name + FILE
        path = env.get(name, "").strip()
        if not variable.secret or not path:
            continue
        if env.get(variable.name, "").strip():
            faults[name] = f"is set, and {variable.name} as well: take one of the two away."
            continue
        try:
            values[variable.name] = _content(Path(path).expanduser())
        except OSError as fault:
            faults[name] = f"names a file that cannot be read: {fault.strerror or type(fault).__name__}."
        except ValueError as fault:
            faults[name] = f"names a file that {fault}."
    return values, faults


def _content(path: Path) -> str:
    with path.open("rb") as file:
        raw = file.read(FILE_BYTES_MAX + 1)
    if len(raw) > FILE_BYTES_MAX:
        raise ValueError(f"is larger than {FILE_BYTES_MAX // 1024} KiB")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("is not text in UTF-8") from None
    text = text.removesuffix("\n").removesuffix("\r")
    if not text.strip():
        raise ValueError("is empty")
    if "\0" in text:
        raise ValueError("has a NUL byte")
    return text


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
