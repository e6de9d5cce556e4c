"""Verbs of the trail.

    trail = Trail(store=TrailStore(db), clock=clock)
    async with trail.keeping(act) as note:
        await store.ban(…, also=note.also)      # in its transaction, the last write

The act and its row are one: a refused act leaves no row, and whenever a process dies there are both or neither. After
the commit the row's number and hash are said in the log, so that whoever keeps the log elsewhere can tell that the end
of the trail was cut off, or all of it written anew.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime

import structlog

from models.db import Session
from models.ports import Clock
from models.trail.rules import Act, Anchor, Malformed, Row, Target, Value, Verdict, Walk
from models.trail.search import Wanted
from models.trail.store import TrailStore

log = structlog.get_logger(__name__)

PAGE_MAX = 200


@dataclass(frozen=True, slots=True)
class Page:
    """Rows, newest first. ``before`` is the number below which to go on; None: nothing follows."""

    rows: tuple[Row, ...]
    before: int | None


class Note:
    """A row to be. ``also`` belongs into the transaction of the act, behind all else that may refuse."""

    def __init__(self, trail: Trail, act: Act) -> None:
        self._trail = trail
        self.act = act
        # Behind the ``async with``: the row as it was committed, None where nothing was done.
        self.row: Row | None = None

    def add(self, **details: Value) -> None:
        """Facts that are known only when the act is done; before ``also``."""
        self.act = replace(self.act, details={**self.act.details, **details})

    def about(self, target: Target) -> None:
        """What is acted on, where that is known only when it is done; before ``also``."""
        self.act = replace(self.act, target=target)

    async def also(self, session: Session) -> None:
        """Append the row within the transaction, which may run several times."""
        self.row = await self._trail.append(session, self.act)


class Trail:
    """One per process."""

    def __init__(self, *, store: TrailStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._begun = False

    @asynccontextmanager
    async def keeping(self, act: Act) -> AsyncIterator[Note]:
        """Around an act: the note whose ``also`` joins its transaction. What was committed is said in the log."""
        await self.begin()
        note = Note(self, act)
        yield note
        note.row = await self.say(note.row)

    async def begin(self) -> None:
        """Make sure that there is a head; needed before ``append``. Safe to repeat."""
        if not self._begun:
            await self._store.begin()
            self._begun = True

    async def append(self, session: Session, act: Act) -> Row:
        """Chain a row within a transaction; see ``keeping``, which is the way to call it."""
        return await self._store.append(act, self._clock.now(), session)

    async def record(self, act: Act) -> Row:
        """A row by itself, of an act that is done elsewhere than in the database: before it is done.

        So there may be a row without its act, when somebody else refuses it, and never an act without its row.
        """
        await self.begin()
        row = await self._store.append_alone(act, self._clock.now())
        await self.say(row)
        return row

    async def say(self, row: Row | None) -> Row | None:
        """Say a row in the log, if it was committed; None when it was not."""
        kept = await self._store.row(row.seq) if row is not None else None
        if row is None or kept is None or kept.hash != row.hash:
            return None  # its transaction has changed nothing in the end
        log.info(
            "a row of the trail",
            seq=row.seq,
            hash=row.hash,
            act=row.act,
            actor=row.actor.user_id or row.actor.kind,
            target=row.target.id,
        )
        return row

    # ----------------------------------------------------------------------------------------------------- questions

    async def search(
        self,
        *,
        actor: str | None = None,
        act: str | None = None,
        target: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        text: str | None = None,
        before: int | None = None,
        limit: int = 50,
    ) -> Page:
        """Rows that match all that is given, newest first.

        ``actor`` and ``target`` are an id or a name, compared folded; ``act`` is one or a group (``user``); ``text``
        are words in the reason, the names and the details. A page may be short of ``limit`` and have a ``before``:
        one search looks at a bounded number of rows.
        """
        wanted = Wanted(actor=actor, act=act, target=target, since=since, until=until, text=text)
        rows, place = await self._store.search(wanted, before=before, limit=max(1, min(limit, PAGE_MAX)))
        return Page(tuple(rows), place)

    async def head(self) -> Anchor | None:
        """The number and the hash of the last row; None: there is none yet."""
        found = await self._store.head()
        return found if found is not None and found.seq else None

    async def verify(self, anchor: Anchor | None = None) -> Verdict:
        """Walk all rows and say the first that does not hold, beside what acts go on.

        Without an ``anchor`` a tail that was cut off together with a head that was set back cannot be seen.
        """
        walk = Walk(anchor)
        while True:
            head = await self._store.head()
            most = head.seq - walk.seq if head is not None else None
            async for found in self._store.walk(after=walk.seq, most=most):
                if not walk.step(found):
                    return walk.end(None)
            if head is None:
                # No row and no head: a trail that has not begun.
                return walk.end(Anchor(0, walk.hash) if walk.rows else None)
            later = [one async for one in self._store.walk(after=walk.seq, most=1)]
            if not later or await self._store.head() == head:
                for one in later:  # behind the head, and it has not moved on
                    walk.step(one)
                return walk.end(head)

    async def lines(self, *, after: int = 0) -> AsyncIterator[Row | Malformed]:
        """All rows behind a number, the oldest first, for an export."""
        async for found in self._store.walk(after=after):
            yield found
