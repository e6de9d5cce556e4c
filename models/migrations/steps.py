"""The migrations, in their order. What is here has been run somewhere: nothing is moved, renamed or taken away."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from types import ModuleType

from models.db import Database


@dataclass(frozen=True, slots=True)
class Migration:
    """One of them: its name, which begins with its number, what it does in a sentence, and the work."""

    name: str
    says: str
    run: Callable[[Database], Awaitable[None]]


def _of(module: ModuleType) -> Migration:
    name = module.__name__.rpartition(".")[2].removeprefix("m")
    return Migration(name, (module.__doc__ or "").partition("\n")[0], module.run)


MODULES: Sequence[ModuleType] = ()
MIGRATIONS: Sequence[Migration] = tuple(_of(module) for module in MODULES)
