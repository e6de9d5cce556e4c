"""Statements of a period and what they are made into; spending and income by kind and month."""

from __future__ import annotations

import asyncio
import csv
import io
import re
import threading
import zlib
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import Any

import pytest

from models.db import Database
from models.ledger.journal import (
    EXCHANGE_POOL,
    Entry,
    Kind,
    Leg,
    Pocket,
    account_of,
    clearing,
    wallet_key,
)
from models.papers.rules import Flow, Statement, harmless, months_of, period_of
from models.papers.service import Papers
from models.papers.store import PaperStore
from models.wallet.rules import Amount
from server.adapters import paper as drawing
from server.adapters import printer
from server.adapters.paper import pdf_of, plain
from server.adapters.printer import FilePrinter
from tests.fakes import CountingIds, VirtualClock
from tests.services.wallet_house import ANN, BOB, EVE, House, Process, refused

KEY = wallet_key(ANN, "NGN")
LAGOS = "Africa/Lagos"


class Desk:
    """A house with papers; entries are posted at whatever time a test says."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.printer = FilePrinter()
        self.papers = self.of(house.one)
        self.number = 0

    def of(self, process: Process) -> Papers:
        return Papers(
            store=PaperStore(process.db),
            wallets=process.wallets,
            users=self.house.users,
            printer=self.printer,
            clock=self.house.clock,
        )

    async def post(
        self,
        minor: int,
        at: datetime | None = None,
        *,
        pocket: Pocket = Pocket.PRIMARY,
        kind: Kind = Kind.DEPOSIT,
        other: str | None = None,
        note: str | None = None,
    ) -> None:
        """Money that comes from or goes to somewhere."""
        self.number += 1
        entry = Entry(
            id=f"test:{self.number}",
            kind=kind,
            at=at or self.house.clock.now(),
            legs=(
                Leg(EXCHANGE_POOL if kind is Kind.EXCHANGE else clearing("test"), -minor, "NGN"),
                Leg(account_of(KEY, pocket), minor, "NGN"),
            ),
            counterparties={KEY: other} if other else {},
            note=note,
        )
        await self.house.one.ledger.post([KEY], lambda _: [entry])

    async def move(self, source: Pocket, target: Pocket, minor: int, kind: Kind) -> None:
        """Money between the pockets of the wallet."""
        self.number += 1
        legs = (Leg(account_of(KEY, source), -minor, "NGN"), Leg(account_of(KEY, target), minor, "NGN"))
        entry = Entry(id=f"test:{self.number}", kind=kind, at=self.house.clock.now(), legs=legs)
        await self.house.one.ledger.post([KEY], lambda _: [entry])

    async def statement(self, first: date | None = None, last: date | None = None, **more: Any) -> Statement:
        ask: dict[str, Any] = {"zone": "UTC", "currency": None, "most": 1000, **more}
        return await self.papers.statement(ANN, first=first, last=last, **ask)

    async def file(self, format: str, **more: Any) -> bytes:
        ask: dict[str, Any] = {"first": None, "last": None, "zone": "UTC", "currency": None, **more}
        return (await self.papers.file(ANN, format=format, **ask))[1]

    async def rows(self, **more: Any) -> list[dict[str, str]]:
        text = (await self.file("csv", **more)).decode("utf-8-sig")
        return list(csv.DictReader(io.StringIO(text, newline="")))


@pytest.fixture
async def desk(db: Database, clock: VirtualClock, ids: CountingIds) -> AsyncIterator[Desk]:
    """Ann with an empty wallet on the first of March, 2026, at noon."""
    house = House(db, clock, ids)
    for user, name in ((ANN, "ann"), (BOB, "bob"), (EVE, "eve")):
        await house.add_user(user, name)
    await house.rich(ANN, 1)
    await house.one.ledger.post([KEY], lambda _: [])
    made = Desk(house)
    await made.post(-1)
    yield made
    await made.printer.close()


def day(n: int, month: int = 3) -> date:
    return date(2026, month, n)


def text_of(pdf: bytes) -> str:
    """What a PDF of ours shows, piece by piece."""
    found = []
    for stream in re.findall(rb"stream\r?\n(.*?)\r?\nendstream", pdf, re.DOTALL):
        shown = re.findall(rb"\((.*?)(?<!\\)\) Tj", zlib.decompress(stream), re.DOTALL)
        found += [re.sub(rb"\\(.)", rb"\1", one).decode("windows-1252") for one in shown]
    return "\n".join(found)


# ---------------------------------------------------------------------------------------------------------- statement


async def test_a_statement_begins_with_what_was_there_and_ends_with_what_is(
    desk: Desk, clock: VirtualClock
) -> None:
    await desk.post(5_000)
    clock.pass_(86_400)
    await desk.post(700, pocket=Pocket.CREDITS)
    await desk.post(-1_200, kind=Kind.WITHDRAWAL)
    clock.pass_(86_400)
    await desk.post(9_999)
    made = await desk.statement(day(2), day(2))
    assert [line.amount_minor for line in made.lines] == [700, -1_200]
    primary, credits = made.accounts["primary"], made.accounts["call_credits"]
    assert (primary.opening_minor, primary.outgoing_minor, primary.closing_minor) == (5_000, 1_200, 3_800)
    assert (credits.opening_minor, credits.incoming_minor, credits.closing_minor) == (0, 700, 700)


async def test_days_without_lines_still_know_the_balance(desk: Desk, clock: VirtualClock) -> None:
    await desk.post(5_000)
    before = await desk.statement(day(1, 2), day(20, 2))
    clock.pass_(5 * 86_400)
    after = await desk.statement(day(4), day(5))
    assert before.lines == after.lines == []
    assert before.accounts["primary"].closing_minor == 0
    assert after.accounts["primary"].opening_minor == after.accounts["primary"].closing_minor == 5_000


async def test_a_day_is_a_day_of_the_time_zone(desk: Desk) -> None:
    """23:30 in UTC is half past midnight in Lagos."""
    await desk.post(1, datetime(2026, 3, 4, 23, 30, tzinfo=UTC))
    for zone, where in (("UTC", 4), (LAGOS, 5)):
        for n in (3, 4, 5, 6):
            made = await desk.statement(day(n), day(n), zone=zone)
            assert len(made.lines) == (n == where), (zone, n)
    line = made.lines or (await desk.statement(day(5), day(5), zone=LAGOS)).lines
    assert made.when(line[0]).isoformat() == "2026-03-05T00:30:00+01:00"


async def test_without_days_it_is_the_month_until_today(desk: Desk, clock: VirtualClock) -> None:
    clock.pass_(10 * 86_400)
    period = (await desk.statement()).period
    assert (period.first, period.last) == (day(1), day(11))
    period = (await desk.statement(last=day(5, 2))).period
    assert (period.first, period.last) == (day(1, 2), day(5, 2))


async def test_e104_what_is_posted_late_is_in_one_period_only_and_every_period_begins_where_the_one_before_ended(
    desk: Desk, clock: VirtualClock
) -> None:
    """An entry has the time of its fact, and a call that a dead process left behind is settled hours later."""
    chance = Random(3)
    expected = 0
    for _ in range(60):
        clock.pass_(chance.randint(1, 6 * 3600))
        late = timedelta(seconds=chance.choice([0, 0, 0, 5, 3600, 30 * 3600]))
        pocket = Pocket.CREDITS if chance.random() < 0.1 else Pocket.PRIMARY
        await desk.post(chance.randint(1, 500), clock.now() - late, pocket=pocket)
        expected += 1
    for days in (1, 2, 5):
        seen: list[str] = []
        balance = credits = 0
        first = day(1) - timedelta(days=3)
        while first < day(31):
            made = await desk.statement(first, first + timedelta(days=days - 1))
            primary = made.accounts["primary"]
            assert primary.opening_minor == balance, first
            assert made.accounts["call_credits"].opening_minor == credits, first
            balance, credits = primary.closing_minor, made.accounts["call_credits"].closing_minor
            for before, after in zip(made.lines, made.lines[1:], strict=False):
                assert after.version > before.version
                if before.account == after.account:
                    assert after.balance_after_minor == before.balance_after_minor + after.amount_minor
            seen += [line.id for line in made.lines]
            first += timedelta(days=days)
        assert len(seen) == len(set(seen)) == expected + 2
        assert balance == (await desk.house.wallets.wallet(ANN)).primary


async def test_holds_are_not_in_it(desk: Desk) -> None:
    await desk.post(5_000)
    await desk.move(Pocket.PRIMARY, Pocket.PRIMARY_HELD, 500, Kind.HOLD)
    await desk.move(Pocket.PRIMARY_HELD, Pocket.PRIMARY, 500, Kind.RELEASE)
    made = await desk.statement()
    assert [line.kind for line in made.lines][-1] == "deposit"
    assert made.accounts["primary"].closing_minor == 5_000


@pytest.mark.parametrize(
    ("first", "last", "zone"),
    [
        (day(2), day(1), "UTC"),
        (date(2025, 3, 1), day(2), "UTC"),
        (date(1999, 3, 1), date(1999, 3, 2), "UTC"),
        (date(3000, 3, 1), date(3000, 3, 2), "UTC"),
        (date(1, 1, 1), date(1, 1, 2), "Pacific/Auckland"),
        (date(9999, 12, 31), date(9999, 12, 31), "UTC"),
        (None, None, "Mars/Olympus"),
        (None, None, "../../etc/passwd"),
        (None, None, "Africa"),
        (None, None, ""),
        (None, None, "Africa/Lagos\x00"),
        (None, None, "/etc/localtime"),
    ],
)
async def test_what_is_no_period_is_refused(
    desk: Desk, first: date | None, last: date | None, zone: str
) -> None:
    assert (await refused(desk.statement(first, last, zone=zone))).code == "VALIDATION_FAILED"


async def test_more_lines_than_a_file_may_have_are_refused_and_not_cut_off(desk: Desk) -> None:
    for _ in range(5):
        await desk.post(10)
    assert len((await desk.statement(most=7)).lines) == 7
    assert (await refused(desk.statement(most=6))).code == "VALIDATION_FAILED"


async def test_the_lines_of_a_period_are_found_by_an_index(desk: Desk, db: Database) -> None:
    for _ in range(30):
        await desk.post(10)
    plan = (
        await db["journal"]
        .find(
            {
                "seals.wallet": KEY,
                "at": {"$gte": datetime(2026, 3, 1, tzinfo=UTC)},
                "seals.lines.account": {"$exists": True},
            },
            sort=[("at", 1)],
        )
        .limit(5)
        .explain()
    )
    said = str(plan["queryPlanner"]["winningPlan"])
    assert "seals.wallet_1_at_1" in said
    assert "'SORT'" not in said
    assert plan["executionStats"]["totalKeysExamined"] <= 10


# --------------------------------------------------------------------------------------------------------------- CSV


async def test_a_csv_has_a_row_for_each_line_with_decimals_and_names(desk: Desk) -> None:
    await desk.post(123_456, other=BOB, note="rent")
    row = (await desk.rows())[-1]
    assert row["amount"] == row["balance_after"] == "1234.56"
    assert (row["kind"], row["account"], row["counterparty"], row["note"], row["currency"]) == (
        *("deposit", "primary", "bob", "rent", "NGN"),
    )
    assert row["time"] == "2026-03-01T12:00:00+00:00"


@pytest.mark.parametrize(
    "note",
    [
        "=1+1",
        "+1",
        "-1",
        "@SUM(A1)",
        "\t=1",
        "  =1",
        '=HYPERLINK("http://x","y")',
        "=cmd|' /C calc'!A0",
        "|calc",
        "%00",
    ],
)
async def test_e105_what_people_write_is_never_a_formula(desk: Desk, note: str) -> None:
    await desk.post(5, note=note)
    assert (await desk.rows())[-1]["note"] == f"'{note}"


@pytest.mark.parametrize("note", ["", "plain", 'a "quoted", note', "two\nlines", "1+1=2", "日本語 ọ̀"])
async def test_anything_else_is_what_they_wrote(desk: Desk, note: str) -> None:
    await desk.post(5, note=note)
    assert (await desk.rows())[-1]["note"] == note
    assert harmless(note) == note


# --------------------------------------------------------------------------------------------------------------- PDF


async def test_a_pdf_says_whose_it_is_what_moved_and_what_is_left(desk: Desk) -> None:
    await desk.post(500_000)
    await desk.post(-123_400, kind=Kind.TRANSFER, other=BOB, note="For the (late) lunch")
    shown = text_of(await desk.file("pdf", zone=LAGOS))
    for text in ("Statement", "Ann", "Africa/Lagos", "Paid in", "To Bob", "For the (late) lunch"):
        assert text in shown, text
    assert "NGN 5,000.00" in shown
    assert "-NGN 1,234.00" in shown
    assert "NGN 3,766.00" in shown


async def test_the_same_statement_is_the_same_file(desk: Desk, clock: VirtualClock) -> None:
    await desk.post(500_000)
    for format in ("csv", "pdf"):
        one = await desk.file(format, first=day(1), last=day(9))
        clock.pass_(3600)
        assert await desk.file(format, first=day(1), last=day(9)) == one
    await desk.post(1)
    assert await desk.file("pdf", first=day(1), last=day(9)) != one


async def test_a_pdf_without_lines_says_so(desk: Desk) -> None:
    assert "Nothing has moved in these days." in text_of(await desk.file("pdf", first=day(5), last=day(6)))


async def test_long_statements_have_numbered_pages_with_headings(desk: Desk) -> None:
    await desk.post(500_000)
    one = (await desk.statement()).lines[-1]
    made = replace(await desk.statement(), lines=[one] * 100)
    shown = text_of(pdf_of(made))
    pages = len(re.findall(r"Page \d+ of", shown))
    assert pages == 4
    assert f"Page 4 of \n{pages}" in shown
    assert Counter(shown.splitlines())["DATE"] == pages
    assert Counter(shown.splitlines())["Paid in"] == 100


async def test_letters_that_the_page_does_not_have_lose_their_accents_or_are_told_otherwise(
    desk: Desk,
) -> None:
    assert plain("Adébáyọ̀ Ọlá") == "Adébáyo Olá"
    assert plain("Zoë – €5 “ok”") == "Zoë – €5 “ok”"
    assert plain("陈伟\x07\n x") == "??? x"
    await desk.post(5, kind=Kind.TRANSFER, other=BOB, note="陈 ẹ")
    for name, said in (("Ẹniọlá", "From Eniolá"), ("陈伟", "From bob"), ("who?", "From who?")):
        await desk.house.db["users"].update_one({"_id": BOB}, {"$set": {"display_name": name}})
        shown = text_of(await desk.file("pdf"))
        assert said in shown
        assert "? e" in shown


async def test_every_kind_of_line_has_words(desk: Desk) -> None:
    await desk.post(5)
    line = (await desk.statement()).lines[-1]
    bob = await desk.house.users.profile(BOB)
    for kind in Kind:
        for who in (None, bob):
            said = drawing.said_of(replace(line, kind=kind.value), who)
            assert said[0].isupper()
            assert "_" not in said
            assert "{" not in said


async def test_the_printer_takes_no_more_than_it_can_print(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    statement, paper = await desk.statement(), threading.Event()

    def slow(statement: Statement) -> bytes:
        paper.wait(30)
        return pdf_of(statement)

    monkeypatch.setattr(drawing, "pdf_of", slow)
    taken = [asyncio.create_task(desk.printer.pdf(statement)) for _ in range(printer.QUEUE_MAX)]
    await asyncio.sleep(0)
    assert (await refused(desk.printer.pdf(statement))).code == "SERVER_BUSY"
    assert (await refused(desk.printer.csv(statement))).code == "SERVER_BUSY"
    paper.set()
    assert len({*await asyncio.gather(*taken)}) == 1
    assert (await desk.printer.pdf(statement)).startswith(b"%PDF-")


# --------------------------------------------------------------------------------------------------------- analytics


async def test_spending_and_income_are_added_up_by_kind_and_month_of_the_time_zone(
    desk: Desk, clock: VirtualClock
) -> None:
    last_of_february = datetime(2026, 2, 28, 23, 30, tzinfo=UTC)  # in Lagos it is March already
    await desk.post(1_000, last_of_february)
    await desk.post(200, datetime(2026, 1, 15, tzinfo=UTC))
    await desk.post(-300, kind=Kind.TRANSFER)
    await desk.post(50, kind=Kind.TRANSFER)
    await desk.post(-70, kind=Kind.CAPTURE)
    await desk.post(20, kind=Kind.CAPTURE)  # the call was shorter than it was taken for
    await desk.post(5_000, datetime(2025, 12, 31, tzinfo=UTC))
    found = await desk.papers.analytics(ANN, months=3, zone="UTC", currency=None)
    assert list(found.months) == ["2026-01", "2026-02", "2026-03"]
    assert found.months["2026-01"] == {"deposit": Flow(200, 0, 1)}
    assert found.months["2026-02"] == {"deposit": Flow(1_000, 0, 1)}
    assert found.months["2026-03"] == {
        "call": Flow(0, 50, 2),
        "deposit": Flow(1, 1, 2),
        "transfer": Flow(50, 300, 2),
    }
    lagos = await desk.papers.analytics(ANN, months=2, zone=LAGOS, currency=None)
    assert lagos.months["2026-02"] == {}
    assert lagos.months["2026-03"]["deposit"] == Flow(1_001, 1, 3)


async def test_money_between_ones_own_accounts_is_neither(desk: Desk) -> None:
    await desk.post(5_000)
    await desk.move(Pocket.PRIMARY, Pocket.CREDITS, 2_000, Kind.CREDITS)
    await desk.move(Pocket.PRIMARY, Pocket.PRIMARY_HELD, 500, Kind.HOLD)
    found = await desk.papers.analytics(ANN, months=1, zone="UTC", currency=None)
    assert list(found.months["2026-03"]) == ["deposit"]


async def test_of_a_wallet_only_its_own_side_counts(desk: Desk) -> None:
    await desk.post(5_000)
    await desk.house.move(amount=Amount(minor=1_500))
    for user, flow in ((ANN, Flow(0, 1_500, 1)), (BOB, Flow(1_500, 0, 1))):
        found = await desk.papers.analytics(user, months=1, zone="UTC", currency=None)
        assert found.months["2026-03"]["transfer"] == flow


def test_months_and_days_follow_the_clocks_of_the_place() -> None:
    now = datetime(2026, 11, 1, 3, 30, tzinfo=UTC)  # still October in New York
    assert [name for name, _ in months_of(3, "America/New_York", now)] == [
        *("2026-08", "2026-09", "2026-10", "2026-11"),
    ]
    period = period_of(date(2026, 3, 8), date(2026, 3, 8), "America/New_York", now)
    assert period.end - period.start == timedelta(hours=23)
    assert [name for name, _ in months_of(1, "UTC", datetime(2026, 12, 5, tzinfo=UTC))] == [
        *("2026-12", "2027-01"),
    ]
