"""What guards an account, when it changes: told to its owner, and kept with the change itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from models.auth.store import AccountStore
from models.db import Database
from models.notices.notice import EMAIL, Letter, Outcome, Sent
from models.notices.service import Notices
from models.notices.store import NoticeStore
from server.adapters.passwords import Passwords
from server.wiring_notices import WiredNotices
from tests.fakes import CountingIds, VirtualClock
from tests.services.accounts_house import PASSWORD, House
from tests.services.test_second_factor import Phone

NEW = "kettle orbit 73 lantern"


class Post:
    """Carries everything, and remembers it."""

    def __init__(self) -> None:
        self.letters: list[Letter] = []

    async def carry(self, letter: Letter) -> Outcome:
        self.letters.append(letter)
        return Outcome(sent=Sent.OK)

    async def carried(self, letter: Letter) -> bool | None:
        return None

    async def close(self) -> None: ...


@pytest.fixture(scope="module")
def passwords() -> Iterator[Passwords]:
    hasher = Passwords(rounds=4)
    yield hasher
    hasher.close()


async def test_changes_of_what_guards_an_account_are_told(
    db: Database, clock: VirtualClock, ids: CountingIds, passwords: Passwords
) -> None:
    house, post = House(db, clock, ids, passwords), Post()
    notices = Notices(
        store=NoticeStore(db), users=house.one.users, carriers={EMAIL: post}, clock=clock, ids=ids
    )
    wired: Any = WiredNotices(notices=notices, carriers={EMAIL: post}, told=True, queues={})
    factors, keys = house.one.accounts.factors._store, house.one.accounts.api_keys.store
    wired.listen_to_accounts(accounts=house.store, factors=factors, api_keys=keys)
    assert isinstance(house.one.accounts._store, AccountStore)
    assert house.one.accounts._store is house.store

    async def told() -> list[str]:
        await notices.run_due()
        said, post.letters = [letter.subject for letter in post.letters], []
        return said

    ada = await house.joins()
    await db["users"].update_one({}, {"$set": {"email_verified_at": clock.now()}})
    user_id, session_id = await house.who(ada)
    assert await told() == []
    phone = await Phone(house, user_id).turned_on()
    assert await told() == ["Second factor turned on"]
    await house.one.accounts.api_keys.make(user_id, name="x", scopes=["calls:read"], per_minute=1, days=1)
    assert await told() == ["API key made"]
    await house.one.accounts.disable_factor(user_id, password=PASSWORD, totp=phone.code(), recovery_code=None)
    assert await told() == ["Second factor turned off"]
    await house.one.accounts.change_password(user_id, session_id, current=PASSWORD, new=NEW)
    assert await told() == ["Your password was changed"]
    clock.pass_(1)
    await house.one.accounts.codes.forgot("ada")
    await house.one.accounts.codes.run_due()
    await house.one.accounts.reset_password("ada", house.messenger.code(), new=PASSWORD, address="a")
    assert await told() == ["Your password was changed"]
