"""Pure rules of withdrawals: every stage with everything that can be learned, and walks through all of it at random."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.ledger.journal import Entry, Kind
from models.ledger.rules import check
from models.payments.gateway import PayoutSeen, PayoutState
from models.payouts import rules
from models.payouts.payout import OPEN, Destination, Payout, Reason, Stage, Status
from models.payouts.rules import Away, Begun, Learned, Lost, NotKnown, Order, Refused, Seen, Unsent, step

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
TO = Destination(
    account_id="acc", bank_code="058", bank_name="Bank", account_number="0123456789", account_name="ANN"
)
FRESH = Payout(
    id="p1",
    reference="wd-p1",
    key="k",
    user_id="ann",
    gateway="monnify",
    amount_minor=1_000,
    fee_minor=25,
    currency="NGN",
    to=TO,
    stage=Stage.WAITING,
    stage_at=NOW,
    created_at=NOW,
    give_up_at=NOW + rules.GIVE_UP_AFTER,
    look_at=NOW,
)
SUBMITTING = step(FRESH, Begun(), NOW)


def seen(state: PayoutState, **changes: object) -> Seen:
    about = {"reference": "wd-p1", "gateway_reference": "T1", "state": state, "amount_minor": 1_000}
    return Seen(PayoutSeen(**{**about, "currency": "NGN", **changes}))  # type: ignore[arg-type]


def at(stage: Stage) -> Payout:
    """A payout that has come to a stage by the usual way."""
    if stage is Stage.WAITING:
        return FRESH
    if stage is Stage.SUBMITTING:
        return SUBMITTING
    if stage is Stage.APPROVAL:
        return replace(FRESH, stage=Stage.APPROVAL, look_at=None)
    states = {
        Stage.PENDING: PayoutState.PENDING,
        Stage.OTP: PayoutState.OTP,
        Stage.FAILED: PayoutState.FAILED,
    }
    if stage in states:
        return step(SUBMITTING, seen(states[stage]), NOW)
    paid = step(SUBMITTING, seen(PayoutState.PAID), NOW)
    return paid if stage is Stage.PAID else step(paid, seen(PayoutState.REVERSED), NOW)


# Those of which a gateway may know. No gateway has been asked about one that waits for approval, whatever is said.
ASKED = OPEN - {Stage.APPROVAL}
# What becomes of a payout in a stage by what is learned; everything else leaves it in its stage.
MOVES: dict[tuple[Stage, str], Stage] = {
    (Stage.WAITING, "begun"): Stage.SUBMITTING,
    (Stage.SUBMITTING, "unsent"): Stage.WAITING,
    (Stage.SUBMITTING, "refused"): Stage.FAILED,
    (Stage.SUBMITTING, "later"): Stage.WAITING,
    (Stage.WAITING, "void"): Stage.FAILED,
    (Stage.APPROVAL, "approve"): Stage.WAITING,
    (Stage.APPROVAL, "reject"): Stage.FAILED,
    (Stage.PAID, "reversed"): Stage.REVERSED,
    **{(stage, "failed"): Stage.FAILED for stage in ASKED},
    **{(stage, "reversed"): Stage.FAILED for stage in ASKED},
    **{(stage, "paid"): Stage.PAID for stage in ASKED},
    **{(stage, "otp"): Stage.OTP for stage in ASKED},
    **{(stage, "pending"): Stage.PENDING for stage in ASKED},
}
LEARNED: dict[str, Learned] = {
    "begun": Begun(),
    "unsent": Unsent(1, "no connection"),
    "refused": Refused(1, "D01"),
    "later": Refused(1, "D07", later=True),
    "lost": Lost(1, "timeout"),
    "old refused": Refused(0, "D01"),
    "old unsent": Unsent(0, "no connection"),
    "not known": NotKnown(),
    "away": Away("timeout"),
    "submit": Order.SUBMIT,
    "void": Order.VOID,
    "approve": Order.APPROVE,
    "reject": Order.REJECT,
    **{state.value: seen(state) for state in PayoutState},
    **{f"{state.value} of another amount": seen(state, amount_minor=999) for state in PayoutState},
    **{f"{state.value} of another": seen(state, reference="wd-p2") for state in PayoutState},
}


@pytest.mark.parametrize("name", LEARNED)
@pytest.mark.parametrize("stage", Stage)
def test_every_stage_with_everything_that_can_be_learned(stage: Stage, name: str) -> None:
    before = at(stage)
    assert before.stage is stage
    now = NOW + MINUTE
    after = step(before, LEARNED[name], now)
    assert after.stage is MOVES.get((stage, name), stage)
    entry = rules.entry_of(before, after, now)
    posted = set(rules.POSTED[before.stage]) | ({entry.kind} if entry else set())
    assert posted == set(rules.POSTED[after.stage]), "what is in the journal is what the stage says"
    if entry is not None:
        check(entry)
    assert (after is before) or after.version == before.version + 1
    # Whatever is open is looked at again, and what is over is not.
    assert (after.look_at is not None) == (after.stage in (*ASKED, Stage.PAID))
    if after.status is not before.status:
        assert after.tell_at == now + rules.TELL_WITHIN
    if stage is Stage.APPROVAL and name not in ("approve", "reject"):
        assert after is before
    elif "another" in name:
        assert after.review is not None
        assert after.stage is before.stage


def test_a_submission_is_one_and_only_from_waiting() -> None:
    assert SUBMITTING.submissions == 1
    for stage in Stage:
        if stage is not Stage.WAITING:
            assert step(at(stage), Begun(), NOW).submissions <= 1


def test_what_is_lost_is_only_ever_looked_up() -> None:
    payout, now = step(SUBMITTING, Lost(1, "timeout"), NOW), NOW
    for _ in range(200):
        assert payout.look_at is not None
        now = max(now, payout.look_at)
        payout = step(payout, NotKnown(), now)
        assert payout.stage is Stage.SUBMITTING
        assert step(payout, Begun(), now).stage is Stage.SUBMITTING
    assert payout.review == rules.UNKNOWN_REVIEW
    assert now - NOW > 5 * DAY, "and ever more rarely"


def test_a_person_is_asked_for_after_half_an_hour_and_not_before() -> None:
    payout = step(SUBMITTING, Lost(1, "timeout"), NOW)
    for _ in range(20):
        payout = step(payout, NotKnown(), NOW + 29 * MINUTE)
    assert payout.review is None
    assert not rules.may_submit(payout, NOW + 29 * MINUTE)
    payout = step(payout, NotKnown(), NOW + 30 * MINUTE)
    assert payout.review is not None
    assert rules.may_submit(payout, NOW + 30 * MINUTE)
    again = step(payout, Order.SUBMIT, NOW + 30 * MINUTE)
    assert (again.stage, again.heard, again.review) == (Stage.WAITING, True, None)
    assert step(again, NotKnown(), NOW + 31 * MINUTE).heard is False
    assert step(payout, Order.VOID, NOW + 30 * MINUTE).reason is Reason.CANCELLED


def test_the_same_again_waits_longer_than_two_minutes_and_is_asked_for_first() -> None:
    waiting = step(SUBMITTING, Refused(1, "D07", later=True), NOW)
    assert waiting.look_at is not None
    assert waiting.look_at - NOW > 2 * MINUTE
    assert waiting.heard
    late = replace(SUBMITTING, give_up_at=NOW + MINUTE)
    assert step(late, Refused(1, "D07", later=True), NOW).reason is Reason.REFUSED


def test_what_waits_is_given_up_after_a_day_unless_it_may_be_there() -> None:
    later = NOW + 25 * HOUR
    assert step(FRESH, Away("frozen"), later).reason is Reason.UNAVAILABLE
    assert step(SUBMITTING, Unsent(1, "no connection"), later).reason is Reason.UNAVAILABLE
    heard = replace(FRESH, heard=True)
    assert step(heard, Away("timeout"), later).stage is Stage.WAITING
    assert step(heard, NotKnown(), later).reason is Reason.UNAVAILABLE


def test_the_fee_is_the_platforms_and_comes_back_with_a_reversal() -> None:
    sums: Counter[str] = Counter()
    for kind in rules.POSTED[Stage.REVERSED]:
        for leg in rules.legs(FRESH, kind):
            sums[leg.account] += leg.amount_minor
    assert not any(sums.values()), "all of it is where it was"
    out = {leg.account: leg.amount_minor for leg in rules.legs(FRESH, Kind.WITHDRAWAL)}
    assert out == {
        "wallet:ann:NGN:primary_held": -1_025,
        "gateway:monnify:clearing": 1_000,
        "platform:withdrawal_fees": 25,
    }


def test_what_the_gateway_is_asked_names_nobodys_secrets() -> None:
    ask = rules.ask(FRESH)
    assert (ask.reference, ask.amount_minor, ask.to.account_name) == ("wd-p1", 1_000, "ANN")
    assert len(ask.narration) <= rules.NARRATION_MAX
    assert "ann" not in ask.narration


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(sorted(LEARNED)), st.integers(0, 100_000)), max_size=40))
def test_whatever_happens_in_whatever_order_money_moves_once_each_way(walk: list[tuple[str, int]]) -> None:
    payout, now = FRESH, NOW
    entries: list[Entry] = [rules.entry(FRESH, Kind.WITHDRAW_HOLD, NOW)]
    order = [Status.PENDING, Status.PROCESSING, Status.COMPLETED, Status.REVERSED]
    ended = False
    for name, seconds in walk:
        now += timedelta(seconds=seconds)
        after = step(payout, LEARNED[name], now)
        entry = rules.entry_of(payout, after, now)
        if entry is not None:
            check(entry)
            entries.append(entry)
        if ended:
            assert after.stage in (payout.stage, Stage.REVERSED), "an end is an end, but for a reversal"
        if payout.stage is Stage.PAID:
            assert order.index(after.status) >= order.index(payout.status)
        if after.submissions > payout.submissions:
            assert payout.stage is Stage.WAITING
        payout, ended = after, not after.open
        assert [one.kind for one in entries] == list(rules.POSTED[payout.stage])
        assert len({one.id for one in entries}) == len(entries)
        # Nothing that is open is ever forgotten.
        assert payout.look_at is not None or not payout.open
        assert payout.stage is not Stage.REVERSED or payout.look_at is None
