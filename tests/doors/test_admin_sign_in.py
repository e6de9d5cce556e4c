"""The way into the administrators' pages: who gets in, what the browser holds, and when it is over."""

from __future__ import annotations

import re

import pytest

from models.admin.service import IDLE, LIFE
from models.admin.store import ADMIN_SESSIONS
from models.auth.sessions.store import SESSIONS
from tests.doors.adminweb import Web, administrator, keeper
from tests.doors.conftest import PASSWORD, House, open_house

pytestmark = pytest.mark.asyncio(loop_scope="module")

COOKIE = "ringmeter-admin"
SIGN_IN = "/admin/login"


async def rows(house: House, user_id: str) -> list[str]:
    """The digests of somebody's sign-ins to the pages."""
    return [row["_id"] async for row in house.db[ADMIN_SESSIONS].find({"user_id": user_id})]


async def test_a_first_sign_in_leads_through_the_second_factor_and_nowhere_else(rest: House) -> None:
    ada, web = await administrator(rest), Web(rest)
    shown = await web.sign_in(ada.username)
    assert "Set up your second factor" in shown.words
    for path in ("/admin", "/admin/", "/admin/people", "/admin/calls"):
        assert (await web.send("GET", path)).headers["Location"].startswith("/admin/")
        assert "Set up your second factor" in (await web.get(path)).words
    wrong = await web.post("/admin/second-factor", code="000000")
    assert (wrong.status, wrong.problem) == (403, "This code is wrong, or was used already.")
    before = web.cookies[COOKIE]
    recovery = await web.enrol()
    assert "Keep these codes" in recovery.words
    assert len(re.findall(r"<li><code>", recovery.text)) == 10
    assert web.cookies[COOKIE] != before, "what has shown more is another sign-in"
    assert "Overview" in (await web.get("/admin/")).words
    web.cookies[COOKIE] = before
    assert "Sign in" in (await web.get("/admin/")).words


async def test_the_same_key_is_shown_until_its_first_code(rest: House) -> None:
    ada, web = await administrator(rest), Web(rest)
    first = await web.sign_in(ada.username)
    secret = re.search(r'data-test="secret">([^<]+)<', first.text)
    again = await web.get("/admin/second-factor")
    assert secret is not None
    assert secret[1] in again.text
    await web.enrol()
    shown = (await web.get("/admin/second-factor")).words
    assert "Overview" in shown, "on to it"
    assert "Set up your second factor" not in shown


async def test_a_key_that_somebody_else_has_begun_with_is_never_shown(rest: House) -> None:
    ada, web = await administrator(rest), Web(rest)

    async def begun() -> str:
        factors = rest.services.accounts.factors
        return (await factors.set_up(ada.id, ada.username)).secret

    thiefs = await begun()
    first = (await web.sign_in(ada.username)).text
    assert thiefs not in first.replace(" ", "")
    thiefs = await begun()
    web.secret = thiefs
    assert (await web.post("/admin/second-factor", code=web.code())).status != 200, "shown to nobody here"
    again = await web.get("/admin/second-factor")
    assert thiefs not in again.text.replace(" ", "")
    assert "Keep these codes" in (await web.enrol()).words


async def test_signing_in_takes_name_password_and_a_code_that_was_not_used(rest: House) -> None:
    ada, old = await keeper(rest)
    web = Web(rest, secret=old.secret)
    none = await web.sign_in(ada.username)
    assert (none.status, web.cookies.get(COOKIE) in (None, old.cookies[COOKIE])) == (401, False)
    assert "A code of your authenticator app" in none.problem
    assert f'value="{ada.username}"' in none.text, "what was typed is still there"
    assert PASSWORD not in none.text
    await rest.pass_(30)
    code = web.code()
    assert "Overview" in (await web.sign_in(ada.username, code=code)).words
    other = Web(rest)
    assert (await other.sign_in(ada.username, code=code)).status == 403, "a step is taken once"
    assert "Sign in" in (await other.get("/admin/")).words


async def test_a_recovery_code_lets_in_once(rest: House) -> None:
    ada, web = await administrator(rest), Web(rest)
    await web.sign_in(ada.username)
    recovery = re.findall(r"<li><code>([^<]+)<", (await web.enrol()).text)
    assert "Overview" in (await Web(rest).sign_in(ada.username, code=recovery[0])).words
    assert (await Web(rest).sign_in(ada.username, code=recovery[0])).status == 403


async def test_who_is_no_administrator_is_told_so_and_holds_nothing(rest: House) -> None:
    ada, web = await rest.person("ada"), Web(rest)
    shown = await web.sign_in(ada.username)
    assert (shown.status, shown.problem) == (403, "This is not yours to do.")
    assert await rows(rest, ada.id) == []
    assert len(await rest.services.accounts.sessions(ada.id)) == 1, "no sign-in was left behind"
    for name, password in ((ada.username, "wrong"), ("nobody", PASSWORD)):
        shown = await web.sign_in(name, password)
        assert (shown.status, shown.problem) == (401, "The name or the password is wrong.")


async def test_a_cookie_that_was_there_before_is_never_signed_in(rest: House) -> None:
    ada, known = await keeper(rest)
    for planted in ("A" * 43, "x", "é", known.cookies[COOKIE]):
        web = Web(rest, {COOKIE: planted}, known.secret)
        await rest.pass_(30)
        await web.send("GET", SIGN_IN)
        await web.post(SIGN_IN, identifier=ada.username, password=PASSWORD, code=web.code())
        if planted != known.cookies[COOKIE]:
            assert web.cookies[COOKIE] != planted
            assert "Sign in" in (await Web(rest, {COOKIE: planted}).get("/admin/")).words


async def test_the_cookie_is_for_this_host_alone_and_out_of_the_reach_of_scripts(
    rest: House, mongo_uri: str
) -> None:
    ada, web = await administrator(rest), Web(rest)
    await web.get(SIGN_IN)
    answer = await web.send(
        "POST", SIGN_IN, {"csrf": web.csrf, "identifier": ada.username, "password": PASSWORD}
    )
    (line,) = [one for one in answer.headers.getall("Set-Cookie") if one.startswith(f"{COOKIE}=")]
    assert {part.strip() for part in line.split(";")[1:]} == {"HttpOnly", "Path=/", "SameSite=Strict"}
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", web.cookies[COOKIE])
    assert web.cookies[COOKIE] not in str(await rows(rest, ada.id)), "the database has its digest only"
    async with open_house(mongo_uri, PUBLIC_URL="https://calls.example.org") as behind:
        shown = await Web(behind).send("GET", SIGN_IN)
        (line,) = shown.headers.getall("Set-Cookie")
        assert line.startswith("__Host-ringmeter-admin=")
        assert {part.strip() for part in line.split(";")[1:]} == {
            *("HttpOnly", "Path=/", "SameSite=Strict", "Secure"),
        }


async def test_it_is_over_when_nobody_was_there_for_half_an_hour(rest: House) -> None:
    ada, web = await keeper(rest)
    for _ in range(3):
        await rest.pass_(IDLE.total_seconds() - 65)
        assert "Overview" in (await web.get("/admin/")).words
    await rest.pass_(IDLE.total_seconds())
    shown = await web.get("/admin/")
    assert "You were signed out. Sign in again." in shown.words
    assert COOKIE not in web.cookies or await rows(rest, ada.id) == []
    assert len(await rest.services.accounts.sessions(ada.id)) == 1, "the sign-in below it is over, too"


async def test_it_is_over_after_twelve_hours_whoever_was_there(rest: House) -> None:
    _, web = await keeper(rest)
    passed = 0.0
    step = IDLE.total_seconds() - 60
    while passed + step < LIFE.total_seconds() - 120:
        await rest.pass_(step)
        passed += step
        assert "Overview" in (await web.get("/admin/")).words
    await rest.pass_(LIFE.total_seconds() - passed)
    assert "Sign in" in (await web.get("/admin/")).words


async def test_a_page_that_asks_by_itself_keeps_nobody_signed_in(rest: House) -> None:
    _, web = await keeper(rest)
    for _ in range(3):
        await rest.pass_(IDLE.total_seconds() / 4)
        assert (await web.send("GET", "/admin/calls/live", HX_Request="true")).status == 200
    await rest.pass_(IDLE.total_seconds() / 4)
    gone = await web.send("GET", "/admin/calls/live", HX_Request="true")
    assert (gone.status, gone.headers["HX-Redirect"]) == (204, SIGN_IN)


async def test_a_role_that_is_lost_is_lost_at_once(rest: House) -> None:
    ada, web = await keeper(rest)
    await rest.db["users"].update_one({"_id": ada.id}, {"$set": {"role": "user"}})
    shown = await web.get("/admin/people")
    assert "You are no administrator any more." in shown.words
    await rest.db["users"].update_one({"_id": ada.id}, {"$set": {"role": "admin"}})
    assert "Sign in" in (await web.get("/admin/")).words, "and does not come back by itself"


async def test_an_administrator_who_is_banned_is_out_and_stays_out(rest: House) -> None:
    ada, web = await keeper(rest)
    await rest.db["users"].update_one({"_id": ada.id}, {"$set": {"status": "banned"}})
    assert "Sign in" in (await web.get("/admin/")).words
    assert (await web.sign_in(ada.username, code=web.code())).problem == "This account is banned."


async def test_another_password_and_signing_out_everywhere_end_it(rest: House) -> None:
    ada, web = await keeper(rest)
    body = {"currentPassword": PASSWORD, "newPassword": "a wholly other password"}
    assert (await ada.post("/api/auth/change-password", body)).status == 204
    assert await rows(rest, ada.id) == []
    assert "Sign in" in (await web.get("/admin/")).words
    bea, other = await keeper(rest)
    assert (await bea.post("/api/auth/logout-all")).status == 204
    assert await rows(rest, bea.id) == []
    assert "Sign in" in (await other.get("/admin/")).words


async def test_without_its_second_factor_a_sign_in_can_only_set_one_up(rest: House) -> None:
    ada, web = await keeper(rest)
    await rest.services.accounts.factors._store.disable(ada.id, rest.clock.now())
    assert "Set up your second factor" in (await web.get("/admin/people")).words


async def test_a_sign_in_without_a_code_ends_when_a_factor_is_set_up_elsewhere(rest: House) -> None:
    ada, first, second = await administrator(rest), Web(rest), Web(rest)
    await first.sign_in(ada.username)
    await second.sign_in(ada.username)
    await second.enrol()
    assert "Sign in" in (await first.get("/admin/second-factor")).words


async def test_signing_out_ends_it_here_and_in_the_database(rest: House) -> None:
    ada, web = await keeper(rest)
    held = web.cookies[COOKIE]
    answer = await web.send("POST", "/admin/logout", {"csrf": web.csrf})
    assert answer.headers["Clear-Site-Data"] == '"cache"'
    assert "You are signed out." in (await web.get(answer.headers["Location"])).words
    assert await rows(rest, ada.id) == []
    assert "Sign in" in (await Web(rest, {COOKIE: held}).get("/admin/")).words
    assert await rest.db[SESSIONS].count_documents({"user_id": ada.id, "ended_at": None}) == 1


async def test_after_the_sign_in_one_is_where_one_wanted_to_be_but_only_here(rest: House) -> None:
    ada, old = await keeper(rest)
    for wanted, found in (
        ("/admin/people?text=x", "/admin/people?text=x"),
        ("https://evil.example/admin/", "/admin/"),
        ("//evil.example/", "/admin/"),
        ("/admin//evil.example", "/admin/"),
        ("/admin/\\evil.example", "/admin/"),
        ("/admin/x\r\nSet-Cookie: a=b", "/admin/"),
        ("/api/users", "/admin/"),
    ):
        web = Web(rest, secret=old.secret)
        await rest.pass_(30)
        await web.get(SIGN_IN)
        form = {"csrf": web.csrf, "identifier": ada.username, "password": PASSWORD, "code": web.code()}
        answer = await web.send("POST", SIGN_IN, form | {"next": wanted})
        assert (answer.status, answer.headers["Location"]) == (303, found), wanted
    asked = await Web(rest).send("GET", "/admin/people?text=x")
    assert asked.headers["Location"] == "/admin/login?next=%2Fadmin%2Fpeople%3Ftext%3Dx"


async def test_wrong_codes_lock_as_they_do_at_every_sign_in(rest: House) -> None:
    ada, old = await keeper(rest)
    web = Web(rest)
    for _ in range(5):
        assert (await web.sign_in(ada.username, code="000000")).status in (403, 429)
    locked = await web.sign_in(ada.username, code=old.code())
    assert locked.status == 429
    assert "Too many wrong codes" in locked.problem
    assert int(locked.headers["Retry-After"]) > 200
    api = {"identifier": ada.username, "password": PASSWORD, "totp": old.code()}
    assert (await rest.send("POST", "/api/auth/login", api)).error(429, "TOTP_LOCKED")
    assert "Overview" in (await old.get("/admin/")).words, "who is signed in is locked out by nobody"


async def test_strangers_who_guess_lock_out_no_browser_that_was_signed_in_before(rest: House) -> None:
    ada, web = await keeper(rest)
    await web.post("/admin/logout")
    stranger = Web(rest)
    for _ in range(40):
        if (await stranger.sign_in(ada.username, "wrong")).status == 429:
            break
    else:
        pytest.fail("nobody stops a guesser")
    assert (await Web(rest).sign_in(ada.username, PASSWORD)).status == 429, "nor another stranger"
    await rest.pass_(30)
    assert "Overview" in (await web.sign_in(ada.username, code=web.code())).words
