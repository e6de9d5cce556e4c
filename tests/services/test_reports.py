"""Reports with a real database: one of each thing, told to all administrators, closed by one of them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from handlers.reports import REPORT_FILED, ReportsTeller
from models.auth.stewards import Stewards
from models.auth.store import AccountStore
from models.chat.message import Message
from models.db import Database
from models.errors import Refusal
from models.mailbox.service import Mailbox
from models.mailbox.store import LETTERS, MailboxStore
from models.presence.service import Presence
from models.reports import rules
from models.reports.report import Reason, Report, Resolution, State
from models.reports.service import Reports
from models.reports.store import LEASE_SECONDS, REPORTS, ReportStore
from models.trail.service import Trail
from models.trail.store import TrailStore
from models.users.service import Users
from models.users.store import USERS, UserStore
from tests.fakes import CountingIds, FakeDoors, VirtualClock
from tests.services.accounts_house import BY, code_of
from tests.services.callkit import Killed, Mortal, Town

ANN, BOB, EVE, ADMIN, OTHER_ADMIN = "ann", "bob", "eve", "mod-a", "mod-b"


class World:
    """Three people and two administrators; messages are those in ``messages``, seen by Ann and Bob."""

    def __init__(self, db: Database, clock: VirtualClock, ids: CountingIds, doors: FakeDoors) -> None:
        self.db, self.clock, self.ids, self.doors = db, clock, ids, doors
        self.mailbox = Mailbox(MailboxStore(db), doors, clock)
        self.messages: dict[str, Message] = {}
        self.reports = self.process()

    def trail(self, db: Any = None) -> Trail:
        return Trail(store=TrailStore(db or self.db), clock=self.clock)

    def process(self, db: Any = None) -> Reports:
        way: Any = db or self.db
        people = UserStore(way)
        reports = Reports(
            store=ReportStore(way),
            users=Users(store=people, clock=self.clock),
            evidence=self._evidence,
            stewards=Stewards(
                store=AccountStore(way), people=people, trail=self.trail(way), clock=self.clock, ids=self.ids
            ),
            trail=self.trail(way),
            clock=self.clock,
            ids=self.ids,
        )
        presence: Any = Presence(self.doors, lambda user_id: False)
        reports.announcer = ReportsTeller(mailbox=self.mailbox, presence=presence)
        return reports

    async def _evidence(self, user_id: str, message_id: str) -> Message:
        if user_id not in (ANN, BOB, EVE) or message_id not in self.messages:
            raise Refusal("MESSAGE_UNKNOWN")
        return self.messages[message_id]

    def says(self, message_id: str, text: str, sender_id: str = EVE) -> None:
        self.messages[message_id] = Message(
            id=message_id,
            conversation_id="c1",
            seq=1,
            sender_id=sender_id,
            device_id="phone",
            op_id=message_id,
            text=text,
            created_at=self.clock.now(),
        )

    async def of_message(self, by: str = ANN, message_id: str = "m1", **more: Any) -> Report:
        ask: dict[str, Any] = {"reason": Reason.FRAUD, "comment": None, **more}
        return await self.reports.file_message(by, message_id, **ask)

    async def of_user(self, by: str = ANN, user_id: str = EVE, **more: Any) -> Report:
        ask: dict[str, Any] = {"reason": Reason.SPAM, "comment": None, **more}
        return await self.reports.file_user(by, user_id, **ask)

    async def close(self, report: Report, by: str | None = ADMIN, **more: Any) -> Report:
        ask: dict[str, Any] = {"resolution": Resolution.DISMISSED, "note": None, "version": 1, **more}
        return (await self.reports.close(by, report.id, **ask)).report

    async def status(self, user_id: str) -> str:
        row = await self.db[USERS].find_one({"_id": user_id})
        assert row is not None
        return str(row["status"])

    async def log(self, user_id: str) -> list[str]:
        """The ids of the reports that somebody was told of."""
        rows = self.db[LETTERS].find({"user_id": user_id, "event": REPORT_FILED}, sort=[("seq", 1)])
        return [row["payload"]["report"]["id"] async for row in rows]


@pytest.fixture
async def world(db: Database, clock: VirtualClock, ids: CountingIds, doors: FakeDoors) -> World:
    await Town(db, clock, ids).people(ANN, BOB, EVE, ADMIN, OTHER_ADMIN)
    await db[USERS].update_many({"_id": {"$in": [ADMIN, OTHER_ADMIN]}}, {"$set": {"role": "admin"}})
    built = World(db, clock, ids, doors)
    built.says("m1", "Send me your PIN.")
    return built


# ------------------------------------------------------------------------------------------------------------- filing


async def test_every_administrator_hears_of_a_report_and_the_reported_person_of_nothing(world: World) -> None:
    inboxes = {user: world.doors.connect(user, "phone") for user in (ANN, EVE, ADMIN, OTHER_ADMIN)}
    report = await world.of_message(comment="He asks everybody.")
    for admin in (ADMIN, OTHER_ADMIN):
        (letter,) = inboxes[admin]
        told = letter.payload["report"]
        assert (letter.event, told["id"], told["state"]) == (REPORT_FILED, report.id, "open")
        assert (told["reporter"]["id"], told["reported"]["id"]) == (ANN, EVE)
        assert (told["comment"], told["evidence"]["text"]) == ("He asks everybody.", "Send me your PIN.")
    assert inboxes[ANN] == inboxes[EVE] == []
    assert await world.log(EVE) == []


async def test_a_reported_administrator_neither_hears_of_it_nor_reads_it(world: World) -> None:
    inboxes = {user: world.doors.connect(user, "phone") for user in (ADMIN, OTHER_ADMIN)}
    report = await world.of_user(user_id=ADMIN)
    assert [len(inboxes[user]) for user in (ADMIN, OTHER_ADMIN)] == [0, 1]
    assert await world.log(ADMIN) == []
    for state in (None, State.OPEN):
        listed = [
            (await world.reports.some(state, before=None, limit=9, reader_id=reader)).items
            for reader in (ADMIN, OTHER_ADMIN, None)
        ]
        assert [len(items) for items in listed] == [0, 1, 1]
    assert await code_of(world.reports.one(report.id, reader_id=ADMIN)) == "REPORT_UNKNOWN"
    assert (await world.reports.one(report.id, reader_id=OTHER_ADMIN)).report == report


async def test_what_happens_to_the_message_later_changes_nothing_in_the_report(world: World) -> None:
    report = await world.of_message()
    world.messages["m1"] = replace(world.messages["m1"], text=None, deleted_at=world.clock.now(), version=2)
    kept = (await world.reports.one(report.id)).report
    assert kept == report
    assert kept.evidence is not None
    assert kept.evidence.text == "Send me your PIN."
    assert rules.digest_of(kept.evidence) == kept.evidence.sha256


async def test_the_same_thing_again_is_the_same_open_report(world: World) -> None:
    inbox = world.doors.connect(ADMIN, "phone")
    first = await world.of_message()
    assert await world.of_message(reason=Reason.OTHER, comment="again") == first
    others = [await world.of_user(), await world.of_message(BOB)]
    assert len({report.id for report in (first, *others)}) == 3
    assert len(inbox) == 3
    await world.close(first)
    again = await world.of_message()
    assert again.id != first.id, "what was closed can be reported anew"


async def test_the_same_report_at_two_processes_at_once_is_one(world: World) -> None:
    inbox = world.doors.connect(ADMIN, "phone")
    processes = [world.process() for _ in range(3)]
    filed = await asyncio.gather(
        *(processes[n % 3].file_user(ANN, EVE, reason=Reason.SPAM, comment=str(n)) for n in range(9))
    )
    assert len({report.id for report in filed}) == 1
    assert await world.db[REPORTS].count_documents({}) == 1
    assert {letter.seq for letter in inbox} == {1}, "one letter, which the doors hand to a device once"


async def test_who_and_what_cannot_be_reported(world: World) -> None:
    world.says("mine", "Hello", sender_id=ANN)
    assert await code_of(world.of_message(message_id="nothing")) == "MESSAGE_UNKNOWN"
    assert await code_of(world.of_message(by=ADMIN)) == "MESSAGE_UNKNOWN", (
        "it is not a conversation of theirs"
    )
    assert await code_of(world.of_message(message_id="mine")) == "SELF_NOT_ALLOWED"
    assert await code_of(world.of_user(user_id=ANN)) == "SELF_NOT_ALLOWED"
    assert await code_of(world.of_user(user_id="nobody")) == "USER_UNKNOWN"
    assert await world.db[REPORTS].count_documents({}) == 0


async def test_a_block_keeps_nobody_from_reporting(world: World) -> None:
    await UserStore(world.db).block(EVE, ANN, world.clock.now())
    assert (await world.of_user()).reported_id == EVE


async def test_fifty_reports_a_day_even_if_asked_at_once_at_several_processes(world: World) -> None:
    for n in range(60):
        world.says(f"n{n}", "spam")
    for n in range(45):
        await world.of_message(message_id=f"n{n}")
    processes = [world.process() for _ in range(3)]
    filed = await asyncio.gather(
        *(
            processes[n % 3].file_message(ANN, f"n{n}", reason=Reason.SPAM, comment=None)
            for n in range(45, 60)
        ),
        return_exceptions=True,
    )
    refused = [no for no in filed if isinstance(no, Refusal)]
    assert {no.code for no in refused} == {"RATE_LIMITED"}
    assert len(refused) == 10
    assert refused[0].retry_after_ms == 12 * 3600 * 1000
    assert await world.of_message(BOB, "n0"), "another's day is their own"
    assert await world.of_message(message_id="n0"), "what is open already costs nothing"
    world.clock.pass_(12 * 3600)
    open_before = await world.db[REPORTS].count_documents({"reporter_id": ANN})
    world.says("tomorrow", "spam")
    await world.of_message(message_id="tomorrow")
    assert await world.db[REPORTS].count_documents({"reporter_id": ANN}) == open_before + 1 == 51


# ------------------------------------------------------------------------------------------------------------ closing


async def test_reports_are_listed_by_state_newest_first_page_by_page(world: World) -> None:
    for n in range(5):
        world.says(f"n{n}", "spam")
    filed = [(await world.of_message(message_id=f"n{n}")).id for n in range(5)]
    await world.close((await world.reports.one(filed[2])).report)
    first = await world.reports.some(State.OPEN, before=None, limit=3)
    assert ([one.report.id for one in first.items], first.more) == ([filed[4], filed[3], filed[1]], True)
    rest = await world.reports.some(State.OPEN, before=filed[1], limit=3)
    assert ([one.report.id for one in rest.items], rest.more) == ([filed[0]], False)
    closed = await world.reports.some(State.CLOSED, before=None, limit=3)
    assert [one.report.id for one in closed.items] == [filed[2]]
    assert len((await world.reports.some(None, before=None, limit=10)).items) == 5


async def test_of_two_administrators_at_once_one_closes_it(world: World) -> None:
    report = await world.of_message()
    done = await asyncio.gather(
        world.process().close(ADMIN, report.id, version=1, resolution=Resolution.WARNED, note=None),
        world.process().close(OTHER_ADMIN, report.id, version=1, resolution=Resolution.BANNED, note=None),
        return_exceptions=True,
    )
    (no,) = [one for one in done if isinstance(one, Refusal)]
    assert no.code == "REPORT_CLOSED"
    kept = (await world.reports.one(report.id)).report
    assert kept.closing is not None
    banned = kept.closing.resolution is Resolution.BANNED
    assert await world.status(EVE) == ("banned" if banned else "active"), "what was refused does nothing"


async def test_the_same_closing_again_answers_alike(world: World) -> None:
    report = await world.of_message()
    first = await world.close(report, note="why")
    world.clock.pass_(60)
    assert await world.close(report, note="why") == first
    assert await code_of(world.close(report, note="other")) == "REPORT_CLOSED"


async def test_only_a_ban_bans(world: World) -> None:
    for resolution, status in (
        (Resolution.DISMISSED, "active"),
        (Resolution.WARNED, "active"),
        (Resolution.BANNED, "banned"),
    ):
        await world.close(await world.of_user(), resolution=resolution)
        assert await world.status(EVE) == status
    assert await world.db["revocations"].count_documents({"user_id": EVE, "code": "ACCOUNT_BANNED"}) == 1


async def test_a_ban_of_somebody_who_is_gone_is_done(world: World) -> None:
    report = await world.of_user()
    personal = dict.fromkeys(
        ("email", "email_key", "phone", "username_key", "display_key", "password_hash"), ""
    )
    await world.db[USERS].update_one({"_id": EVE}, {"$set": {"status": "deleted"}, "$unset": personal})
    closed = await world.close(report, resolution=Resolution.BANNED)
    assert closed.state is State.CLOSED
    world.clock.pass_(LEASE_SECONDS)
    assert await world.reports.run_owed() == 0


async def test_nobody_judges_a_report_of_themselves(world: World) -> None:
    report = await world.of_user(user_id=ADMIN)
    assert await code_of(world.close(report, by=ADMIN)) == "FORBIDDEN"
    assert (await world.close(report, by=OTHER_ADMIN)).state is State.CLOSED
    assert await code_of(world.close(replace(report, id="nothing"))) == "REPORT_UNKNOWN"


# ------------------------------------------------------------------------------------------------------------- deaths


async def test_wherever_a_process_dies_a_report_is_filed_once_and_told_to_all(world: World) -> None:
    for dies_at in range(1, 30):
        mortal = Mortal(world.db)
        mortal.dies_at = dies_at
        world.says(f"d{dies_at}", "spam")
        ask: dict[str, Any] = {"reason": Reason.SPAM, "comment": None}
        try:
            await world.process(mortal).file_message(ANN, f"d{dies_at}", **ask)
        except Killed:
            world.clock.pass_(LEASE_SECONDS)
            if dies_at % 2:
                await world.reports.run_owed()
            await world.reports.file_message(ANN, f"d{dies_at}", **ask)
        filed = [one.report.id for one in (await world.reports.some(None, before=None, limit=50)).items]
        assert len(filed) == dies_at
        for admin in (ADMIN, OTHER_ADMIN):
            assert sorted(await world.log(admin)) == sorted(filed)
        if not mortal.dead:
            break
    else:
        pytest.fail("filing has fewer steps")
    world.clock.pass_(LEASE_SECONDS)
    assert await world.reports.run_owed() == 0


async def test_wherever_a_process_dies_a_ban_that_was_decided_is_done(world: World) -> None:
    stewards = Stewards(
        store=AccountStore(world.db),
        people=UserStore(world.db),
        trail=world.trail(),
        clock=world.clock,
        ids=world.ids,
    )
    for dies_at in range(1, 30):
        report = await world.of_user()
        mortal = Mortal(world.db)
        mortal.dies_at = dies_at
        ask: dict[str, Any] = {"version": 1, "resolution": Resolution.BANNED, "note": None}
        try:
            await world.process(mortal).close(ADMIN, report.id, **ask)
        except Killed:
            world.clock.pass_(LEASE_SECONDS)
            if dies_at % 2:
                await world.reports.run_owed()
        decided = (await world.reports.one(report.id)).report.state is State.CLOSED
        if dies_at % 2 or not mortal.dead:
            assert await world.status(EVE) == ("banned" if decided else "active")
        await world.reports.close(ADMIN, report.id, **ask)
        assert await world.status(EVE) == "banned"
        world.clock.pass_(LEASE_SECONDS)
        assert await world.reports.run_owed() == 0
        await stewards.unban(EVE, **BY)
        if not mortal.dead:
            break
    else:
        pytest.fail("closing has fewer steps")
