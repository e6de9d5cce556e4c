"""Commits of encrypted groups with a real database: one makes each epoch, and everybody hears of it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

import pytest

from handlers.keys_groups import GROUP_COMMIT, GROUP_RESET, GROUP_WELCOME, GroupTeller
from models.db import Database
from models.errors import Refusal
from models.keys.groups import store
from models.keys.groups.service import KeyGroups
from models.keys.groups.step import State, Step, Welcome
from models.keys.groups.store import STEPS, TELL_SECONDS, GroupStore
from models.mailbox.service import Mailbox
from models.mailbox.store import LETTERS, MailboxStore
from models.ports import Device
from tests.fakes import CountingIds, FakeDoors, VirtualClock
from tests.services.accounts_house import code_of
from tests.services.callkit import Killed, Mortal

ANN, BOB, EVE, GROUP = "ann", "bob", "eve", "group-1"


class World:
    """A group of two, and processes that order its commits."""

    def __init__(self, db: Database, clock: VirtualClock, ids: CountingIds, doors: FakeDoors) -> None:
        self.db, self.clock, self.ids, self.doors = db, clock, ids, doors
        self.mailbox = Mailbox(MailboxStore(db), doors, clock)
        self.members: dict[str, tuple[str, ...]] = {GROUP: (ANN, BOB)}
        self.groups = self.process()

    def process(self, db: Any = None, announcer: Any = None) -> KeyGroups:
        groups = KeyGroups(
            store=GroupStore(db or self.db), members=self._members, clock=self.clock, ids=self.ids
        )
        groups.announcer = announcer or GroupTeller(self.mailbox)
        return groups

    async def _members(self, conversation_id: str) -> Collection[str]:
        return self.members.get(conversation_id, ())

    async def log(self, user_id: str) -> list[tuple[str, int, int]]:
        """What the durable log tells somebody: event, generation, epoch."""
        rows = self.db[LETTERS].find({"user_id": user_id}, sort=[("seq", 1)])
        return [(row["event"], row["payload"]["generation"], row["payload"]["epoch"]) async for row in rows]

    async def commit(self, by: str, epoch: int, *, generation: int = 1, **more: Any) -> Step:
        ask: dict[str, Any] = {"commit": f"{by} {epoch}", "op_id": f"{by}:{generation}:{epoch}", **more}
        return await self.groups.commit(device(by), GROUP, state=State(generation, epoch), **ask)


@pytest.fixture
def world(db: Database, clock: VirtualClock, ids: CountingIds, doors: FakeDoors) -> World:
    return World(db, clock, ids, doors)


def device(user_id: str, name: str = "phone") -> Device:
    return Device(user_id=user_id, device_id=name, session_id="s", process=None)


async def refused(work: Any) -> Refusal:
    with pytest.raises(Refusal) as no:
        await work
    return no.value


async def test_e64_of_two_commits_for_one_epoch_one_is_accepted_and_the_other_is_told_where_the_group_is(
    world: World,
) -> None:
    await world.commit(ANN, 0)
    no = await refused(world.commit(BOB, 0))
    assert (no.code, no.details) == ("EPOCH_CONFLICT", {"generation": 1, "epoch": 1})
    assert (await world.commit(BOB, 1)).after == State(1, 2)


async def test_e64_of_many_commits_at_several_processes_each_epoch_takes_one(world: World) -> None:
    processes = [world.process() for _ in range(3)]
    won: list[int] = []

    async def goes_on(groups: KeyGroups, by: str, name: str) -> None:
        epoch = 0
        while epoch < 6:
            try:
                step = await groups.commit(
                    device(by, name), GROUP, state=State(1, epoch), commit=name, op_id=f"{name}:{epoch}"
                )
                won.append(step.epoch)
                epoch = step.after.epoch
            except Refusal as no:
                epoch = no.details["epoch"]

    await asyncio.gather(*(goes_on(processes[n % 3], (ANN, BOB)[n % 2], f"device {n}") for n in range(6)))
    assert sorted(won) == list(range(6))
    assert [event for event, *_ in await world.log(ANN)] == [GROUP_COMMIT] * 6
    page = await world.groups.commits(BOB, GROUP, generation=None, after=-1, limit=50)
    assert [step.epoch for step in page.items] == list(range(6))


@pytest.mark.parametrize("epoch", [1, 7])
async def test_nobody_commits_in_an_epoch_that_is_not_there_yet(world: World, epoch: int) -> None:
    no = await refused(world.commit(ANN, epoch))
    assert (no.code, no.details) == ("EPOCH_CONFLICT", {"generation": 1, "epoch": 0})


async def test_every_device_hears_of_a_commit_but_the_one_that_made_it(world: World) -> None:
    for user, name in ((ANN, "phone"), (ANN, "tablet"), (BOB, "phone"), (EVE, "phone")):
        world.doors.connect(user, name)
    await world.commit(ANN, 0)
    assert world.doors.told(ANN, "phone") == world.doors.told(EVE, "phone") == []
    assert world.doors.told(ANN, "tablet") == [GROUP_COMMIT]
    assert world.doors.last(BOB, "phone", GROUP_COMMIT) == {
        "conversationId": GROUP,
        "generation": 1,
        "epoch": 0,
        "commit": "ann 0",
        "sender": ANN,
        "deviceId": "phone",
        "createdAt": "2026-03-01T12:00:00.000Z",
    }


async def test_a_welcome_goes_to_its_device_alone(world: World) -> None:
    tablet, phone = world.doors.connect(BOB, "tablet"), world.doors.connect(BOB, "phone")
    welcome = Welcome(user_id=BOB, device_id="tablet", body="d2VsY29tZQ==")
    await world.commit(ANN, 0, welcomes=[welcome])
    assert [letter.event for letter in phone] == [GROUP_COMMIT]
    assert [letter.event for letter in tablet] == [GROUP_COMMIT, GROUP_WELCOME]
    assert world.doors.last(BOB, "tablet", GROUP_WELCOME) == {
        "conversationId": GROUP,
        "generation": 1,
        "epoch": 1,
        "body": "d2VsY29tZQ==",
        "sender": ANN,
        "senderDeviceId": "phone",
    }


async def test_the_loser_of_an_epoch_welcomes_nobody(world: World) -> None:
    await world.commit(ANN, 0)
    welcome = Welcome(user_id=ANN, device_id="tablet", body="x")
    assert (await refused(world.commit(BOB, 0, welcomes=[welcome]))).code == "EPOCH_CONFLICT"
    assert [event for event, *_ in await world.log(ANN)] == [GROUP_COMMIT]


async def test_a_commit_sent_twice_is_one_and_another_under_its_op_id_is_refused(world: World) -> None:
    inbox = world.doors.connect(BOB, "phone")
    first = await world.commit(ANN, 0)
    world.clock.pass_(3600)
    await world.commit(BOB, 1)
    assert await world.commit(ANN, 0) == first
    assert [letter.event for letter in inbox] == [GROUP_COMMIT]
    assert await code_of(world.commit(ANN, 0, commit="other")) == "IDEMPOTENCY_MISMATCH"
    assert await code_of(world.commit(ANN, 2, op_id="ann:1:0")) == "IDEMPOTENCY_MISMATCH"


async def test_strangers_and_those_who_left_see_and_change_nothing(world: World) -> None:
    await world.commit(ANN, 0)
    groups = world.groups
    for conversation_id in (GROUP, "no such group"):
        for work in (
            groups.commit(device(EVE), conversation_id, state=State(1, 1), commit="x", op_id="1"),
            groups.reset(device(EVE), conversation_id, generation=1, op_id="2"),
            groups.state(EVE, conversation_id),
            groups.commits(EVE, conversation_id, generation=None, after=-1, limit=5),
        ):
            assert await code_of(work) == "CONVERSATION_UNKNOWN"
    world.members[GROUP] = (ANN,)
    assert await code_of(world.commit(BOB, 1)) == "CONVERSATION_UNKNOWN"


async def test_only_members_are_welcomed_and_each_device_once(world: World) -> None:
    stranger = Welcome(user_id=EVE, device_id="phone", body="x")
    assert await code_of(world.commit(ANN, 0, welcomes=[stranger])) == "VALIDATION_FAILED"
    twice = [Welcome(user_id=BOB, device_id="phone", body=body) for body in "xy"]
    assert await code_of(world.commit(ANN, 0, welcomes=twice)) == "VALIDATION_FAILED"
    assert await world.groups.state(ANN, GROUP) == State(1, 0)


async def test_who_was_away_catches_up_page_by_page(world: World) -> None:
    for epoch in range(5):
        await world.commit((ANN, BOB)[epoch % 2], epoch)
    found, after = [], 0
    while True:
        page = await world.groups.commits(BOB, GROUP, generation=1, after=after, limit=2)
        found += [step.epoch for step in page.items]
        after = found[-1]
        if not page.more:
            break
    assert found == [1, 2, 3, 4]


async def test_a_group_that_is_stuck_begins_again_once(world: World) -> None:
    await world.commit(ANN, 0)
    await world.commit(ANN, 1)
    for user in (ANN, BOB):
        world.doors.connect(user, "phone")
    one, two = await asyncio.gather(
        world.process().reset(device(ANN), GROUP, generation=1, op_id="again"),
        world.process().reset(device(BOB), GROUP, generation=1, op_id="again"),
        return_exceptions=True,
    )
    no = one if isinstance(one, Refusal) else two
    done = two if isinstance(one, Refusal) else one
    assert isinstance(no, Refusal)
    assert isinstance(done, Step)
    assert (no.code, no.details) == ("EPOCH_CONFLICT", {"generation": 2, "epoch": 0})
    other = BOB if done.sender_id == ANN else ANN
    assert world.doors.told(done.sender_id, "phone") == []
    payload = world.doors.last(other, "phone", GROUP_RESET)
    assert (payload["generation"], payload["epoch"], payload["sender"]) == (2, 0, done.sender_id)
    assert await code_of(world.commit(ANN, 2)) == "EPOCH_CONFLICT"
    await world.commit(ANN, 0, generation=2)
    page = await world.groups.commits(BOB, GROUP, generation=None, after=-1, limit=50)
    assert [(step.generation, step.epoch) for step in page.items] == [(2, 0)]
    assert await world.db[STEPS].count_documents({"generation": 1}) == 0, "worth nothing any more"


async def test_a_reset_sent_twice_is_one(world: World) -> None:
    first = await world.groups.reset(device(ANN), GROUP, generation=1, op_id="r")
    assert await world.groups.reset(device(ANN), GROUP, generation=1, op_id="r") == first
    assert await world.groups.state(BOB, GROUP) == State(2, 0)


async def test_only_so_many_commits_are_kept(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "COMMITS_KEPT", 3)
    for epoch in range(6):
        await world.commit(ANN, epoch)
    page = await world.groups.commits(BOB, GROUP, generation=None, after=0, limit=50)
    assert [step.epoch for step in page.items] == [3, 4, 5]


async def test_wherever_a_process_dies_a_commit_is_made_once_and_told_to_all(world: World) -> None:
    epoch = -1
    for dies_at in range(1, 40):
        mortal = Mortal(world.db)
        mortal.dies_at = dies_at
        op_id, state = f"op {dies_at}", await world.groups.state(ANN, GROUP)
        ask: dict[str, Any] = {"state": state, "commit": f"c{dies_at}", "op_id": op_id}
        ask["welcomes"] = [Welcome(user_id=BOB, device_id="tablet", body="x")]
        try:
            await world.process(mortal).commit(device(ANN), GROUP, **ask)
        except Killed:
            if dies_at % 2:  # the phone sends it again
                await world.process().commit(device(ANN), GROUP, **ask)
            else:  # it does not, and the job finds what is there
                world.clock.pass_(TELL_SECONDS)
                await world.groups.tell_untold()
        epoch = (await world.groups.state(ANN, GROUP)).epoch
        log = await world.log(BOB)
        assert [place for event, _, place in log if event == GROUP_COMMIT] == list(range(epoch))
        assert [place for event, _, place in log if event == GROUP_WELCOME] == list(range(1, epoch + 1))
        if not mortal.dead:
            break
    else:
        pytest.fail("a commit has fewer steps")
    assert epoch > 3
    world.clock.pass_(TELL_SECONDS)
    assert await world.groups.tell_untold() == 0
