"""A server in a process of its own, as many hostile frames as are wanted, and its memory meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import aiohttp

from tests.doors.serverprocess import ServerProcess, rss_mb
from tests.fuzz.attack import Attack
from tests.fuzz.payloads import frames

# Frames on their way at the same time.
BATCH = 25
# One batch in so many also breaks the protocol below the events.
BARE_EVERY = 10
# Batches, after which there is a call again, a message, and both are in their room.
SETTLE_EVERY = 20
LOOKS = 50
# Until this share of a run a server's memory grows by what it keeps once: caches, pools, its allocator's arenas.
WARM_SHARE = 0.2
# A fuzz is not there to be told that it is too fast; another test shows that floods are.
NO_LIMITS = {"EVENTS_PER_SECOND": "1000000", "ACCESS_TOKEN_SECONDS": "86400", "LOG_LEVEL": "warning"}


@dataclass
class Siege:
    """An attack on a server, and the server's memory: (frames sent, resident set in MiB)."""

    attack: Attack
    server: ServerProcess
    runner: asyncio.Runner
    memory: list[tuple[int, float]] = field(default_factory=list)
    batches: int = 0

    def batch(self, chance: Random) -> None:
        """Send a batch, and look at its answers."""
        bare = self.batches % BARE_EVERY == BARE_EVERY - 1
        self.runner.run(self.attack.send(frames(chance, self.attack.ids, BATCH, bare=bare)))
        self.batches += 1
        if self.batches % SETTLE_EVERY == 0:
            self.runner.run(self.attack.settle())

    def look(self) -> None:
        """Look at the server's memory."""
        self.memory.append((self.attack.sent, rss_mb(self.server.pid)))

    @property
    def warm(self) -> float:
        """Memory of the server when it was warm, in MiB: the most that it took until then."""
        last = self.memory[-1][0]
        return max(mib for sent, mib in self.memory if sent <= last * WARM_SHARE)

    @property
    def grown(self) -> float:
        """By how much the memory has grown since, in MiB."""
        return self.memory[-1][1] - self.warm

    def end(self) -> None:
        """The server is well, and has found no fault of its own."""
        self.runner.run(self.attack.healthy())
        self.runner.run(self.attack.settle())
        self.look()
        said = self.server.log()
        assert "unforeseen fault" not in said, said[-3000:]


@contextmanager
def siege(folder: Path, *, mongo_uri: str | None = None) -> Iterator[Siege]:
    """An attack on a server of its own in ``folder``."""
    server = ServerProcess(folder, mongo_uri=mongo_uri, database=f"fuzz-{folder.name}", **NO_LIMITS)
    with asyncio.Runner() as runner:
        try:
            server.start()
            attack = runner.run(_begun(server.address))
            try:
                yield Siege(attack, server, runner)
            finally:
                runner.run(attack.end())
        finally:
            server.stop()


async def _begun(url: str) -> Attack:
    attack = Attack(url, aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)))
    await attack.begin()
    return attack


def run(folder: Path, *, number: int, seed: int, told: Callable[[int], None]) -> Siege:
    """Send ``number`` frames. AssertionError at the first that is not answered, or not well."""
    chance, batches = Random(seed), -(-number // BATCH)
    with siege(folder) as found:
        for done in range(batches):
            found.batch(chance)
            if done % max(1, batches // LOOKS) == 0:
                found.look()
                told(found.attack.sent)
        found.end()
        return found
