"""Notices of account activity: kept with what they tell, told once, in words that give nothing away."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest

from models.db import Database, Session
from models.ledger.journal import Entry, Kind, Leg, Pocket, account_of, clearing, wallet_key
from models.ledger.service import Ledger
from models.ledger.store import LedgerStore
from models.notices import rules
from models.notices.notice import EMAIL, SMS, Fact, Letter, Outcome, Sent, What
from models.notices.service import Notices
from models.notices.store import KEPT_DAYS, NOTICES, NoticeStore
from models.notify.rules import LEASE_SECONDS
from models.users.service import Users
from models.users.store import UserStore
from models.wallet.rules import transfer
from tests.fakes import CountingIds, VirtualClock
from tests.services.wallet_house import ANN, BOB, OTHER_PIN, PASSWORD, PIN, WRONG, House, code_of

PHONE = "+2348012345678"
OK, LATER, NEVER = (Outcome(sent=sent) for sent in (Sent.OK, Sent.LATER, Sent.NEVER))
UNSURE = replace(LATER, unsure=True)


@dataclass
class FakeCarrier:
    """Takes letters; ``says`` what comes of the next ones, then of all others. ``dies`` before or after taking one."""

    says: list[Outcome] = field(default_factory=lambda: [OK])
    letters: list[Letter] = field(default_factory=list)
    looked: list[str] = field(default_factory=list)
    finds: bool | None = False
    dies: str = ""

    async def carry(self, letter: Letter) -> Outcome:
        said = self.says.pop(0) if len(self.says) > 1 else self.says[0]
        if self.dies == "before":
            raise asyncio.CancelledError
        if said.sent is Sent.OK:
            self.letters.append(letter)
        if self.dies == "after":
            raise asyncio.CancelledError
        return said

    async def carried(self, letter: Letter) -> bool | None:
        self.looked.append(letter.mark)
        if self.finds is None:
            return None
        return self.finds or letter.mark in [one.mark for one in self.letters]

    async def close(self) -> None:
        pass


@dataclass
class Post:
    """A wallet house whose ledger keeps notices, with carriers of its own."""

    house: House
    db: Database
    clock: VirtualClock
    ids: CountingIds
    mail: FakeCarrier = field(default_factory=FakeCarrier)
    sms: FakeCarrier = field(default_factory=FakeCarrier)
    counted: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def __post_init__(self) -> None:
        self.store = NoticeStore(self.db)
        self.notices = self.process()
        self.ledger = self.house.one.ledger
        self.ledger.store.beside = self.notices.with_entries
        self.ledger.store.beside_freeze = self.notices.with_freeze

    def process(self, **carriers: FakeCarrier) -> Notices:
        return Notices(
            store=NoticeStore(self.db),
            users=Users(store=UserStore(self.db), clock=self.clock),
            carriers=carriers or {EMAIL: self.mail, SMS: self.sms},
            clock=self.clock,
            ids=self.ids,
            count=self.count,
        )

    def count(self, way: str, outcome: Outcome) -> None:
        self.counted[f"{way} {outcome.sent.value}"] += 1

    async def put(self, *facts: Fact) -> None:
        async def body(session: Session) -> None:
            await self.notices.put(session, *facts)

        await self.db.transaction(body)

    def fact(self, number: int = 1, what: What = What.MONEY_IN, **more: object) -> Fact:
        made = Fact(
            id=f"f{number}", user_id=ANN, what=what, at=self.clock.now(), amount_minor=50_000, currency="NGN"
        )
        return replace(made, **more)  # type: ignore[arg-type]

    async def run(self, seconds: float = 0) -> int:
        self.clock.pass_(seconds)
        return await self.notices.run_due()

    async def wants_sms(self) -> None:
        await self.notices.change(ANN, email=False, sms=True)

    @property
    def subjects(self) -> list[str]:
        return [letter.subject for letter in self.mail.letters]


@pytest.fixture
async def post(db: Database, clock: VirtualClock, ids: CountingIds) -> Post:
    house = House(db, clock, ids)
    await house.add_user(ANN, "ann")
    await house.add_user(BOB, "bob")
    await db["users"].update_one({"_id": ANN}, {"$set": {"phone": PHONE, "phone_verified_at": clock.now()}})
    await db["users"].update_many({}, {"$set": {"email_verified_at": clock.now()}})
    return Post(house, db, clock, ids)


# ------------------------------------------------------------------------------------------------------ what is told


async def test_money_that_comes_in_is_told_by_mail_in_words(post: Post) -> None:
    await post.house.rich(ANN, 50_000)
    assert await post.run() == 1
    (letter,) = post.mail.letters
    assert letter.to == "ann@x.test"
    assert letter.subject == "NGN 500.00 paid in"
    assert "Hello Ann," in letter.text
    assert "NGN 500.00 was paid into your wallet on 1 March 2026 at 12:00 UTC." in letter.text
    assert ANN not in letter.text
    assert post.sms.letters == [], "by SMS only who wants it"
    assert await post.run(3600) == 0
    assert post.counted == {"email ok": 1}


async def test_a_transfer_is_told_to_who_gets_it_and_only_if_it_is_worth_a_letter(post: Post) -> None:
    await post.house.rich(ANN, 1_000_000)
    await post.run()
    post.mail.letters.clear()
    least = rules.RECEIVED_MAJOR_MIN * 100
    for number, minor in enumerate((least - 1, least)):
        wallet = await post.ledger.ensure(ANN, "NGN")
        await post.ledger.ensure(BOB, "NGN")
        entry = transfer(wallet, BOB, key=f"t{number}", amount_minor=minor, note="x", now=post.clock.now())
        await post.ledger.post([wallet_key(ANN, "NGN"), wallet_key(BOB, "NGN")], lambda _, e=entry: [e])  # type: ignore[misc]
    assert await post.run() == 1
    (letter,) = post.mail.letters
    assert (letter.to, letter.subject) == ("bob@x.test", "NGN 1,000.00 received")


def entry(kind: Kind, *legs: tuple[str, int]) -> Entry:
    return Entry(
        id=f"e:{kind}",
        kind=kind,
        at=VirtualClock().now(),
        legs=tuple(Leg(account, amount, "NGN") for account, amount in legs),
    )


def mine(pocket: Pocket) -> str:
    return account_of(wallet_key(ANN, "NGN"), pocket)


@pytest.mark.parametrize(
    ("made", "what", "minor"),
    [
        (
            entry(Kind.DEPOSIT, (clearing("x"), -500), (mine(Pocket.CREDITS), 500)),
            What.MONEY_IN,
            500,
        ),
        (
            # Some of it was spent: the rest is owed.
            entry(
                Kind.REVERSAL, (mine(Pocket.PRIMARY), -300), (mine(Pocket.OWED), -200), (clearing("x"), 500)
            ),
            What.TAKEN_BACK,
            500,
        ),
        (
            entry(
                Kind.WITHDRAWAL,
                (mine(Pocket.PRIMARY_HELD), -550),
                (clearing("x"), 500),
                ("platform:withdrawal_fees", 50),
            ),
            What.WITHDRAWN,
            500,
        ),
        (
            entry(Kind.WITHDRAW_VOID, (mine(Pocket.PRIMARY_HELD), -550), (mine(Pocket.PRIMARY), 550)),
            What.WITHDRAWAL_FAILED,
            550,
        ),
        (
            entry(Kind.WITHDRAW_RETURN, (clearing("x"), -550), (mine(Pocket.PRIMARY), 550)),
            What.WITHDRAWAL_RETURNED,
            550,
        ),
    ],
)
def test_entries_are_told_as_what_they_are_to_their_owner(made: Entry, what: What, minor: int) -> None:
    (fact,) = rules.facts_of(made)
    assert (fact.user_id, fact.what, fact.amount_minor, fact.currency) == (ANN, what, minor, "NGN")
    words = rules.letter(fact, EMAIL, to="a", name="A")
    assert words.subject
    assert words.text


def test_the_money_of_calls_and_holds_is_told_by_nobody_here() -> None:
    told = {Kind.DEPOSIT, Kind.REVERSAL, Kind.TRANSFER}
    told |= {Kind.WITHDRAWAL, Kind.WITHDRAW_VOID, Kind.WITHDRAW_RETURN}
    for kind in set(Kind) - told:
        some = entry(kind, (mine(Pocket.PRIMARY), 10**9), (clearing("x"), -(10**9)))
        assert rules.facts_of(some) == []


@pytest.mark.parametrize("what", list(What))
@pytest.mark.parametrize("way", [EMAIL, SMS])
def test_every_fact_has_words_and_none_of_its_keys(what: What, way: str) -> None:
    fact = Fact(
        id=f"wd:secret-key:{what}",
        user_id=ANN,
        what=what,
        at=VirtualClock().now(),
        amount_minor=1_234,
        currency="NGN",
        detail="6789",
    )
    letter = rules.letter(fact, way, to="x", name="Ann")
    assert letter.text.rstrip().endswith(f"Ref {letter.mark[:8]}" + (")" if way == EMAIL else ""))
    assert "secret-key" not in letter.text + letter.subject + letter.mark
    assert "\n" not in letter.subject
    assert way == EMAIL or len(letter.text) <= 306, "two messages of the network at most"
    assert (what is What.BANK_ACCOUNT_ADDED) is ("6789" in letter.text)


async def test_freezing_is_told_once_for_each_time(post: Post) -> None:
    await post.house.rich(ANN)
    await post.run()
    post.mail.letters.clear()
    for frozen in (True, True, False, True):
        post.clock.pass_(60)
        await post.ledger.freeze(ANN, frozen=frozen)
    await post.run()
    assert post.subjects == ["Your wallet is frozen"] * 2


# ---------------------------------------------------------------------------------------- kept with what it is about


async def test_what_is_not_committed_is_not_told_and_what_is_posted_twice_is_told_once(post: Post) -> None:
    await post.house.rich(ANN)
    await post.run()
    post.mail.letters.clear()
    key = wallet_key(ANN, "NGN")
    legs = (Leg(clearing("x"), -70, "NGN"), Leg(account_of(key, Pocket.PRIMARY), 70, "NGN"))
    paid = Entry(id="pay:x:1", kind=Kind.DEPOSIT, at=post.clock.now(), legs=legs)

    async def fails(session: Session) -> None:
        raise RuntimeError("another write of the same transaction")

    class Ends(LedgerStore):
        async def write(self, *args: object) -> None:  # type: ignore[override]
            await super().write(*args)  # type: ignore[arg-type]
            raise RuntimeError("the end of the transaction is never reached")

    broken = Ends(post.db)
    broken.beside = post.notices.with_entries
    with pytest.raises(RuntimeError):
        await Ledger(broken, post.clock, post.ids).post([key], lambda _: [paid])
    with pytest.raises(RuntimeError):
        await post.ledger.post([key], lambda _: [paid], also=fails)
    assert await post.run() == 0
    for _ in range(3):
        await post.ledger.post([key], lambda _: [paid])
    await post.run()
    assert post.subjects == ["NGN 0.70 paid in"]


async def test_two_processes_tell_a_fact_once(post: Post) -> None:
    await post.put(*(post.fact(number) for number in range(20)))
    await asyncio.gather(post.notices.run_due(), post.process().run_due(), post.process().run_due())
    assert len(post.mail.letters) == 20
    assert len({letter.mark for letter in post.mail.letters}) == 20


# ---------------------------------------------------------------------------------------------------- whom, and where


async def test_everybody_chooses_the_ways(post: Post) -> None:
    assert (await post.notices.settings(ANN)).email
    await post.notices.change(ANN, email=None, sms=True)
    await post.put(post.fact(1))
    await post.run()
    assert ([one.to for one in post.mail.letters], [one.to for one in post.sms.letters]) == (
        ["ann@x.test"],
        [PHONE],
    )
    await post.notices.change(ANN, email=False, sms=None)
    await post.put(post.fact(2))
    await post.run()
    assert (len(post.mail.letters), len(post.sms.letters)) == (1, 2)
    await post.notices.change(ANN, email=None, sms=False)
    await post.put(post.fact(3))
    assert await post.run() == 1
    assert (len(post.mail.letters), len(post.sms.letters)) == (1, 2)


async def test_an_address_that_is_new_since_is_the_one_that_counts(post: Post) -> None:
    await post.put(post.fact())
    await post.db["users"].update_one({"_id": ANN}, {"$set": {"email": "new@x.test"}})
    await post.run()
    assert [one.to for one in post.mail.letters] == ["new@x.test"]


@pytest.mark.parametrize(("way", "verified"), [("mail", "email_verified_at"), ("sms", "phone_verified_at")])
async def test_an_address_that_nobody_has_shown_to_be_theirs_is_told_nothing(
    post: Post, way: str, verified: str
) -> None:
    await post.notices.change(ANN, email=True, sms=True)
    await post.db["users"].update_one({"_id": ANN}, {"$unset": {verified: ""}})
    await post.put(post.fact())
    await post.run()
    told = {"mail": len(post.mail.letters), "sms": len(post.sms.letters)}
    assert told == {"mail": 1, "sms": 1, way: 0}


async def test_who_has_no_address_or_no_account_any_more_is_told_nothing(post: Post) -> None:
    await post.put(post.fact(1), post.fact(2, user_id="nobody"))
    await post.db["users"].update_one({"_id": ANN}, {"$unset": {"email": "", "email_key": ""}})
    assert await post.run() == 2
    assert (post.mail.letters, await post.run(86_400)) == ([], 0)


async def test_with_no_carrier_nothing_is_kept(post: Post) -> None:
    quiet = Notices(
        store=post.store,
        users=Users(store=UserStore(post.db), clock=post.clock),
        carriers={},
        clock=post.clock,
        ids=post.ids,
    )
    await post.db.transaction(lambda session: quiet.put(session, post.fact()))
    assert await quiet.run_due() == 0
    assert await post.db[NOTICES].count_documents({}) == 0


async def test_an_account_that_is_deleted_takes_its_notices_along(post: Post) -> None:
    await post.put(post.fact(1), post.fact(2, user_id=BOB))
    await post.wants_sms()
    await post.db.transaction(lambda session: post.store.drop_all(ANN, session))
    assert await post.run() == 1
    assert [one.to for one in post.mail.letters] == ["bob@x.test"]
    assert (await post.notices.settings(ANN)).email, "as it is for who never chose"


async def test_a_person_gets_so_many_sms_a_day_and_no_more(post: Post) -> None:
    await post.wants_sms()
    for number in range(rules.SMS_PER_DAY_MAX + 3):
        await post.put(post.fact(number))
        await post.run(60)
    assert len(post.sms.letters) == rules.SMS_PER_DAY_MAX
    post.clock.pass_(86_400)
    await post.put(post.fact(1_000))
    await post.run()
    assert len(post.sms.letters) == rules.SMS_PER_DAY_MAX + 1


# ------------------------------------------------------------------------------------------------------- tried again


async def test_what_was_not_taken_is_tried_again_later_and_later(post: Post) -> None:
    post.mail.says = [LATER]
    await post.put(post.fact())
    waits = []
    began = post.clock.now()
    while await post.run() or (post.clock.now() - began) < timedelta(hours=rules.TRY_HOURS + 2):
        row = await post.db[NOTICES].find_one({"_id": "f1"})
        assert row is not None
        if "due_at" not in row:
            break
        waits.append((row["due_at"] - post.clock.now()).total_seconds())
        post.clock.pass_(waits[-1])
    assert waits[:3] == sorted(waits[:3])
    assert 1 <= waits[0] <= 1.25
    assert max(waits) <= rules.WAIT_SECONDS_MAX * 1.25
    assert timedelta(hours=23) <= post.clock.now() - began <= timedelta(hours=rules.TRY_HOURS)
    assert post.mail.letters == []
    assert await post.run(86_400) == 0, "older news are no news"


async def test_a_carrier_that_says_when_is_asked_then(post: Post) -> None:
    await post.wants_sms()
    post.sms.says = [replace(LATER, retry_after_seconds=90), OK]
    await post.put(post.fact())
    assert await post.run() == 1
    assert await post.run(89.9) == 0
    assert await post.run(0.1) == 1
    assert len(post.sms.letters) == 1


async def test_an_address_that_will_never_take_it_is_not_tried_again(post: Post) -> None:
    post.mail.says = [NEVER]
    await post.put(post.fact())
    assert await post.run() == 1
    assert await post.run(86_400) == 0


async def test_one_way_that_fails_does_not_repeat_the_other(post: Post) -> None:
    await post.notices.change(ANN, email=True, sms=True)
    post.sms.says = [LATER, LATER, OK]
    await post.put(post.fact())
    for _ in range(5):
        await post.run(60)
    assert (len(post.mail.letters), len(post.sms.letters)) == (1, 1)


# ----------------------------------------------------------------------------------------- a worker that dies, or hangs


@pytest.mark.parametrize("dies", ["before", "after"])
async def test_an_sms_of_a_worker_that_died_is_looked_for_and_sent_once(post: Post, dies: str) -> None:
    await post.wants_sms()
    await post.put(post.fact())
    post.sms.dies = dies
    with pytest.raises(asyncio.CancelledError):
        await post.run()
    post.sms.dies = ""
    assert await post.run(LEASE_SECONDS - 1) == 0, "perhaps it is only slow"
    assert await post.run(1) == 1
    assert len(post.sms.letters) == 1
    assert post.sms.looked == [post.sms.letters[0].mark]
    assert await post.run(86_400) == 0


@pytest.mark.parametrize("taken", [True, False])
async def test_an_sms_that_may_have_been_taken_is_looked_for_before_it_is_sent_again(
    post: Post, taken: bool
) -> None:
    await post.wants_sms()
    await post.put(post.fact())
    post.sms.says, post.sms.finds = [UNSURE, OK], None
    assert await post.run() == 1
    for _ in range(3):
        await post.run(60)
    assert post.sms.letters == [], "as long as nobody can say"
    post.sms.finds = taken
    await post.run(60)
    assert len(post.sms.letters) == int(not taken)
    assert await post.run(86_400) == 0


async def test_an_sms_that_was_certainly_not_taken_is_sent_without_looking(post: Post) -> None:
    await post.wants_sms()
    post.sms.says = [LATER, OK]
    await post.put(post.fact())
    await post.run()
    await post.run(60)
    assert (len(post.sms.letters), post.sms.looked) == (1, [])


@pytest.mark.parametrize("dies", ["before", "after"])
async def test_a_letter_of_a_worker_that_died_goes_again_under_the_same_mark(post: Post, dies: str) -> None:
    await post.put(post.fact())
    post.mail.dies = dies
    with pytest.raises(asyncio.CancelledError):
        await post.run()
    post.mail.dies = ""
    await post.run(LEASE_SECONDS)
    marks = [letter.mark for letter in post.mail.letters]
    assert len(marks) == (1 if dies == "before" else 2)
    assert len(set(marks)) == 1, "its Message-ID: who gets it twice can tell"
    assert await post.run(86_400) == 0


@pytest.mark.parametrize("step", ["begin_unsure", "settle"])
async def test_a_worker_that_dies_at_any_write_leaves_it_to_the_next(
    post: Post, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await post.wants_sms()
    await post.put(post.fact())

    async def dies(*_: object, **__: object) -> None:
        raise asyncio.CancelledError

    with monkeypatch.context() as patched:
        patched.setattr(post.store, step, dies)
        patched.setattr(post.notices, "_store", post.store)
        with pytest.raises(asyncio.CancelledError):
            await post.run()
    await post.process().run_due()
    post.clock.pass_(LEASE_SECONDS)
    await post.process().run_due()
    assert len(post.sms.letters) == 1
    assert await post.run(86_400) == 0


async def test_a_worker_that_stood_still_changes_nothing_any_more(post: Post) -> None:
    await post.put(post.fact())
    now = post.clock.now()
    slow = await post.store.claim(now, lease="slow", lease_until=now + timedelta(seconds=LEASE_SECONDS))
    assert slow is not None
    await post.run(LEASE_SECONDS)
    assert len(post.mail.letters) == 1
    settled = await post.store.settle(
        slow, done=[], sent=[], unsure=False, next_at=post.clock.now(), now=post.clock.now()
    )
    assert not settled
    assert not await post.store.begin_unsure(slow)
    assert await post.run(60) == 0


async def test_what_was_told_goes_after_some_time(post: Post) -> None:
    await post.put(post.fact())
    row = await post.db[NOTICES].find_one({"_id": "f1"})
    assert row is not None
    assert row["purge_at"] == post.clock.now() + timedelta(days=KEPT_DAYS)


async def test_a_changed_pin_is_told_and_one_that_was_not_changed_is_not(post: Post) -> None:
    pins = post.house.wallets.pins
    pins._store.beside_change = post.notices.with_pin
    await post.house.rich(ANN)
    await post.run()
    post.mail.letters.clear()
    await code_of(pins.change(ANN, old=WRONG, new=OTHER_PIN))
    assert await post.run() == 0
    await pins.change(ANN, old=PIN, new=OTHER_PIN)
    await post.run(60)
    await pins.reset(ANN, password=PASSWORD, new=PIN)
    await post.run()
    assert post.subjects == ["Your PIN was changed"] * 2
    assert all(OTHER_PIN not in letter.text and PIN not in letter.text for letter in post.mail.letters)
    await pins.check(ANN, PIN)
