"""Posting letters and replaying what a device missed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from models.mailbox.store import PAGE_MAX, MailboxStore
from models.ports import Clock, Courier, Doors, Letter, NoCourier

# How far behind a device may be and still be brought up by the log. Beyond it, reading the histories is less to send.
CATCH_UP_MAX = 10_000

# How far ``fetch`` looks back: more than the job's turn, a stalled loop and the clocks' difference together.
FETCH_SECONDS = 10
# A process that stood still for longer has lost its phones, which come back and say what they have.
STOOD_STILL_SECONDS_MAX = 60
FETCHED_MAX = 50_000


@dataclass(frozen=True, slots=True)
class Missed:
    """What a device missed: the first ``letters`` in order, the user's last number, and whether older ones are gone.

    ``upto`` is the number up to which the log was looked at, ``count`` how many letters there are for the device in
    all: where ``upto`` is below ``seq`` the next ones come by ``Mailbox.next``.
    """

    letters: tuple[Letter, ...]
    seq: int
    gap: bool
    upto: int
    count: int


@dataclass(frozen=True, slots=True)
class Stretch:
    """Letters for a device that follow on from somewhere, in order, and the number up to which these are all."""

    letters: tuple[Letter, ...]
    upto: int


class ThrownAway(Exception):
    """What was to be told has become too old while it was being told."""


class Mailbox:
    """The verbs of the log."""

    def __init__(
        self, store: MailboxStore, doors: Doors, clock: Clock, courier: Courier | None = None
    ) -> None:
        self._store = store
        self._doors = doors
        self._clock = clock
        self._courier = courier or NoCourier()
        self._fetched: OrderedDict[tuple[str, int], None] = OrderedDict()
        self._looked_at: datetime | None = None

    async def post(self, letters: Sequence[Letter], *, again: bool = False) -> None:
        """Keep the letters that have a key, then tell all to the devices that are connected.

        The letters of one user keep their order, also where some are kept and some are not. One whose key is known
        was told before and is not told twice, except with ``again`` (after a crash, when nobody knows whether it was
        told): then it goes out under the number it has, by which the doors know which devices have it.
        """
        if all(letter.key is None for letter in letters):
            await self._doors.deliver(letters)  # nothing to keep, nothing to wait for
            self._courier.carry(letters)
            return
        kept = [letter for letter in letters if letter.key is not None]
        numbers = iter(await self._numbered(kept, again))
        told = []
        for letter in letters:
            seq = next(numbers) if letter.key is not None else None
            if letter.key is None or seq is not None:
                told.append(replace(letter, seq=seq))
        await self._doors.deliver(told)
        self._courier.carry(told)

    async def say_here(self, letters: Sequence[Letter]) -> None:
        """Tell the devices connected here, and nobody else: other processes say the same to theirs."""
        await self._doors.deliver(letters)

    def heard(self, letters: Sequence[Letter]) -> None:
        """The devices connected here have been told what another process has posted: ``fetch`` need not."""
        for letter in letters:
            if letter.seq is not None:
                self._fetched[letter.user_id, letter.seq] = None

    async def _numbered(self, letters: list[Letter], again: bool) -> list[int | None]:
        """Keep letters; the number of each, None for one that is not to be told."""
        now = self._clock.now()
        known = await self._store.numbers_of(letters) if again else {}
        numbers = [known.get((letter.user_id, letter.key or "")) for letter in letters]
        left = [place for place, number in enumerate(numbers) if number is None]
        if len(left) == 1:
            new = [await self._store.append(letters[left[0]], now)]
        else:
            new = await self._store.append_all([letters[place] for place in left], now)
        for place, number in zip(left, new, strict=True):
            letter = letters[place]
            if number is None and again and letter.key is not None:  # somebody else was quicker
                number = await self._store.number_of(letter.user_id, letter.key)
            numbers[place] = number
        return numbers

    async def redact(self, user_ids: Collection[str], key: str, changes: Mapping[str, Any]) -> None:
        """Change fields in the payloads of kept letters: of ``key`` itself and of what follows it after a colon.

        For what must not be kept any more; who was told it knows it all the same.
        """
        await self._store.redact(user_ids, key, changes)

    async def holders(self, user_ids: Collection[str], key: str) -> set[str]:
        """Those of the users in whose log is a letter of ``key``, or of what follows it after a colon."""
        return await self._store.holders(user_ids, key) if user_ids else set()

    async def missed(self, user_id: str, device_id: str, since: int | None) -> Missed:
        """What ``device_id`` has not handled after number ``since``; nothing for a device that never had a number.

        ``gap`` says that letters between ``since`` and the first one here are gone (too old, too many), or that
        ``since`` is not a number of this log: the app reads the histories instead.
        """
        if since is None:
            head = await self._store.head(user_id)
            return Missed((), head, gap=False, upto=head, count=0)
        letters = await self._store.since(user_id, since)
        head = (letters[-1].seq or 0) if letters else await self._store.head(user_id)
        if not letters and since < head:
            # Gone, or posted between the two looks.
            letters = await self._store.since(user_id, since)
            head = (letters[-1].seq or 0) if letters else head
        # A first letter that does not follow on, none of those there were, or a number from another life.
        gap = letters[0].seq != since + 1 if letters else since != head
        upto, further = head, 0
        if len(letters) >= PAGE_MAX:
            head = await self._store.head(user_id)
            if head - since > CATCH_UP_MAX:
                return Missed((), head, gap=True, upto=head, count=0)
            further = await self._store.count_for(user_id, device_id, after=upto, upto=head)
        mine = tuple(x for x in letters if _is_for(x, device_id))
        return Missed(mine, head, gap, upto=upto, count=len(mine) + further)

    async def next(self, user_id: str, device_id: str, after: int) -> Stretch:
        """The letters for a device that follow number ``after``, as many as one look brings.

        Raises ``ThrownAway`` when some of them are gone: between two looks they have become too old. Whoever connects
        anew with ``after`` is then told that there is a gap.
        """
        letters = await self._store.since(user_id, after)
        if letters[0].seq != after + 1 if letters else await self._store.trimmed_to(user_id) > after:
            raise ThrownAway(f"letters after {after} are gone")
        upto = (letters[-1].seq or after) if letters else after
        return Stretch(tuple(x for x in letters if _is_for(x, device_id)), upto)

    async def fetch(self) -> list[Letter]:
        """Tell the devices connected here what other processes have posted lately; those letters.

        This is what several processes have without a broker, in a rolling restart: late by one turn of the job, but
        nothing lost. A device that was greeted meanwhile is not told again what its replay brought.
        """
        now = self._clock.now()
        # From the look before on: this process may have stood still meanwhile, and its phones are still here.
        looked = max(self._looked_at or now, now - timedelta(seconds=STOOD_STILL_SECONDS_MAX))
        recent = self._store.from_others(looked - timedelta(seconds=FETCH_SECONDS))
        fresh = [x async for x in recent if (x.user_id, x.seq or 0) not in self._fetched]
        for letter in fresh:
            self._fetched[letter.user_id, letter.seq or 0] = None
        while len(self._fetched) > FETCHED_MAX:
            self._fetched.popitem(last=False)
        self._looked_at = now
        await self._doors.deliver(fresh)
        return fresh

    async def rings(self, user_id: str, call_ids: list[str]) -> tuple[Letter, ...]:
        """The ring letters of calls that ring now, for a device that connects in the middle of the ring."""
        return tuple(await self._store.of_calls(user_id, call_ids, "CALL_REQUEST")) if call_ids else ()

    async def trim(self) -> int:
        """Throw away what is too old; how many letters went."""
        return await self._store.trim(self._clock.now())


def _is_for(letter: Letter, device_id: str) -> bool:
    return letter.only_device in (None, device_id) and letter.except_device != device_id
