"""Bank accounts and kept cards: the bank says whose an account is, and a card is one that its owner has paid with."""

from __future__ import annotations

import asyncio

import pytest

from models.db import Database
from models.errors import Refusal
from models.payments.gateway import CardToken
from models.payouts.accounts.service import ACCOUNTS_MAX, BANKS_KEPT
from models.payouts.accounts.store import BankAccountStore, SavedAccount
from models.payouts.cards.service import CARDS_MAX, Cards
from models.payouts.cards.store import CARDS, CardStore
from tests.fakes import CountingIds, VirtualClock
from tests.services.payouts_house import BANK, NUMBER, House
from tests.services.wallet_house import ANN, BOB, code_of, refused


@pytest.fixture
async def house(db: Database, clock: VirtualClock, ids: CountingIds) -> House:
    built = House(db, clock, ids)
    for user_id, name in ((ANN, "ann"), (BOB, "bob")):
        await built.add_user(user_id, name)
    return built


async def add(
    house: House, number: str = NUMBER, user_id: str = ANN, bank: str = BANK, **more: str
) -> SavedAccount:
    ask = {"currency": "NGN", "bank_code": bank, "account_number": number, **more}
    return await house.till.accounts.add(user_id, **ask)


async def test_an_account_is_kept_under_the_name_that_the_bank_says(house: House) -> None:
    kept = await add(house, "01234-567 89")
    assert (kept.account_name, kept.bank_name, kept.account_number) == ("ANN OBI", "Guarantee Bank", NUMBER)
    assert (kept.last4, kept.gateway) == ("6789", "testbank")
    assert await house.till.accounts.of_user(ANN) == [kept]
    assert await house.till.accounts.of_user(BOB) == []


async def test_what_no_account_is_and_what_the_bank_does_not_know(house: House) -> None:
    assert await code_of(add(house, "9876543210")) == "BANK_ACCOUNT_REFUSED"
    for number in ("", "123", "12345!", "0" * 35, "０１２３４５６７８９"):
        assert list((await refused(add(house, number))).details) == ["accountNumber"]
    assert list((await refused(add(house, bank="111"))).details) == ["bankCode"]
    assert await code_of(add(house, bank="999")) == "GATEWAY_REFUSED"
    assert await code_of(add(house, currency="USD")) == "GATEWAY_UNAVAILABLE"
    assert list((await refused(add(house, currency="naira"))).details) == ["currency"]
    house.bank.away = True
    assert await code_of(add(house)) == "GATEWAY_AWAY"
    assert await house.till.accounts.of_user(ANN) == []


async def test_an_account_is_kept_once_for_each_person(house: House) -> None:
    kept = await add(house)
    no = await refused(add(house))
    assert (no.code, no.details) == ("BANK_ACCOUNT_EXISTS", {"bankAccountId": kept.id})
    assert (await add(house, user_id=BOB)).id != kept.id, "people share accounts"
    await house.till.accounts.remove(ANN, kept.id)
    made = await asyncio.gather(*(add(house) for _ in range(5)), return_exceptions=True)
    assert [one.code for one in made if isinstance(one, Refusal)] == ["BANK_ACCOUNT_EXISTS"] * 4


async def test_nobody_keeps_more_accounts_than_people_have(house: House) -> None:
    for n in range(ACCOUNTS_MAX):
        house.bank.names[BANK, f"{n:010}"] = "ANN OBI"
        await add(house, f"{n:010}")
    assert list((await refused(add(house))).details) == ["accountNumber"]


async def test_an_account_is_its_owners_alone(house: House) -> None:
    kept = await add(house)
    accounts = house.till.accounts
    assert await code_of(accounts.find(BOB, kept.id)) == "BANK_ACCOUNT_UNKNOWN"
    assert await code_of(accounts.remove(BOB, kept.id)) == "BANK_ACCOUNT_UNKNOWN"
    await accounts.remove(ANN, kept.id)
    assert await code_of(accounts.remove(ANN, kept.id)) == "BANK_ACCOUNT_UNKNOWN"
    assert await code_of(accounts.find(ANN, kept.id)) == "BANK_ACCOUNT_UNKNOWN"


async def test_the_banks_are_asked_for_once_an_hour_and_served_when_the_gateway_is_away(house: House) -> None:
    accounts = house.till.accounts
    names = [bank.name for bank in await accounts.banks("NGN")]
    assert names == ["Guarantee Bank", "Zenith of Nowhere"]
    house.bank.away = True
    house.clock.pass_(2 * BANKS_KEPT.total_seconds())
    assert [bank.name for bank in await accounts.banks("NGN")] == names
    assert await code_of(house.open_till().accounts.banks("NGN")) == "GATEWAY_AWAY"
    assert await code_of(accounts.banks("USD")) == "GATEWAY_UNAVAILABLE"


async def test_accounts_and_cards_go_with_the_account_of_their_owner(house: House) -> None:
    await add(house)
    theirs = await add(house, user_id=BOB)
    cards = a_wallet_of_cards(house)
    await cards.keep(ANN, "paid-1")

    async def all_of_ann(session: object) -> None:
        for store in (BankAccountStore(house.db), CardStore(house.db)):
            await store.drop_all(ANN, session)  # type: ignore[arg-type]

    await house.db.transaction(all_of_ann)
    assert await house.till.accounts.of_user(ANN) == []
    assert await cards.of_user(ANN) == []
    assert await house.till.accounts.of_user(BOB) == [theirs]


# --------------------------------------------------------------------------------------------------------------- cards


class PaidBefore:
    """Ann's payments by their references."""

    def __init__(self) -> None:
        self.cards: dict[str, CardToken | None] = {
            "paid-1": CardToken(token="AUTH_1", last4="4242", brand="visa", expires="12/2030"),
            "paid-2": CardToken(token="AUTH_1", last4="4242", brand="visa", expires="12/2030"),
            "transfer": None,
            "whole": CardToken(token="AUTH_9", last4="4111111111111111", brand="visa"),
        }

    async def card_of(self, user_id: str, reference: str) -> tuple[str, CardToken | None]:
        if user_id != ANN or reference not in self.cards:
            raise Refusal("PAYMENT_UNKNOWN")
        return "testbank", self.cards[reference]


def a_wallet_of_cards(house: House) -> Cards:
    return Cards(store=CardStore(house.db), payments=PaidBefore(), clock=house.clock, ids=house.ids)


async def test_a_card_is_kept_from_ones_own_payment_once(house: House) -> None:
    cards = a_wallet_of_cards(house)
    kept = await cards.keep(ANN, "paid-1")
    assert (kept.last4, kept.brand, kept.expires, kept.gateway) == ("4242", "visa", "12/2030", "testbank")
    assert "AUTH_1" not in repr(kept)
    assert (await cards.keep(ANN, "paid-2")).id == kept.id, "the same card paid twice"
    made = await asyncio.gather(*(cards.keep(ANN, "paid-1") for _ in range(5)))
    assert {card.id for card in made} == {kept.id}
    assert [card.id for card in await cards.of_user(ANN)] == [kept.id]
    assert await code_of(cards.remove(BOB, kept.id)) == "CARD_UNKNOWN"
    await cards.remove(ANN, kept.id)
    assert await cards.of_user(ANN) == []


async def test_without_a_card_of_ones_own_none_is_kept(house: House) -> None:
    cards = a_wallet_of_cards(house)
    assert await code_of(cards.keep(BOB, "paid-1")) == "PAYMENT_UNKNOWN"
    assert await code_of(cards.keep(ANN, "transfer")) == "CARD_UNKNOWN"
    assert await code_of(cards.keep(ANN, "whole")) == "CARD_UNKNOWN", (
        "whatever a gateway says: never a number"
    )
    assert await house.db[CARDS].count_documents({}) == 0


async def test_nobody_keeps_more_cards_than_people_have(house: House) -> None:
    cards = a_wallet_of_cards(house)
    paid = PaidBefore()
    for n in range(CARDS_MAX + 1):
        paid.cards[f"p{n}"] = CardToken(token=f"T{n}", last4="1111", brand="verve")
    cards._payments = paid
    for n in range(CARDS_MAX):
        await cards.keep(ANN, f"p{n}")
    assert list((await refused(cards.keep(ANN, f"p{CARDS_MAX}"))).details) == ["reference"]
