"""Statements as files and analytics by REST, and the entity tags with which an app shows them offline."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest

from tests.doors.conftest import House, Person, Reply
from tests.doors.test_rest_fx import fund, rich
from tests.services.wallet_house import PIN

pytestmark = pytest.mark.asyncio(loop_scope="module")

STATEMENT, ANALYTICS = "/api/wallet/statement", "/api/wallet/analytics"
TAGGED = [
    "/api/wallet",
    "/wallet",
    "/api/wallets",
    "/api/wallet/transactions",
    "/transactions",
    "/api/wallet/transactions?limit=1",
    ANALYTICS,
]


async def paid(rest: House, ann: Person, bob: Person, minor: int, note: str = "lunch") -> None:
    body = {"to": bob.id, "amountMinor": minor, "pin": PIN, "note": note}
    sent = await ann.post("/api/wallet/transfer", body, headers={"Idempotency-Key": f"{ann.id}{minor}"})
    assert sent.status == 201, sent.body


async def binary(person: Person, path: str, **headers: str) -> tuple[int, Any, bytes]:
    sent = {"Authorization": f"Bearer {person.token}", **headers}
    async with person.house.http.get(person.house.url + path, headers=sent) as answer:
        return answer.status, answer.headers, await answer.read()


# ------------------------------------------------------------------------------------------------------- entity tags


@pytest.mark.parametrize("path", TAGGED)
async def test_whoever_has_it_is_told_only_that_it_is_so_still(rest: House, path: str) -> None:
    ann, bob = await rich(rest), await rich(rest)
    first = await ann.get(path)
    assert (first.status, first.headers["Cache-Control"]) == (200, "private, no-cache")
    tag = first.headers["ETag"]
    assert tag.startswith('W/"')
    for header in (tag, tag.removeprefix("W/"), f'"other", {tag}', "*"):
        same = await ann.get(path, headers={"If-None-Match": header})
        assert (same.status, same.body, same.headers["ETag"]) == (304, "", tag)
        assert same.headers["Cache-Control"] == "private, no-cache"
    for header in ('"other"', tag[:-2] + '"', ""):
        assert (await ann.get(path, headers={"If-None-Match": header})).body == first.body
    await paid(rest, ann, bob, 500)
    other = await ann.get(path, headers={"If-None-Match": tag})
    assert other.status == 200
    assert other.headers["ETag"] != tag
    assert (await bob.get(path, headers={"If-None-Match": other.headers["ETag"]})).status == 200


async def test_a_refusal_has_no_tag_and_is_not_kept(rest: House) -> None:
    ann = await rest.person("ann")
    no = await ann.get("/api/wallet", headers={"If-None-Match": "*"})
    no.error(404, "WALLET_UNKNOWN")
    assert ("ETag" in no.headers, no.headers["Cache-Control"]) == (False, "no-store")
    (await rest.send("GET", "/api/wallet", headers={"If-None-Match": "*"})).error(401, "TOKEN_MISSING")


async def test_other_answers_are_kept_nowhere(rest: House) -> None:
    ann = await rest.person("ann")
    other = await ann.get("/api/auth/profile")
    assert ("ETag" in other.headers, other.headers["Cache-Control"]) == (False, "no-store")


# --------------------------------------------------------------------------------------------------------- statements


async def test_e105_a_statement_is_a_file_to_be_saved(rest: House) -> None:
    ann, bob = await rich(rest), await rich(rest)
    await paid(rest, ann, bob, 1_234, note="=lunch")
    today = f"{rest.clock.now():%Y-%m-%d}"
    status, headers, content = await binary(ann, f"{STATEMENT}?from={today}&to={today}")
    assert (status, headers["Content-Type"]) == (200, "text/csv; charset=utf-8")
    assert headers["Content-Disposition"] == f'attachment; filename="statement-NGN-{today}-{today}.csv"'
    rows = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline="")))
    assert [(row["kind"], row["amount"], row["note"]) for row in rows] == [
        ("deposit", "10000.00", ""),
        ("transfer", "-12.34", "'=lunch"),
    ]
    assert rows[1]["counterparty"] == bob.username
    status, headers, content = await binary(ann, f"{STATEMENT}?format=pdf&timeZone=Africa/Lagos")
    assert (status, headers["Content-Type"], content[:5]) == (200, "application/pdf", b"%PDF-")


@pytest.mark.parametrize("format", ["csv", "pdf"])
async def test_a_statement_has_a_tag_that_changes_with_it(rest: House, format: str) -> None:
    ann, bob = await rich(rest), await rich(rest)
    path = f"{STATEMENT}?format={format}"
    status, headers, content = await binary(ann, path)
    assert (status, headers["Cache-Control"]) == (200, "private, no-cache")
    tag = headers["ETag"]
    status, headers, nothing = await binary(ann, path, **{"If-None-Match": tag})
    assert (status, headers["ETag"], nothing) == (304, tag, b"")
    status, _, part = await binary(ann, path, Range="bytes=0-4")
    assert (status, part) == (206, content[:5])
    await paid(rest, ann, bob, 77)
    status, headers, _ = await binary(ann, path, **{"If-None-Match": tag})
    assert status == 200
    assert headers["ETag"] != tag


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("format=xls", "format"),
        ("from=yesterday", "from"),
        ("from=2026-02-30", "from"),
        ("from=2026-02-02&to=2026-02-01", "to"),
        ("from=2020-01-01&to=2026-02-01", "to"),
        ("timeZone=Nowhere", "timeZone"),
        ("timeZone=", "timeZone"),
    ],
)
async def test_what_is_no_statement_is_refused_by_field(rest: House, query: str, field: str) -> None:
    ann = await rich(rest, 0)
    details = (await ann.get(f"{STATEMENT}?{query}")).error(400, "VALIDATION_FAILED")["details"]
    assert list(details) == [field]


async def test_a_statement_needs_a_wallet(rest: House) -> None:
    ann = await rest.person("ann")
    for path in (STATEMENT, ANALYTICS):
        (await ann.get(path)).error(404, "WALLET_UNKNOWN")
        (await rest.send("GET", path)).error(401, "TOKEN_MISSING")
    ann = await rich(rest, 0)
    for path in (STATEMENT, ANALYTICS):
        (await ann.get(f"{path}?currency=JPY")).error(409, "CURRENCY_MISMATCH")


# ---------------------------------------------------------------------------------------------------------- analytics


async def test_analytics_show_each_month_and_its_sums(rest: House) -> None:
    ann, bob = await rich(rest, 100_000), await rich(rest, 0)
    await paid(rest, ann, bob, 1_500)
    await fund(rest, ann, 250, "NGN")
    answer: Reply = await ann.get(f"{ANALYTICS}?months=3&timeZone=Africa/Lagos")
    assert answer.status == 200, answer.body
    found = answer.body["analytics"]
    assert set(found) == {"currency", "timeZone", "incomeMinor", "spendingMinor", "kinds", "months"}
    assert (found["currency"], found["timeZone"]) == ("NGN", "Africa/Lagos")
    assert (found["incomeMinor"], found["spendingMinor"]) == (100_250, 1_500)
    assert len(found["months"]) == 3
    month = found["months"][-1]
    assert {name: month[name] for name in ("incomeMinor", "spendingMinor", "kinds")} == {
        name: found[name] for name in ("incomeMinor", "spendingMinor", "kinds")
    }
    assert found["kinds"] == [
        {"kind": "deposit", "incomeMinor": 100_250, "spendingMinor": 0, "count": 2},
        {"kind": "transfer", "incomeMinor": 0, "spendingMinor": 1_500, "count": 1},
    ]


@pytest.mark.parametrize("query", ["months=0", "months=25", "months=x", "timeZone=Nowhere"])
async def test_what_cannot_be_analysed_is_refused_by_field(rest: House, query: str) -> None:
    ann = await rich(rest, 0)
    details = (await ann.get(f"{ANALYTICS}?{query}")).error(400, "VALIDATION_FAILED")["details"]
    assert list(details) == [query.split("=")[0]]
