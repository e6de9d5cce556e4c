"""What entries make of wallets, as pure functions: the legs in each pocket add up, and so do a statement's lines."""

from __future__ import annotations

import pytest

from models.ledger import rules
from models.ledger.journal import COMMISSION, Entry, Kind, Leg, Line, Pocket, Wallet, account_of
from models.money import AMOUNT_MAX
from tests.fakes import VirtualClock

P, H, C, CH, OWED = Pocket.PRIMARY, Pocket.PRIMARY_HELD, Pocket.CREDITS, Pocket.CREDITS_HELD, Pocket.OWED


def wallet(clock: VirtualClock) -> Wallet:
    return Wallet(
        key="ann:NGN",
        id="1",
        credits_id="2",
        user_id="ann",
        currency="NGN",
        primary=100,
        credits=30,
        owed=5,
        version=7,
        head="before",
        created_at=clock.now(),
    )


def posted(clock: VirtualClock, *moves: tuple[Pocket, int]) -> tuple[Wallet, tuple[Line, ...]]:
    """An entry of these legs and one of the platform that evens them out: the wallet after it, and its lines."""
    mine = [Leg(account_of("ann:NGN", pocket), amount, "NGN") for pocket, amount in moves]
    rest = -sum(leg.amount_minor for leg in mine)
    legs = (*mine, Leg(COMMISSION, rest, "NGN")) if rest else tuple(mine)
    entry = Entry(id="one", kind=Kind.TRANSFER, at=clock.now(), legs=legs)
    sealed, after = rules.post({"ann:NGN": wallet(clock)}, [entry])
    (seal,) = sealed[0].seals
    now = after["ann:NGN"]
    assert (now.version, now.head) == (seal.version, seal.hash) == (8, seal.hash)
    assert seal.previous == "before"
    return now, seal.lines


@pytest.mark.parametrize(
    ("moves", "pockets", "lines"),
    [
        ([(P, 1)], {P: 101}, [("primary", 1, 101)]),
        ([(P, -10), (P, 3)], {P: 93}, [("primary", -7, 93)]),
        ([(P, -10), (H, 10)], {P: 90, H: 10}, []),
        ([(P, -10), (H, 4)], {P: 90, H: 4}, [("primary", -6, 94)]),
        (
            [(C, -30), (CH, 20), (P, 7)],
            {C: 0, CH: 20, P: 107},
            [("primary", 7, 107), ("call_credits", -10, 20)],
        ),
        ([(OWED, 5), (P, 2)], {OWED: 0, P: 102}, [("primary", 2, 102)]),
        ([(OWED, -4)], {OWED: 9}, []),
        ([(Pocket.PENDING, 50)], {Pocket.PENDING: 50}, []),
    ],
)
def test_pockets_are_moved_by_all_legs_that_name_them_and_lines_say_what_is_available_and_held(
    clock: VirtualClock,
    moves: list[tuple[Pocket, int]],
    pockets: dict[Pocket, int],
    lines: list[tuple[str, int, int]],
) -> None:
    after, found = posted(clock, *moves)
    before = {pocket: wallet(clock).balance(pocket) for pocket in Pocket}
    assert {pocket: after.balance(pocket) for pocket in Pocket} == before | pockets
    assert [(line.account, line.amount_minor, line.after_minor) for line in found] == lines


@pytest.mark.parametrize("moves", [[(P, -101)], [(P, -60), (P, -41)], [(H, -1), (P, 1)], [(OWED, 6)]])
def test_no_pocket_is_emptied_below_nothing(clock: VirtualClock, moves: list[tuple[Pocket, int]]) -> None:
    with pytest.raises(rules.Overdrawn) as over:
        posted(clock, *moves)
    assert over.value.pocket is moves[0][0]


def test_no_pocket_holds_more_than_can_be_read_exactly(clock: VirtualClock) -> None:
    after, _ = posted(clock, (P, AMOUNT_MAX - 100))
    assert after.primary == AMOUNT_MAX
    with pytest.raises(rules.Overfull):
        posted(clock, (P, AMOUNT_MAX - 99))


def test_entries_of_one_posting_follow_each_other_in_the_chain(clock: VirtualClock) -> None:
    def moving(name: str, amount: int) -> Entry:
        legs = (Leg(account_of("ann:NGN", P), amount, "NGN"), Leg(COMMISSION, -amount, "NGN"))
        return Entry(id=name, kind=Kind.TRANSFER, at=clock.now(), legs=legs)

    (first, second), after = rules.post({"ann:NGN": wallet(clock)}, [moving("a", -70), moving("b", 20)])
    assert second.seals[0].previous == first.seals[0].hash
    assert (first.version_in("ann:NGN"), second.version_in("ann:NGN")) == (8, 9)
    assert (after["ann:NGN"].primary, after["ann:NGN"].head) == (50, second.seals[0].hash)
