"""What holds for the adapter of every gateway, whatever goes wrong on the way."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator

import pytest

from models.payments.gateway import GatewayAway, NoticeInvalid, PayState
from tests.services.gatewayhouse import PAIRS, Pair, beside, fate, verb
from tests.standins.gatewaykit import broken, changed, rewritten, unsigned

LOST = ("500", "503", "cut", "redirect", "500_after", "cut_after", "half_after", "html_after", "late_after")
PASSING = ("500", "503", "cut", "429", "500_after", "cut_after", "half_after")


@pytest.fixture(params=PAIRS)
async def pair(request: pytest.FixtureRequest) -> AsyncIterator[Pair]:
    async with beside(PAIRS[request.param]) as made:
        yield made


async def prepared(pair: Pair, name: str) -> None:
    """What has to be there for a verb."""
    if name in ("query", "refund") and "pay-q" not in pair.standin.payments:
        pair.opened = (await pair.adapter.checkout(pair.ask("pay-q"))).gateway_reference
        await pair.standin.pay("pay-q")
    if name == "payout_status" and not pair.standin.payouts:
        await pair.adapter.pay_out(pair.payout())
    pair.payout()


@pytest.mark.parametrize("fault", LOST)
async def test_what_may_move_money_is_sent_once_and_then_nobody_knows(pair: Pair, fault: str) -> None:
    for name, endpoint in pair.moving.items():
        await prepared(pair, name)
        before = pair.standin.count(endpoint)
        pair.standin.stumble(endpoint, fault)
        assert await fate(verb(pair, name)) == "unknown", name
        assert pair.standin.count(endpoint) == before + 1, name


@pytest.mark.parametrize("fault", ["429", "401", "403"])
async def test_what_was_turned_away_at_the_door_was_not_done_and_may_be_sent_later(
    pair: Pair, fault: str
) -> None:
    for name, endpoint in pair.moving.items():
        await prepared(pair, name)
        pair.standin.stumble(endpoint, fault, fault)
        assert await fate(verb(pair, name)) == "unsent", name
        pair.standin.recover()


async def test_a_gateway_that_is_not_there_has_been_told_nothing(pair: Pair) -> None:
    await pair.standin.stop()
    for name in pair.moving:
        if name != "refund":
            assert await fate(verb(pair, name)) == "unsent", name
    with pytest.raises(GatewayAway):
        await verb(pair, "query")


@pytest.mark.parametrize("fault", PASSING)
async def test_a_question_is_asked_again_with_growing_waits(pair: Pair, fault: str) -> None:
    for name, endpoint in pair.reading.items():
        await prepared(pair, name)
        before = pair.standin.count(endpoint)
        pair.naps.seconds.clear()
        pair.standin.stumble(endpoint, fault, fault, "ok")
        assert await fate(verb(pair, name)) == "done", name
        assert pair.standin.count(endpoint) == before + 3, name
        # A connection that was kept and is cut is replaced at once, without a wait.
        assert len(pair.naps.seconds) == 2 or fault.startswith("cut"), name
        assert 0 < pair.naps.seconds[0] <= pair.naps.seconds[-1] <= 5, name


async def test_a_question_is_not_asked_for_ever(pair: Pair) -> None:
    for name, endpoint in pair.reading.items():
        await prepared(pair, name)
        before = pair.standin.count(endpoint)
        pair.standin.stumble(endpoint, "500", "500", "500", "ok")
        with pytest.raises(GatewayAway):
            await verb(pair, name)
        assert pair.standin.count(endpoint) == before + 3, name
        await verb(pair, name)


async def test_a_reference_that_is_known_already_is_said_to_be_taken_or_is_the_same_again(pair: Pair) -> None:
    first = await pair.adapter.checkout(pair.ask())
    if await fate(verb(pair, "checkout")) == "done":
        assert await pair.adapter.checkout(pair.ask()) == first
    assert len(pair.standin.payments) == 1
    if pair.adapter.terms.payouts:
        await verb(pair, "pay_out")
        pair.clock.pass_(600)
        assert await fate(verb(pair, "pay_out")) == "taken"
        assert len(pair.standin.payouts) == 1


async def test_what_the_gateway_never_heard_of_is_unknown_and_not_failed(pair: Pair) -> None:
    assert await pair.adapter.query("pay-404", None) is None
    if pair.adapter.terms.payouts:
        assert await pair.adapter.payout_status("wd-0000000000000404", None) is None


async def test_less_and_more_than_was_asked_for_is_what_was_paid(pair: Pair) -> None:
    for name, amount in (("pay-less", 3_001), ("pay-more", 99_999), ("pay-same", 10_050)):
        opened = await pair.adapter.checkout(pair.ask(name))
        waiting = await pair.adapter.query(name, opened.gateway_reference)
        assert waiting is not None
        assert (waiting.state, waiting.paid_minor) == (PayState.PENDING, 0)
        await pair.standin.pay(name, amount)
        seen = await pair.adapter.query(name, opened.gateway_reference)
        assert seen is not None
        assert (seen.state, seen.paid_minor, seen.currency) == (PayState.PAID, amount, pair.currency)
        assert seen.reference == name


async def test_another_currency_than_was_asked_for_is_told_as_it_is(pair: Pair) -> None:
    opened = await pair.adapter.checkout(pair.ask())
    await pair.standin.pay("pay-1", currency="EUR" if pair.currency != "EUR" else "USD")
    seen = await pair.adapter.query("pay-1", opened.gateway_reference)
    assert seen is not None
    assert seen.currency != pair.currency


async def test_a_payment_that_went_back_is_reversed_with_its_amount(pair: Pair) -> None:
    opened = await pair.adapter.checkout(pair.ask())
    await pair.standin.pay("pay-1")
    await pair.standin.end("pay-1", "REVERSED")
    seen = await pair.adapter.query("pay-1", opened.gateway_reference)
    assert seen is not None
    assert (seen.state, seen.paid_minor, seen.reversed_minor) == (PayState.REVERSED, 10_050, 10_050)


async def test_a_notification_names_our_reference_and_has_one_id_however_often_it_comes(pair: Pair) -> None:
    for number in range(6):
        name = f"pay-{number}"
        await pair.adapter.checkout(pair.ask(name, amount_minor=10_000 + number))
        await pair.standin.pay(name)
    notices = [
        pair.adapter.parse(hook.raw, lowered(hook.headers), pair.clock.now()) for hook in pair.standin.hooks
    ]
    assert [one.reference for one in notices] == [f"pay-{number}" for number in range(6)]
    assert len({one.id for one in notices}) == 6
    again = [
        pair.adapter.parse(hook.raw, lowered(hook.headers), pair.clock.now()) for hook in pair.standin.hooks
    ]
    assert again == notices
    assert all(one.at is not None and abs((one.at - pair.clock.now()).total_seconds()) < 2 for one in notices)


async def test_only_the_very_bytes_that_were_signed_are_believed(pair: Pair) -> None:
    await pair.adapter.checkout(pair.ask())
    await pair.standin.pay("pay-1")
    hook = pair.standin.hooks[0]
    chance = random.Random(6)
    spoiled = [unsigned(hook), rewritten(hook), *(broken(hook, chance) for _ in range(40))]
    for one in spoiled:
        with pytest.raises(NoticeInvalid):
            pair.adapter.parse(one.raw, lowered(one.headers), pair.clock.now())
    for raw in (
        b"",
        b"{}",
        hook.raw + b" ",
        hook.raw[:-1],
        b"\xff\xfe",
        hook.raw.replace(b"pay-1", b"pay-2"),
    ):
        with pytest.raises(NoticeInvalid):
            pair.adapter.parse(raw, lowered(hook.headers), pair.clock.now())
    odd = dict.fromkeys(lowered(hook.headers), "�, t=é, v1=é")
    with pytest.raises(NoticeInvalid):
        pair.adapter.parse(hook.raw, odd, pair.clock.now())


async def test_signed_nonsense_is_a_notice_without_a_reference_or_refused_and_nothing_else(
    pair: Pair,
) -> None:
    bodies = [
        b"[]",
        b"null",
        b'"text"',
        b"NaN",
        b"1" * 6000,
        b"[" * 100_000,
        b'{"eventType":5,"event":[],"id":{}}',
    ]
    for raw in bodies:
        hook = pair.standin.sign(raw, "")
        with pytest.raises(NoticeInvalid):
            pair.adapter.parse(hook.raw, lowered(hook.headers), pair.clock.now())
    await pair.adapter.checkout(pair.ask())
    await pair.standin.pay("pay-1")
    for value in (None, 7, [], {}, "x" * 5000, True):
        hook = changed(
            pair.standin,
            pair.standin.hooks[0],
            paymentReference=value,
            reference=value,
            client_reference_id=value,
            metadata=value,
        )
        notice = pair.adapter.parse(hook.raw, lowered(hook.headers), pair.clock.now())
        assert notice.reference is None


async def test_who_pays_without_an_address_gets_one_of_the_place_that_he_returns_to(pair: Pair) -> None:
    await pair.adapter.checkout(pair.ask("pay-1", payer_email=None))
    await pair.adapter.checkout(pair.ask("pay-2", payer_email=None, return_url="http://127.0.0.1:3000/x"))
    sent = [one.body.decode() for one in pair.standin.asked if one.endpoint == pair.moving["checkout"]]
    if pair.standin.name == "stripe":  # asks the payer itself
        assert not any("email" in body for body in sent)
        return
    assert all("u1" in body for body in sent)
    assert "calls.example.org" in sent[0]
    assert "127.0.0.1@" not in sent[1]


def lowered(headers: dict[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}
