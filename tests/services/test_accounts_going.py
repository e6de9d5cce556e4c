"""Refreshing, signing out, new passwords, bans and deletions, and how other processes learn of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from models.auth.service import SignInDevice
from models.auth.store import AccountStore
from models.db import Database
from models.errors import Refusal
from server.adapters.passwords import Passwords
from tests.fakes import CountingIds, VirtualClock
from tests.services.accounts_house import BY, PASSWORD, House, code_of

NEW_PASSWORD = "correct horse battery staple"
TOKEN = "ExponentPushToken[aaaaaaaaaaaaaaaaaaaaaa]"


class Killed(BaseException):
    """The process ends here."""


@pytest.fixture(scope="module")
def passwords() -> Iterator[Passwords]:
    hasher = Passwords(rounds=4)
    yield hasher
    hasher.close()


@pytest.fixture
async def house(db: Database, clock: VirtualClock, ids: CountingIds, passwords: Passwords) -> House:
    return House(db, clock, ids, passwords)


# ------------------------------------------------------------------------------------------------------- refreshing


async def test_a_refresh_gives_new_tokens_that_go_on(house: House) -> None:
    tokens = (await house.joins()).tokens
    for _ in range(3):
        house.clock.pass_(20)
        after = await house.one.accounts.refresh(tokens.refresh_token)
        assert after.refresh_token != tokens.refresh_token
        assert after.access_token != tokens.access_token
        assert await house.one.accounts.authenticate(after.access_token)
        tokens = after
    assert await house.count("sessions") == 1


async def test_a_lost_answer_is_given_again_for_ten_seconds(house: House) -> None:
    tokens = (await house.joins()).tokens
    first = await house.one.accounts.refresh(tokens.refresh_token)
    house.clock.pass_(10)
    again = await house.process().accounts.refresh(tokens.refresh_token)
    assert again.refresh_token == first.refresh_token
    assert await house.one.accounts.authenticate(again.access_token)
    house.clock.pass_(1)
    assert await house.one.accounts.refresh(first.refresh_token)


async def test_later_reuse_ends_the_sign_in_and_all_its_tokens(house: House) -> None:
    ada = await house.joins()
    user_id, session_id = await house.who(ada)
    other = await house.signs_in()
    await house.one.accounts.keep_push_token(
        user_id, session_id, device_id=None, kind="EXPO", token=TOKEN, platform=None
    )
    successor = await house.one.accounts.refresh(ada.tokens.refresh_token)
    house.clock.pass_(10.001)
    for token in (ada.tokens.refresh_token, successor.refresh_token, ada.tokens.refresh_token):
        assert await code_of(house.one.accounts.refresh(token)) == "REFRESH_REUSED"
    assert await code_of(house.one.accounts.authenticate(successor.access_token)) == "TOKEN_INVALID"
    assert house.one.doors.closed == [(user_id, frozenset({session_id}), "REFRESH_REUSED")]
    assert await house.store.devices.of_users([user_id]) == []
    assert await house.one.accounts.authenticate(other.tokens.access_token), (
        "another sign-in is another family"
    )


async def test_a_token_two_generations_old_is_stolen_even_within_the_ten_seconds(house: House) -> None:
    first = (await house.joins()).tokens
    second = await house.one.accounts.refresh(first.refresh_token)
    await house.one.accounts.refresh(second.refresh_token)
    assert await code_of(house.one.accounts.refresh(first.refresh_token)) == "REFRESH_REUSED"


async def test_eight_refreshes_at_once_rotate_once_and_agree(house: House) -> None:
    ada = await house.joins()
    processes = [house.process() for _ in range(8)]
    done = await asyncio.gather(*(p.accounts.refresh(ada.tokens.refresh_token) for p in processes))
    assert len({tokens.refresh_token for tokens in done}) == 1
    row = await house.db["sessions"].find_one({})
    assert row is not None
    assert row["generation"] == 2


async def test_a_generation_that_we_have_not_reached_is_invalid_and_ends_nothing(house: House) -> None:
    ada = await house.joins()
    _, session_id = await house.who(ada)
    ahead = house.one.accounts._desk.mint.refresh(session_id, 2)
    assert await code_of(house.one.accounts.refresh(ahead)) == "REFRESH_INVALID"
    assert await house.one.accounts.refresh(ada.tokens.refresh_token)


async def test_a_sign_in_that_is_not_used_expires(house: House) -> None:
    ada = await house.joins()
    user_id, session_id = await house.who(ada)
    await house.one.accounts.keep_push_token(
        user_id, session_id, device_id="d", kind="EXPO", token=TOKEN, platform=None
    )
    house.clock.pass_(29 * 86_400)
    tokens = await house.one.accounts.refresh(ada.tokens.refresh_token)
    house.clock.pass_(30 * 86_400)
    assert await code_of(house.one.accounts.refresh(tokens.refresh_token)) == "REFRESH_INVALID"
    assert await house.one.accounts.sessions(user_id) == []
    house.clock.pass_(1)
    assert await house.one.accounts.tidy() == 1
    assert await house.count("sessions") == await house.count("push_tokens") == 0
    assert await code_of(house.one.accounts.refresh(tokens.refresh_token)) == "REFRESH_INVALID"


async def test_a_sign_in_ends_after_a_year_however_much_it_is_used(house: House) -> None:
    ada = await house.joins()
    tokens = ada.tokens
    for _ in range(18):
        house.clock.pass_(20 * 86_400)
        tokens = await house.one.accounts.refresh(tokens.refresh_token)
    house.clock.pass_(5 * 86_400 - 1)
    tokens = await house.one.accounts.refresh(tokens.refresh_token)
    house.clock.pass_(1)
    assert await code_of(house.one.accounts.refresh(tokens.refresh_token)) == "REFRESH_INVALID"
    assert await house.one.accounts.sessions((await house.signs_in()).account.profile.user_id)


async def test_a_banned_or_deleted_person_refreshes_nothing(house: House) -> None:
    ada = await house.joins()
    user_id, _ = await house.who(ada)
    await house.stewards.ban("ada", **BY)
    assert await code_of(house.one.accounts.refresh(ada.tokens.refresh_token)) == "ACCOUNT_BANNED"
    await house.stewards.unban("ada", **BY)
    await house.one.accounts.delete(user_id, password=PASSWORD)
    assert await code_of(house.one.accounts.refresh(ada.tokens.refresh_token)) == "ACCOUNT_DELETED"


# ------------------------------------------------------------------------------------------------------ signing out


async def test_signing_out_ends_this_sign_in_only(house: House) -> None:
    ada, other = await house.joins(), await house.signs_in()
    user_id, session_id = await house.who(ada)
    await house.one.accounts.keep_push_token(
        user_id, session_id, device_id=None, kind="EXPO", token=TOKEN, platform="ios"
    )
    for _ in range(2):  # repeated
        await house.one.accounts.logout(user_id, session_id)
    assert house.one.doors.closed == [(user_id, frozenset({session_id}), "SESSION_ENDED")]
    assert await code_of(house.one.accounts.authenticate(ada.tokens.access_token)) == "TOKEN_INVALID"
    assert await code_of(house.one.accounts.refresh(ada.tokens.refresh_token)) == "REFRESH_INVALID"
    assert await house.count("push_tokens") == 0
    assert await house.one.accounts.authenticate(other.tokens.access_token)
    assert house.one.calls.done == [], "a call may go on at another device"


async def test_signing_out_everywhere_ends_what_there_was_and_not_what_comes(house: House) -> None:
    ada, other = await house.joins(), await house.signs_in()
    user_id, _ = await house.who(ada)
    await house.one.accounts.logout_all(user_id)
    later = await house.signs_in()
    for gone in (ada, other):
        assert await code_of(house.one.accounts.authenticate(gone.tokens.access_token)) == "TOKEN_INVALID"
    _, new_session = await house.who(later)
    await house.one.accounts.watch_revocations()
    assert house.one.doors.closed
    for _, session_ids, _ in house.one.doors.closed:
        assert session_ids is not None
        assert new_session not in session_ids


async def test_the_sign_ins_are_listed_and_one_can_end_another(house: House) -> None:
    ada = await house.joins()
    user_id, session_id = await house.who(ada)
    house.clock.pass_(5)
    other = await house.signs_in()
    _, other_session = await house.who(other)
    found = await house.one.accounts.sessions(user_id)
    assert [x.id for x in found] == [other_session, session_id]
    assert found[1].device == SignInDevice(id="ada-phone", name="Phone", platform="ios")
    for _ in range(2):  # repeated
        await house.one.accounts.end_session(user_id, other_session)
    assert [x.id for x in await house.one.accounts.sessions(user_id)] == [session_id]
    assert house.one.doors.closed == [(user_id, frozenset({other_session}), "SESSION_ENDED")]


async def test_nobody_ends_somebody_elses_sign_in(house: House) -> None:
    (ada_id, _), (_, bob_session) = (
        await house.who(await house.joins("ada")),
        await house.who(await house.joins("bob")),
    )
    for session_id in (bob_session, "none"):
        assert await code_of(house.one.accounts.end_session(ada_id, session_id)) == "SESSION_UNKNOWN"
    assert house.one.doors.closed == []


# --------------------------------------------------------------------------------------------------------- password


async def test_a_new_password_ends_all_other_sign_ins(house: House) -> None:
    ada, other = await house.joins(), await house.signs_in()
    (user_id, session_id), (_, other_session) = await house.who(ada), await house.who(other)
    await house.one.accounts.change_password(user_id, session_id, current=PASSWORD, new=NEW_PASSWORD)
    assert house.one.doors.closed == [(user_id, frozenset({other_session}), "SESSION_ENDED")]
    assert await house.one.accounts.authenticate(ada.tokens.access_token)
    assert await code_of(house.one.accounts.authenticate(other.tokens.access_token)) == "TOKEN_INVALID"
    assert await code_of(house.signs_in()) == "CREDENTIALS_WRONG"
    assert await house.signs_in(password=NEW_PASSWORD)


async def test_a_password_is_changed_only_with_the_one_before(house: House) -> None:
    user_id, session_id = await house.who(await house.joins())
    change = house.one.accounts.change_password
    assert await code_of(change(user_id, session_id, current="wrong", new=NEW_PASSWORD)) == "PASSWORD_WRONG"
    assert await code_of(change(user_id, session_id, current=PASSWORD, new="short")) == "VALIDATION_FAILED"
    assert await house.signs_in()


async def test_of_two_password_changes_at_once_one_wins(house: House) -> None:
    user_id, session_id = await house.who(await house.joins())
    done = await asyncio.gather(
        *(
            house.one.accounts.change_password(
                user_id, session_id, current=PASSWORD, new=f"{NEW_PASSWORD}{n}"
            )
            for n in range(2)
        ),
        return_exceptions=True,
    )
    assert sorted(type(x).__name__ for x in done) == ["NoneType", "Refusal"]
    winner = done.index(None)
    assert await house.signs_in(password=f"{NEW_PASSWORD}{winner}")


async def test_no_sign_in_with_the_old_password_outlives_the_change(house: House) -> None:
    user_id, session_id = await house.who(await house.joins())
    signed_in = await asyncio.gather(
        house.one.accounts.change_password(user_id, session_id, current=PASSWORD, new=NEW_PASSWORD),
        *(house.signs_in() for _ in range(6)),
        return_exceptions=True,
    )
    assert signed_in[0] is None
    assert [x.id for x in await house.one.accounts.sessions(user_id)] == [session_id]


# -------------------------------------------------------------------------------------------------- other processes


async def test_a_ban_by_another_program_closes_sockets_and_ends_the_call_in_every_process(
    house: House,
) -> None:
    user_id, _ = await house.who(await house.joins())
    servers = [house.one, house.process()]
    await house.stewards.ban("ada@example.com", **BY)
    for server in servers:
        await server.accounts.watch_revocations()
        assert server.doors.closed == [(user_id, None, "ACCOUNT_BANNED")]
        assert server.calls.done == [("end_all", user_id)]


async def test_a_revocation_is_acted_upon_for_two_seconds_and_then_no_more(house: House) -> None:
    await house.joins()
    await house.stewards.ban("ada", **BY)
    acted = []
    for _ in range(200):
        before = len(house.one.doors.closed)
        await house.one.accounts.watch_revocations()
        acted.append(len(house.one.doors.closed) - before)
        house.clock.pass_(0.4)
    assert acted == [1] * 6 + [0] * 194
    await house.one.accounts.tidy()
    assert await house.count("revocations") == 1
    house.clock.pass_(3600)
    await house.one.accounts.tidy()
    assert await house.count("revocations") == 0


async def test_an_unban_takes_the_revocation_back(house: House) -> None:
    ada = await house.joins()
    await house.stewards.ban("ada", **BY)
    await house.stewards.unban("ada", **BY)
    await house.one.accounts.watch_revocations()
    assert house.one.doors.closed == []
    assert await house.one.accounts.refresh(ada.tokens.refresh_token), "the sign-ins have waited"


async def test_a_sign_out_in_one_process_closes_the_socket_in_another(house: House) -> None:
    user_id, session_id = await house.who(await house.joins())
    other = house.process()
    await house.one.accounts.logout(user_id, session_id)
    await other.accounts.watch_revocations()
    assert (
        other.doors.closed == house.one.doors.closed == [(user_id, frozenset({session_id}), "SESSION_ENDED")]
    )


# --------------------------------------------------------------------------------------------------------- deletion


async def test_a_deleted_account_leaves_a_tombstone_without_anything_personal(house: House) -> None:
    ada = await house.joins("ada", phone="+2348012345678", display_name="Ada Obi")
    bob_id, _ = await house.who(await house.joins("bob"))
    user_id, session_id = await house.who(ada)
    await house.one.users.block(user_id, bob_id)
    await house.one.users.block(bob_id, user_id)
    await house.one.accounts.keep_push_token(
        user_id, session_id, device_id=None, kind="EXPO", token=TOKEN, platform="ios"
    )
    house.one.calls.done.clear()
    await house.one.accounts.delete(user_id, password=PASSWORD)
    row = await house.db["users"].find_one({"_id": user_id})
    left = str(row) + str([x async for x in house.db["sessions"].find({"user_id": user_id})])
    for personal in ("ada", "Ada", "Obi", "2348012345678", "$2b$", "ios", "Phone"):
        assert personal not in left
    assert await house.count("blocks") == await house.count("push_tokens") == 0
    assert house.one.calls.done == [("end_all", user_id), ("forget", user_id)]
    assert house.one.doors.closed == [(user_id, None, "ACCOUNT_DELETED")]
    assert await code_of(house.one.accounts.authenticate(ada.tokens.access_token)) == "ACCOUNT_DELETED"
    assert await code_of(house.signs_in()) == "CREDENTIALS_WRONG"
    again = await house.joins("ada", phone="+2348012345678")
    assert again.account.profile.user_id != user_id, (
        "the names are free, and whoever takes them is somebody else"
    )


async def test_a_deletion_wants_the_password(house: House) -> None:
    user_id, _ = await house.who(await house.joins())
    assert await code_of(house.one.accounts.delete(user_id, password="wrong")) == "PASSWORD_WRONG"
    assert house.one.doors.closed == []
    assert await house.signs_in()


async def test_a_second_deletion_is_refused(house: House) -> None:
    user_id, _ = await house.who(await house.joins())
    done = await asyncio.gather(
        *(house.one.accounts.delete(user_id, password=PASSWORD) for _ in range(2)), return_exceptions=True
    )
    assert sorted(type(x).__name__ for x in done) == ["NoneType", "Refusal"]


async def test_nobody_signs_in_while_being_deleted(house: House) -> None:
    user_id, _ = await house.who(await house.joins())
    await asyncio.gather(
        house.one.accounts.delete(user_id, password=PASSWORD),
        *(house.signs_in() for _ in range(6)),
        return_exceptions=True,
    )
    assert await house.one.accounts.sessions(user_id) == []


async def test_a_process_killed_before_the_calls_forget_is_made_good_by_the_next(house: House) -> None:
    user_id, _ = await house.who(await house.joins())
    house.one.calls.broken = Killed()
    with pytest.raises(Killed):
        await house.one.accounts.delete(user_id, password=PASSWORD)
    next_one = house.process()
    await next_one.accounts.tidy()
    assert next_one.calls.done == [], "the first one might still be at it"
    house.clock.pass_(16)
    await next_one.accounts.watch_revocations()
    assert next_one.doors.closed == [(user_id, None, "ACCOUNT_DELETED")]
    await next_one.accounts.tidy()
    assert ("forget", user_id) in next_one.calls.done
    next_one.calls.done.clear()
    await next_one.accounts.tidy()
    assert next_one.calls.done == []


@pytest.mark.parametrize("killed_at", ["note", "end", "strip", "live_ids", "drop_all"])
async def test_killed_in_the_middle_of_a_deletion_nothing_has_happened(house: House, killed_at: str) -> None:
    ada = await house.joins()
    user_id, _ = await house.who(ada)
    store = AccountStore(house.db)
    part = store.devices if killed_at == "drop_all" else store.sessions

    async def dies(*_: object, **__: object) -> None:
        raise Killed

    setattr(part, killed_at, dies)
    with pytest.raises(Killed):
        await house.process(store=store).accounts.delete(user_id, password=PASSWORD)
    assert await house.one.accounts.authenticate(ada.tokens.access_token)
    assert await house.signs_in()
    assert await house.count("revocations") == 0


@pytest.mark.parametrize("killed_at", ["insert", "surplus"])
async def test_killed_in_the_middle_of_coming_in_nothing_has_happened(house: House, killed_at: str) -> None:
    await house.joins("ada")
    store = AccountStore(house.db)

    async def dies(*_: object, **__: object) -> None:
        raise Killed

    setattr(store.sessions, killed_at, dies)
    dying = house.process(store=store).accounts
    with pytest.raises(Killed):
        await dying.login(identifier="ada", password=PASSWORD, device=SignInDevice())
    if killed_at == "insert":
        with pytest.raises(Killed):
            await dying.register(
                email="bob@example.com",
                phone=None,
                username="bob",
                password=PASSWORD,
                display_name=None,
                device=SignInDevice(),
            )
        assert await house.joins("bob"), "the name is still free"
    assert await house.count("sessions") == (2 if killed_at == "insert" else 1)


# ------------------------------------------------------------------------------------------------------ push tokens


async def test_a_push_token_is_the_devices_that_gave_it_last(house: House) -> None:
    (ada_id, ada_session), (bob_id, bob_session) = (
        await house.who(await house.joins("ada")),
        await house.who(await house.joins("bob")),
    )
    keep = house.one.accounts.keep_push_token
    for _ in range(2):  # repeated
        push = await keep(ada_id, ada_session, device_id=None, kind="EXPO", token=TOKEN, platform="ios")
        assert (push.device_id, push.kind, push.platform) == ("ada-phone", "EXPO", "ios")
    await keep(ada_id, ada_session, device_id=None, kind="APNS_VOIP", token="ab" * 32, platform="ios")
    assert len(await house.store.devices.of_users([ada_id])) == 2
    await keep(bob_id, bob_session, device_id="shared", kind="EXPO", token=TOKEN, platform="ios")
    assert [x.kind for x in await house.store.devices.of_users([ada_id])] == ["APNS_VOIP"], (
        "signed in on one phone"
    )
    assert [x.token for x in await house.store.devices.of_users([bob_id])] == [TOKEN]


async def test_a_device_that_gets_a_new_token_loses_the_old_one(house: House) -> None:
    user_id, session_id = await house.who(await house.joins())
    keep = house.one.accounts.keep_push_token
    tokens = [f"ExpoPushToken[{n}]" for n in range(6)]
    for token in tokens[:2]:
        await keep(user_id, session_id, device_id="d1", kind="EXPO", token=token, platform=None)
    assert [x.token for x in await house.store.devices.of_users([user_id])] == [tokens[1]]
    await asyncio.gather(
        *(keep(user_id, session_id, device_id="d1", kind="EXPO", token=t, platform=None) for t in tokens)
    )
    assert await house.count("push_tokens") == 1


async def test_a_push_token_is_dropped_by_its_owner_by_name_or_by_device(house: House) -> None:
    user_id, session_id = await house.who(await house.joins("ada"))
    bob_id, bob_session = await house.who(await house.joins("bob"))
    keep, drop = house.one.accounts.keep_push_token, house.one.accounts.drop_push_token
    await keep(user_id, session_id, device_id=None, kind="EXPO", token=TOKEN, platform=None)
    await drop(bob_id, bob_session, token=TOKEN, device_id=None)
    assert await house.count("push_tokens") == 1, "not by somebody else"
    await drop(user_id, session_id, token=TOKEN, device_id=None)
    assert await house.count("push_tokens") == 0
    await keep(user_id, session_id, device_id=None, kind="EXPO", token=TOKEN, platform=None)
    await drop(user_id, session_id, token=None, device_id=None)
    await drop(user_id, session_id, token=None, device_id=None)
    assert await house.count("push_tokens") == 0


async def test_a_sign_in_that_is_over_keeps_no_push_token(house: House) -> None:
    user_id, session_id = await house.who(await house.joins())
    done = await asyncio.gather(
        house.one.accounts.logout(user_id, session_id),
        house.one.accounts.keep_push_token(
            user_id, session_id, device_id="d", kind="EXPO", token=TOKEN, platform=None
        ),
        return_exceptions=True,
    )
    assert done[0] is None
    if isinstance(done[1], BaseException):
        assert isinstance(done[1], Refusal)
        assert done[1].code == "TOKEN_INVALID"
    assert await house.count("push_tokens") == 0
