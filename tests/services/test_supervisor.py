"""What keeps several processes (``server.supervisor``), with children that do nothing but come and go."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from server import supervisor
from server.supervisor import Child, Supervisor
from tests.doors.serverprocess import eventually

SERVES = "import sys; print('ready', flush=True); sys.stdin.read()"
DIES_AT_ONCE = "print('ready', flush=True)"
NEVER_READY = "import sys; sys.stdin.read()"


@dataclass
class Kept:
    """A supervisor that runs, and the way to end it."""

    children: Supervisor
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    def alive(self) -> list[int]:
        return sorted(child.number for child in self.children._children if child.process.returncode is None)

    def oldest(self) -> Child:
        return min(self.children._children, key=lambda child: child.number)

    def settled(self) -> bool:
        """Nothing goes on but the watching of those that serve."""
        there = self.children._children
        on_the_way = self.children._rolling.locked() or not all(child.begun.is_set() for child in there)
        return not on_the_way and len(self.children._work) == len(there) == len(self.alive())


@asynccontextmanager
async def keeping(count: int, program: str = SERVES) -> AsyncIterator[Kept]:
    kept = Kept(Supervisor([sys.executable, "-c", program], {}, count))
    running = asyncio.create_task(kept.children.run(kept.stop))
    try:
        yield kept
    finally:
        kept.stop.set()
        await running
        assert not kept.children._children


def when_next_is_started(kept: Kept, happens: Callable[[], None]) -> None:
    """``happens`` once, just when the next child is on its way."""
    start = kept.children._serves

    async def serves(child: Child) -> bool:
        kept.children._serves = start  # type: ignore[method-assign]
        happens()
        return await start(child)

    kept.children._serves = serves  # type: ignore[method-assign]


async def test_one_start_that_fails_in_the_system_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    async with keeping(2) as kept:
        assert await kept.children.start()
        there, kept.children._command[0] = kept.children._command[0], str(tmp_path / "nothing")
        tried = asyncio.Event()
        monkeypatch.setattr(supervisor.log, "error", lambda what, **_: "cannot" in what and tried.set())
        kept.oldest().process.kill()
        await asyncio.wait_for(tried.wait(), 10)
        kept.children._command[0] = there
        await eventually(lambda: kept.settled() and len(kept.alive()) == 2, what="there are two again")


async def test_each_has_a_number_of_its_own() -> None:
    async with keeping(4) as kept:
        assert await kept.children.start()
        assert kept.alive() == [1, 2, 3, 4]


async def test_a_first_start_that_fails_in_the_system_is_a_failed_start(tmp_path: Path) -> None:
    async with keeping(2) as kept:
        kept.children._command[0] = str(tmp_path / "nothing")
        assert not await kept.children.start()


@pytest.mark.parametrize("which", [0, 1, 2], ids=["the one replaced", "the next", "the last"])
async def test_a_crash_while_all_are_replaced_leaves_none_too_many(which: int) -> None:
    async with keeping(3) as kept:
        assert await kept.children.start()
        victim = sorted(kept.children._children, key=lambda child: child.number)[which]
        when_next_is_started(kept, victim.process.kill)
        kept.children.roll()
        await eventually(lambda: victim not in kept.children._children and kept.settled())
        assert len(kept.alive()) == 3
        assert min(kept.alive()) > 3


async def test_one_that_is_on_its_way_when_all_are_replaced_is_replaced_once() -> None:
    async with keeping(2) as kept:
        assert await kept.children.start()
        when_next_is_started(kept, kept.children.roll)
        kept.oldest().process.kill()
        await eventually(lambda: min(kept.alive(), default=0) > 3 and kept.settled())
        assert len(kept.alive()) == 2


async def test_the_wait_grows_while_children_serve_and_die(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        if seconds == 30:
            await asyncio.Event().wait()

    monkeypatch.setattr(supervisor.asyncio, "sleep", sleep)
    async with keeping(1, DIES_AT_ONCE) as kept:
        assert await kept.children.start()
        await eventually(lambda: len(waits) >= 5, what="five have died")
    assert waits[:5] == [0.2, 1.0, 3.0, 10.0, 30.0]


async def test_who_has_lived_is_replaced_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "LIVED_SECONDS", -1.0)
    monkeypatch.setattr(supervisor, "BACK_OFF_SECONDS", (60.0,))
    async with keeping(1, DIES_AT_ONCE) as kept:
        assert await kept.children.start()
        await eventually(lambda: kept.children._numbers >= 4, what="the fourth is there")


async def test_a_stop_while_they_start_starts_no_more() -> None:
    async with keeping(3, NEVER_READY) as kept:
        when_next_is_started(kept, kept.stop.set)
        assert not await asyncio.wait_for(kept.children.start(), 10)
        assert kept.children._numbers == 1
    async with keeping(3) as kept:
        first = kept.children._serves

        async def serves(child: Child) -> bool:
            """The first is there; the stop comes while the others are on their way."""
            if child.number == 2:
                kept.stop.set()
            return await first(child)

        kept.children._serves = serves  # type: ignore[method-assign]
        assert not await asyncio.wait_for(kept.children.start(), 10)
