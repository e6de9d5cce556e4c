"""Forms of the administrators' pages are taken from our own pages only, and nothing of a page is kept anywhere."""

from __future__ import annotations

import re

import pytest
from pymongo.errors import AutoReconnect
from structlog.testing import capture_logs

from models.errors import CODES
from server.admin.static import FOREVER
from tests.doors.adminweb import Shown, Web, administrator, keeper
from tests.doors.conftest import PASSWORD, House, open_house

pytestmark = pytest.mark.asyncio(loop_scope="module")

FOREIGN = CODES["FORM_FOREIGN"].sentence
_GOOD = {"reason": "Threats in three calls"}


async def status_of(house: House, user_id: str) -> str:
    row = await house.db["users"].find_one({"_id": user_id})
    assert row is not None
    return str(row["status"])


async def refused(shown: Shown) -> None:
    assert (shown.status, shown.problem) == (403, FOREIGN)


async def test_a_form_without_its_mark_or_with_another_does_nothing(rest: House) -> None:
    _, web = await keeper(rest)
    _, other = await keeper(rest)
    bea = await rest.person("bea")
    path = f"/admin/people/{bea.id}/ban"
    for mark in ({}, {"csrf": ""}, {"csrf": "0" * 64}, {"csrf": other.csrf}, {"csrf": "é"}):
        await refused(await web.send("POST", path, {**_GOOD, **mark}))
    await refused(await web.send("POST", path, _GOOD, X_CSRF_Token=other.csrf))
    assert await status_of(rest, bea.id) == "active"
    await web.get(f"/admin/people/{bea.id}")
    assert (await web.send("POST", path, _GOOD, X_CSRF_Token=web.csrf)).status == 303
    assert await status_of(rest, bea.id) == "banned"


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://["},
        {"Origin": "file://"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": "none"},
    ],
)
async def test_a_form_from_elsewhere_does_nothing_whatever_its_mark(
    rest: House, headers: dict[str, str]
) -> None:
    _, web = await keeper(rest)
    bea = await rest.person("bea")
    path = f"/admin/people/{bea.id}/ban"
    await refused(await web.send("POST", path, {**_GOOD, "csrf": web.csrf}, **headers))
    assert await status_of(rest, bea.id) == "active"
    own = {"Origin": rest.url, "Sec_Fetch_Site": "same-origin"}
    assert (await web.send("POST", path, {**_GOOD, "csrf": web.csrf}, **own)).status == 303


async def test_a_sign_in_from_elsewhere_signs_nobody_in(rest: House) -> None:
    ada, web = await administrator(rest), Web(rest)
    await web.get("/admin/login")
    form = {"csrf": web.csrf, "identifier": ada.username, "password": PASSWORD}
    await refused(await web.send("POST", "/admin/login", form, Origin="https://evil.example"))
    await refused(await Web(rest).send("POST", "/admin/login", form))
    await refused(await web.send("POST", "/admin/login", {**form, "csrf": "0" * 64}))
    assert "Sign in" in (await web.get("/admin/")).words


async def test_what_is_no_form_is_not_read(rest: House) -> None:
    _, web = await keeper(rest)
    bea = await rest.person("bea")
    for kind in ("application/json", "text/plain", "multipart/form-data; boundary=x"):
        await refused(
            await web.send(
                "POST", f"/admin/people/{bea.id}/ban", None, Content_Type=kind, X_CSRF_Token=web.csrf
            )
        )
    huge = await web.send("POST", f"/admin/people/{bea.id}/ban", {"csrf": web.csrf, "reason": "x" * 300_000})
    assert huge.status == 413
    assert await status_of(rest, bea.id) == "active"


async def test_pages_are_kept_nowhere_and_run_nothing_but_our_own_files(rest: House) -> None:
    ada, web = await keeper(rest)
    shown = [await Web(rest).get("/admin/login"), await web.get("/admin/nothing")]
    paths = (
        "/admin/",
        "/admin/people",
        f"/admin/people/{ada.id}",
        "/admin/calls",
        "/admin/reports",
        "/admin/trail",
    )
    shown += [await web.get(path) for path in paths]
    shown.append(await web.send("POST", f"/admin/people/{ada.id}/ban", {}))
    for page in shown:
        assert page.headers["Cache-Control"] == "no-store"
        policy = page.headers["Content-Security-Policy"]
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert "default-src 'none'" in policy
        assert "object-src 'none'; base-uri 'none'" in policy
        assert page.headers["X-Frame-Options"] == "DENY"
        assert page.headers["Referrer-Policy"] == "same-origin"
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", page.text), (
            "nothing stands in the page"
        )
        assert all("src=" in one for one in re.findall(r"<script[^>]*>", page.text))
        assert page.text.startswith("<!doctype html>")
        assert '<html lang="en">' in page.text


async def test_files_are_kept_for_good_under_the_name_of_what_is_in_them(rest: House) -> None:
    shown = await Web(rest).get("/admin/login")
    urls = set(re.findall(r'(?:href|src)="(/static/admin/[^"#]+)', shown.text))
    assert len(urls) >= 3
    for url in urls:
        async with rest.http.get(rest.url + url) as answer:
            assert (answer.status, answer.headers["Cache-Control"]) == (200, FOREVER)
        digest = url.split("/")[3]
        async with rest.http.get(rest.url + url.replace(digest, "0" * 16)) as answer:
            assert answer.status == 404


async def test_every_field_has_a_label_and_every_table_its_heads(rest: House) -> None:
    ada, web = await keeper(rest)
    await rest.services.wallets.create(ada.id, "7391", "NGN")
    bea = await rest.person("bea")
    await rest.services.wallets.create(bea.id, "7391", "NGN")
    pages = [
        "/admin/",
        "/admin/people",
        f"/admin/people/{bea.id}",
        "/admin/calls",
        "/admin/reports",
        "/admin/trail",
    ]
    for shown in [await Web(rest).get("/admin/login"), *[await web.get(path) for path in pages]]:
        labels = set(re.findall(r'<label for="([^"]+)"', shown.text))
        for tag in re.findall(r"<(?:input|select|textarea)\b[^>]*>", shown.text):
            if 'type="hidden"' in tag or 'type="radio"' in tag:
                continue
            found = re.search(r'\bid="([^"]+)"', tag)
            assert found, tag
            assert found[1] in labels, tag
        ids = re.findall(r'\sid="([^"]+)"', shown.text)
        assert len(ids) == len(set(ids)), "ids are of one thing each"
        for table in re.findall(r"<table.*?</table>", shown.text, re.DOTALL):
            heads = len(re.findall(r'<th role="columnheader" scope="col"', table))
            rows = re.findall(r"<tr role=\"row\".*?</tr>", table.split("<tbody")[1], re.DOTALL)
            assert heads
            assert all(len(re.findall(r"<td ", row)) == heads for row in rows)


async def test_names_and_words_of_others_are_text_on_every_page(rest: House) -> None:
    _, web = await keeper(rest)
    nasty = "<img src=x onerror=alert(1)>\"'{{7*7}}"
    bea = await rest.person("bea", displayName=nasty[:50])
    cyn = await rest.person("cyn", displayName="</title><script>alert(2)</script>")
    report = await bea.post("/api/reports", {"userId": cyn.id, "reason": "abuse", "comment": nasty})
    assert report.status == 201, report.body
    ban = await web.get(f"/admin/people/{cyn.id}")
    ban = await web.post(f"/admin/people/{cyn.id}/ban", reason=nasty)
    assert "is banned." in ban.said
    for path in (
        "/admin/",
        "/admin/people",
        f"/admin/people/{bea.id}",
        f"/admin/people/{cyn.id}",
        "/admin/reports",
        f"/admin/reports/{report.body['report']['id']}",
        "/admin/trail",
        "/admin/people?text=" + "%22%3E%3Cscript%3E",
        "/admin/trail?text=%22%3E%3Cscript%3E&actor=%22%3E%3Cscript%3E",
    ):
        text = (await web.get(path)).text
        for bad in ("<img src=x", "<script>", "</title><script", "&#39;49"):
            assert bad not in text, (path, bad)
    wrong = await web.post(f"/admin/people/{bea.id}/ban", reason="")
    assert "<img src=x" not in wrong.text


async def test_what_was_done_is_said_once_and_only_if_we_said_it(rest: House) -> None:
    _, web = await keeper(rest)
    bea = await rest.person("bea")
    await web.get(f"/admin/people/{bea.id}")
    shown = await web.post(f"/admin/people/{bea.id}/ban", **_GOOD)
    assert shown.said == f"{bea.username} is banned."
    assert (await web.get(f"/admin/people/{bea.id}")).said == ""
    web.cookies["ringmeter-admin-said"] = "WW91IGhhdmUgd29u.0000"
    assert (await web.get("/admin/")).said == ""


async def test_a_refused_form_keeps_what_was_typed(rest: House) -> None:
    _, web = await keeper(rest)
    bea = await rest.person("bea")
    await web.get(f"/admin/people/{bea.id}")
    long = "x" * 501
    shown = await web.post(f"/admin/people/{bea.id}/ban", reason=long)
    assert shown.status == 400
    assert long in shown.text
    assert "500" in shown.problem
    assert await status_of(rest, bea.id) == "active"
    shown = await web.post(f"/admin/people/{bea.id}/promote", reason="They keep the desk", code="000000")
    assert (shown.status, "They keep the desk" in shown.text, "000000" in shown.text) == (403, True, False)


async def test_a_form_that_is_locked_says_when_to_come_back(rest: House) -> None:
    _, web = await keeper(rest)
    bea = await rest.person("bea")
    await web.get(f"/admin/people/{bea.id}")
    form = {"reason": "They keep the desk", "code": "000000"}
    for _ in range(4):
        shown = await web.post(f"/admin/people/{bea.id}/promote", **form)
        assert (shown.status, "Retry-After" in shown.headers) == (403, False)
    for status in (403, 429):
        shown = await web.post(f"/admin/people/{bea.id}/promote", **form)
        assert (shown.status, shown.headers["Retry-After"]) == (status, "300")
        assert "Come back in 5 minutes." in shown.problem
        assert "They keep the desk" in shown.text


async def test_a_refusal_that_passes_says_when_to_come_back(mongo_uri: str) -> None:
    async with open_house(mongo_uri, AUTH_PER_MINUTE="3") as tight:
        ada, web = await administrator(tight), Web(tight)
        for _ in range(3):
            assert (await web.sign_in(ada.username, "wrong")).status == 401
        shown = await web.sign_in(ada.username, "wrong")
        assert shown.status == 429
        assert "Come back in" in shown.problem
        assert 0 < int(shown.headers["Retry-After"]) <= 60
        assert f'value="{ada.username}"' in shown.text


@pytest.mark.parametrize(
    ("fault", "status", "said"),
    [
        (AutoReconnect("away"), 503, CODES["DATABASE_AWAY"].sentence),
        (ZeroDivisionError(), 500, CODES["INTERNAL"].sentence),
    ],
)
async def test_a_fault_is_a_page_that_asks_the_database_for_nothing(
    rest: House, monkeypatch: pytest.MonkeyPatch, fault: Exception, status: int, said: str
) -> None:
    _, web = await keeper(rest)

    async def broken(*_: object) -> int:
        raise fault

    monkeypatch.setattr(rest.services.desk.calls, "live_number", broken)
    # To lay out the trace of a fault in a page, as the log does in development, costs half a second each time.
    with capture_logs() as logs:
        for path in ("/admin/", "/admin/calls", "/admin/people"):
            shown = await web.get(path)
            assert (shown.status, said in shown.problem) == (status, True)
            assert shown.headers["Cache-Control"] == "no-store"
            assert ("Retry-After" in shown.headers) == (status == 503)
            assert int(shown.headers.get("Retry-After", "1")) >= 1
        part = await web.send("GET", "/admin/calls/live", HX_Request="true")
    assert (part.status, "<" in part.text) == (status, False), "a part that is refused is put into no page"
    traces = [entry["exc_info"] for entry in logs if entry["event"] == "unforeseen fault"]
    assert traces == ([fault] * 4 if status == 500 else [])
    monkeypatch.undo()
    assert (await web.get("/admin/")).status == 200


async def test_the_pages_are_not_there_from_other_networks(mongo_uri: str) -> None:
    async with open_house(
        mongo_uri, ADMIN_NETWORKS="10.0.0.0/8, 2001:db8::/32", TRUSTED_PROXY_HOPS="1"
    ) as near:
        for address, there in (
            ("10.1.2.3", True),
            ("2001:db8::7", True),
            ("::ffff:10.1.2.3", True),
            ("11.1.2.3", False),
            ("2001:db9::7", False),
            ("nowhere", False),
        ):
            answer = await near.send("GET", "/admin/login", headers={"X-Forwarded-For": address})
            assert answer.status == (200 if there else 404), address
        unknown = await near.send("GET", "/admin/login", headers={"X-Forwarded-For": "11.1.2.3"})
        assert unknown.error(404, "ROUTE_UNKNOWN")


async def test_the_pages_are_in_no_document(rest: House) -> None:
    document = (await rest.send("GET", "/openapi.json")).body
    assert not [path for path in document["paths"] if path.startswith("/admin")]
