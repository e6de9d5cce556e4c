"""The verbs of encrypted groups: one commit makes each epoch, and everybody hears of it.

    groups = KeyGroups(store=GroupStore(db), members=chat.members_of, clock=clock, ids=ids)

RFC 9750 §5.2.1 asks this of a delivery service. It cannot judge a commit: when one has left a group that nobody can
go on with, a member begins the next generation. Protocol messages pass between people who have blocked one another,
or each of them would be left with another group.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from models.errors import Refusal
from models.keys.groups.step import BEGINNING, State, Step, Welcome
from models.keys.groups.store import GroupStore
from models.ports import Clock, Device, Ids

# Steps that one turn of the job tells.
RETELL_MAX = 100

# The members of a conversation; nobody, when there is none.
Members = Callable[[str], Awaitable[Collection[str]]]


class Announcer(Protocol):
    """Says steps aloud; saying one again says nothing."""

    async def announce(self, step: Step, members: Collection[str], *, again: bool) -> None:
        """Tell a step to all devices of the members but the one that took it, and its welcomes to theirs."""
        ...


@dataclass(frozen=True, slots=True)
class Page:
    """A stretch of a group's commits; ``more`` when there are later ones."""

    items: Sequence[Step]
    more: bool


class KeyGroups:
    """See the module for its making; ``announcer`` is set by the wiring."""

    def __init__(self, *, store: GroupStore, members: Members, clock: Clock, ids: Ids) -> None:
        self._store = store
        self._members = members
        self._clock = clock
        self._ids = ids
        self.announcer: Announcer

    async def state(self, user_id: str, conversation_id: str) -> State:
        """Where a group stands. Refuses with ``CONVERSATION_UNKNOWN``, also when it is others'."""
        await self._members_for(user_id, conversation_id)
        return await self._store.state(conversation_id)

    async def commit(
        self,
        device: Device,
        conversation_id: str,
        *,
        state: State,
        commit: str,
        welcomes: Sequence[Welcome] = (),
        op_id: str,
    ) -> Step:
        """End the epoch of ``state`` with a commit; nobody else can. The same ``op_id`` again answers alike.

        Refuses with ``CONVERSATION_UNKNOWN``, ``EPOCH_CONFLICT`` (with where the group stands),
        ``VALIDATION_FAILED`` (a welcome for who is no member, two for a device) and ``IDEMPOTENCY_MISMATCH``.
        """
        members = await self._members_for(device.user_id, conversation_id)
        strangers = sorted({one.user_id for one in welcomes} - set(members))
        if strangers:
            raise Refusal("VALIDATION_FAILED", welcome=[f"Not a member: {', '.join(strangers)}."])
        if len({(one.user_id, one.device_id) for one in welcomes}) < len(welcomes):
            raise Refusal("VALIDATION_FAILED", welcome=["Each device once."])
        step = self._step(device, conversation_id, state, commit, tuple(welcomes), op_id)
        return await self._taken(step, members)

    async def reset(self, device: Device, conversation_id: str, *, generation: int, op_id: str) -> Step:
        """Give up on ``generation`` and begin the next, in epoch 0 and with no commits. Refuses as ``commit`` does."""
        members = await self._members_for(device.user_id, conversation_id)
        beginning = State(generation + 1, BEGINNING)
        return await self._taken(self._step(device, conversation_id, beginning, None, (), op_id), members)

    async def commits(
        self, user_id: str, conversation_id: str, *, generation: int | None, after: int, limit: int
    ) -> Page:
        """The commits of a generation (None: the present one) made in later epochs than ``after``, in order.

        Refuses with ``CONVERSATION_UNKNOWN``.
        """
        state = await self.state(user_id, conversation_id)
        found = await self._store.commits(
            conversation_id, generation or state.generation, after=after, most=limit + 1
        )
        return Page(found[:limit], more=len(found) > limit)

    async def tell_untold(self) -> int:
        """Tell steps that a process has left untold; how many. Safe in any number of processes."""
        told = 0
        while told < RETELL_MAX:
            step = await self._store.claim_untold(self._clock.now())
            if step is None:
                break
            await self._tell(step, await self._members(step.conversation_id), again=True)
            told += 1
        return told

    async def _members_for(self, user_id: str, conversation_id: str) -> Collection[str]:
        members = await self._members(conversation_id)
        if user_id not in members:
            raise Refusal("CONVERSATION_UNKNOWN")
        return members

    async def _taken(self, step: Step, members: Collection[str]) -> Step:
        known = await self._store.by_op(step.sender_id, step.op_id)
        if known is None:
            if await self._store.take(step):
                await self._tell(step, members, again=False)
                return step
            # Somebody else's commit, or this one by another request with its opId.
            known = await self._store.by_op(step.sender_id, step.op_id)
        if known is None:
            now = await self._store.state(step.conversation_id)
            raise Refusal("EPOCH_CONFLICT", generation=now.generation, epoch=now.epoch)
        if not known.repeats(step):
            raise Refusal("IDEMPOTENCY_MISMATCH")
        if not await self._store.is_told(known):
            await self._tell(known, members, again=True)
        return known

    async def _tell(self, step: Step, members: Collection[str], *, again: bool) -> None:
        await self.announcer.announce(step, members, again=again)
        await self._store.told(step)

    def _step(
        self,
        device: Device,
        conversation_id: str,
        state: State,
        commit: str | None,
        welcomes: tuple[Welcome, ...],
        op_id: str,
    ) -> Step:
        return Step(
            id=self._ids.new(),
            conversation_id=conversation_id,
            generation=state.generation,
            epoch=state.epoch,
            commit=commit,
            welcomes=welcomes,
            sender_id=device.user_id,
            device_id=device.device_id,
            op_id=op_id,
            at=self._clock.now(),
        )
