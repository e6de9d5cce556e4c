"""Files over HTTP: uploads in both forms, what is refused, ranges and conditions, who may see, links."""

from __future__ import annotations

import asyncio
import io
import re
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from PIL import Image

from models.media.rules import UNSENT_SECONDS
from tests.doors.conftest import House, Person, Reply
from tests.services.mediakit import KIB, MIB, PDF, image

pytestmark = pytest.mark.asyncio(loop_scope="module")

MOST = 800 * KIB
HOUSE = {"MEDIA_BYTES_MAX": str(MOST), "MEDIA_USER_BYTES_MAX": str(8 * MOST)}
DATA = PDF + bytes(n % 251 for n in range(700 * KIB))


async def put(
    who: Person, data: bytes, *, name: str | None = None, headers: dict[str, str] | None = None
) -> Reply:
    sent = {"Content-Type": "application/octet-stream", **(headers or {})}
    if name is not None:
        sent["X-Filename"] = quote(name)
    return await who.send("POST", "/api/media", data=data, headers=sent)


async def uploaded(who: Person, data: bytes, **more: Any) -> dict[str, Any]:
    reply = await put(who, data, **more)
    assert reply.status == 201, reply.body
    return dict(reply.body["media"])


async def fetch(
    house: House, path: str, who: Person | None = None, *, method: str = "GET", **headers: str
) -> tuple[int, bytes, Any]:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if who is not None:
        sent["Authorization"] = f"Bearer {who.token}"
    async with house.http.request(method, house.url + path, headers=sent) as answer:
        return answer.status, await answer.read(), answer.headers


# ------------------------------------------------------------------------------------------------------------ uploads


async def test_a_picture_is_uploaded_and_looked_at(rest: House) -> None:
    ann = await rest.person("ann")
    picture = image("PNG", (800, 600))
    file = await uploaded(ann, picture, name="Größe 1/a.png", headers={"Content-Type": "text/html"})
    assert file == {
        "id": file["id"],
        "kind": "image",
        "contentType": "image/png",
        "sizeBytes": len(picture),
        "filename": "a.png",
        "width": 800,
        "height": 600,
        "url": f"/api/media/{file['id']}",
        "thumbnailUrl": f"/api/media/{file['id']}/thumbnail",
        "expiresInMs": UNSENT_SECONDS * 1000,
    }
    status, data, headers = await fetch(rest, file["url"], ann)
    assert (status, data, headers["Content-Type"]) == (200, picture, "image/png")
    status, small, headers = await fetch(rest, file["thumbnailUrl"], ann)
    assert (status, headers["Content-Type"]) == (200, "image/jpeg")
    with Image.open(io.BytesIO(small)) as opened:
        assert opened.size == (320, 240)


@pytest.mark.parametrize(
    "named",
    [
        'filename="Bericht äöü.pdf"',  # browsers, React Native before 0.75
        "filename=\"Bericht äöü.pdf\"; filename*=utf-8''Bericht%20%C3%A4%C3%B6%C3%BC.pdf",
    ],
)
async def test_a_form_as_apps_send_it(rest: House, named: str) -> None:
    ann = await rest.person("ann")
    head = (
        '--x\r\nContent-Disposition: form-data; name="caption"\r\n\r\nsomething that comes first\r\n'
        f'--x\r\nContent-Disposition: form-data; name="file"; {named}\r\nContent-Type: image/png\r\n\r\n'
    )
    whole = (
        head.encode() + DATA + b'\r\n--x\r\nContent-Disposition: form-data; name="z"\r\n\r\nz\r\n--x--\r\n'
    )
    file = await uploaded(ann, whole, headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert (file["contentType"], file["filename"]) == ("application/pdf", "Bericht äöü.pdf")
    assert (await fetch(rest, file["url"], ann))[1] == DATA


@pytest.mark.parametrize(
    "whole",
    [
        b"",
        b"--x\r\n",
        b"--x--\r\n",
        b"no boundary at all",
        b'--x\r\nContent-Disposition: form-data; name="other"\r\n\r\nabc\r\n--x--\r\n',
        b'--x\r\nContent-Disposition: form-data; name="file"\r\nContent-Type: multipart/mixed; boundary=y\r\n\r\n',
        b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\n\r\n--x--\r\n',
        b"--x\r\n" + b"A: b\r\n" * 1000 + b"\r\n",
    ],
)
async def test_a_form_without_a_file_is_refused(rest: House, whole: bytes) -> None:
    ann = await rest.person("ann")
    reply = await put(ann, whole, headers={"Content-Type": "multipart/form-data; boundary=x"})
    error = reply.error(400, "VALIDATION_FAILED")
    assert "file" in error["details"]


@pytest.mark.parametrize(
    "kind", ["multipart/form-data", "multipart/form-data; boundary=" + "x" * 100, "multipart/"]
)
async def test_a_form_that_is_none_is_refused(rest: House, kind: str) -> None:
    ann = await rest.person("ann")
    (await put(ann, b"--x\r\n", headers={"Content-Type": kind})).error(400, "VALIDATION_FAILED")


async def test_a_form_that_is_cut_off_is_refused_and_nothing_of_it_is_kept(rest: House) -> None:
    ann = await rest.person("ann")
    whole = b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\n' + DATA
    reply = await put(ann, whole, headers={"Content-Type": "multipart/form-data; boundary=x"})
    reply.error(400, "UPLOAD_INCOMPLETE")
    assert await kept_of(rest, ann) == 0


async def test_what_comes_before_a_forms_file_has_a_limit(rest: House) -> None:
    ann = await rest.person("ann")
    head = b'--x\r\nContent-Disposition: form-data; name="other"\r\n\r\n' + bytes(200 * KIB)
    whole = head + b'\r\n--x\r\nContent-Disposition: form-data; name="file"\r\n\r\nabc\r\n--x--\r\n'
    reply = await put(ann, whole, headers={"Content-Type": "multipart/form-data; boundary=x"})
    reply.error(413, "PAYLOAD_TOO_LARGE")


async def kept_of(house: House, who: Person) -> int:
    """Files and chunks of somebody, whole or not."""
    ids = [row["_id"] async for row in house.db["media"].find({"owner_id": who.id})]
    files = await house.db["media.files"].count_documents({"_id": {"$in": ids}})
    return int(files + await house.db["media.chunks"].count_documents({"files_id": {"$in": ids}}))


async def test_just_the_limit_is_taken_and_one_byte_more_is_not(rest: House) -> None:
    ann = await rest.person("ann")
    most = PDF + bytes(MOST - len(PDF))
    assert (await uploaded(ann, most))["sizeBytes"] == MOST
    error = (await put(ann, most + b"x")).error(413, "PAYLOAD_TOO_LARGE")
    assert error["details"] == {"maxBytes": MOST}


@pytest.mark.parametrize("form", [True, False])
async def test_a_body_of_unsaid_length_is_counted_as_it_comes(rest: House, form: bool) -> None:
    async def endless() -> Any:
        yield b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\n' * form + PDF
        for _ in range(40):
            yield bytes(64 * KIB)

    bob = await rest.person("bob")
    kind = "multipart/form-data; boundary=x" if form else "application/pdf"
    headers = {"Authorization": f"Bearer {bob.token}", "Content-Type": kind}
    async with rest.http.post(f"{rest.url}/api/media", data=endless(), headers=headers) as answer:
        assert (answer.status, (await answer.json())["error"]["code"]) == (413, "PAYLOAD_TOO_LARGE")
    assert await kept_of(rest, bob) == 0


async def test_what_is_compressed_is_counted_as_it_is(rest: House) -> None:
    import zlib

    bob = await rest.person("bob")
    bomb = zlib.compress(PDF + bytes(30 * MIB))
    assert len(bomb) < 64 * KIB
    reply = await put(bob, bomb, headers={"Content-Encoding": "deflate"})
    reply.error(413, "PAYLOAD_TOO_LARGE")
    assert await kept_of(rest, bob) == 0


async def test_a_phone_that_dies_in_the_middle_leaves_nothing(rest: House) -> None:
    bob = await rest.person("bob")
    place = urlsplit(rest.url)
    _, writer = await asyncio.open_connection(place.hostname, place.port)
    head = f"POST /api/media HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {bob.token}\r\nContent-Length: {MOST}\r\n\r\n"
    writer.write(head.encode() + PDF + bytes(600 * KIB))
    await writer.drain()
    async with asyncio.timeout(10):
        while not await kept_of(rest, bob):
            pass
        writer.transport.abort()
        while not await rest.db["media"].count_documents({"owner_id": bob.id, "state": "erased"}):
            pass
    assert await kept_of(rest, bob) == 0


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("photo.jpg", b"MZ\x90\x00\x03" + bytes(1000)),
        ("photo.jpg", b"\x7fELF\x02\x01\x01" + bytes(1000)),
        ("photo.png", b"<!DOCTYPE html><html><script>alert(1)</script></html>"),
        ("photo.png", b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>'),
        ("notes.txt", b"#!/bin/sh\nrm -rf ~\n"),
        ("notes.txt", b"hello <script src=x></script>"),
        ("photo.gif", b"GIF89a/*<script>*/=1;alert(1)//" + bytes(100)),
        ("photo.png", b"\x89PNG\r\n\x1a\n" + b"<html><script>alert(1)</script>" * 20),
        ("photo.jpg", image("JPEG")[:3000]),
        ("photo.png", image("PNG")[:-30]),
        ("app.zip", b"PK\x03\x04" + bytes(1000)),
        ("notes.txt", b"caf\xe9"),
        ("noise", bytes(range(256)) * 8),
    ],
)
async def test_what_a_file_is_called_helps_it_nothing(rest: House, name: str, data: bytes) -> None:
    eve = await rest.person("eve")
    (await put(eve, data, name=name, headers={"Content-Type": "image/png"})).error(
        415, "MEDIA_TYPE_NOT_ALLOWED"
    )
    assert await kept_of(rest, eve) == 0


async def test_a_picture_with_a_program_behind_it_comes_back_without(rest: House) -> None:
    eve = await rest.person("eve")
    plain = image("JPEG")
    file = await uploaded(eve, plain + b"PK\x03\x04<script>alert(1)</script>")
    assert (await fetch(rest, file["url"], eve))[1] == plain


async def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(rest: House) -> None:
    eve = await rest.person("eve")
    sink = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(sink, "PNG")
    (await put(eve, sink.getvalue())).error(415, "MEDIA_TYPE_NOT_ALLOWED")


async def test_uploads_are_for_those_who_are_signed_in(rest: House) -> None:
    reply = await rest.send("POST", "/api/media", data=PDF, headers={"Content-Type": "application/pdf"})
    reply.error(401, "TOKEN_MISSING")


# ------------------------------------------------------------------------------------------------ ranges and conditions


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-499", 0, 500),
        ("bytes=261119-261121", 261_119, 261_122),  # across the edge of two chunks
        ("bytes=600000-", 600_000, len(DATA)),
        ("bytes=-500", len(DATA) - 500, len(DATA)),
        (f"bytes=-{10 * MIB}", 0, len(DATA)),
        (f"bytes=0-{10 * MIB}", 0, len(DATA)),
        (f"bytes={len(DATA) - 1}-", len(DATA) - 1, len(DATA)),
        ("BYTES = 5 - 9", 5, 10),
    ],
)
async def test_one_range_of_bytes(rest: House, asked: str, start: int, end: int) -> None:
    ann = await rest.person("ann")
    file = await uploaded(ann, DATA)
    status, data, headers = await fetch(rest, file["url"], ann, Range=asked)
    assert status == 206
    assert data == DATA[start:end]
    assert headers["Content-Range"] == f"bytes {start}-{end - 1}/{len(DATA)}"
    assert headers["Content-Length"] == str(end - start)
    assert headers["Accept-Ranges"] == "bytes"


@pytest.mark.parametrize("asked", [f"bytes={len(DATA)}-", f"bytes={10 * MIB}-{11 * MIB}", "bytes=-0"])
async def test_a_range_that_the_file_does_not_have(rest: House, asked: str) -> None:
    ann = await rest.person("ann")
    file = await uploaded(ann, DATA)
    reply = await ann.get(file["url"], headers={"Range": asked})
    reply.error(416, "RANGE_NOT_SATISFIABLE")
    assert reply.headers["Content-Range"] == f"bytes */{len(DATA)}"


@pytest.mark.parametrize(
    "asked",
    [
        "bytes=0-1,5-9",
        "bytes=9-5",
        "bytes=-",
        "bytes=a-b",
        "lines=0-5",
        "bytes",
        "",
        "bytes=" + "9" * 30 + "-",
    ],
)
async def test_what_is_not_one_range_is_answered_with_the_whole(rest: House, asked: str) -> None:
    ann = await rest.person("ann")
    file = await uploaded(ann, PDF)
    assert (await fetch(rest, file["url"], ann, Range=asked))[:2] == (200, PDF)


async def test_a_client_that_has_the_file_is_told_so(rest: House) -> None:
    ann = await rest.person("ann")
    file = await uploaded(ann, DATA)
    _, _, headers = await fetch(rest, file["url"], ann)
    tag = headers["ETag"]
    for said in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        status, data, headers = await fetch(rest, file["url"], ann, If_None_Match=said)
        assert (status, data, headers["ETag"]) == (304, b"", tag)
    assert (await fetch(rest, file["url"], ann, If_None_Match='"other"'))[0] == 200
    assert (await fetch(rest, file["url"], ann, Range="bytes=0-9", If_Range=tag))[0] == 206
    assert (await fetch(rest, file["url"], ann, Range="bytes=0-9", If_Range='"other"'))[0] == 200
    assert (await fetch(rest, file["url"], ann, Range="bytes=0-9", If_Range=f"W/{tag}"))[0] == 200
    assert (await fetch(rest, file["url"], ann, Range="bytes=0-9", If_Range="Sat, 21 Nov 2026 12:00:00 GMT"))[
        0
    ] == 200


async def test_head_says_what_get_would(rest: House) -> None:
    ann = await rest.person("ann")
    file = await uploaded(ann, DATA)
    status, data, headers = await fetch(rest, file["url"], ann, method="HEAD", Range="bytes=0-9")
    assert (status, data, headers["Content-Length"]) == (200, b"", str(len(DATA)))
    status, data, _ = await fetch(rest, f"{file['url']}x", ann, method="HEAD")
    assert (status, data) == (404, b"")


@pytest.mark.parametrize(
    ("data", "name", "expected"),
    [
        (PDF, "a.pdf", 'attachment; filename="a.pdf"'),
        (b"text", "a.txt", 'attachment; filename="a.txt"'),
        (b"ID3\x04" + bytes(100), "song.mp3", 'inline; filename="song.mp3"'),
        (PDF, 'a"; x="y.pdf', "attachment; filename=\"a_ x_y.pdf\"; filename*=UTF-8''a%3B%20x%3Dy.pdf"),
        (PDF, "Ọjà.pdf", "attachment; filename=\"_j_.pdf\"; filename*=UTF-8''%E1%BB%8Cj%C3%A0.pdf"),
        (
            PDF,
            "x\r\nSet-Cookie: a=b.pdf",
            "attachment; filename=\"xSet-Cookie a_b.pdf\"; filename*=UTF-8''xSet-Cookie%20a%3Db.pdf",
        ),
    ],
)
async def test_a_file_is_saved_under_its_name_whatever_that_is(
    rest: House, data: bytes, name: str, expected: str
) -> None:
    ann = await rest.person("ann")
    file = await uploaded(ann, data, name=name)
    _, _, headers = await fetch(rest, file["url"], ann)
    assert headers["Content-Disposition"] == expected


async def test_nothing_in_a_file_can_run_and_no_shared_cache_keeps_it(rest: House) -> None:
    ann = await rest.person("ann")
    file = await uploaded(ann, b"plain text")
    _, _, headers = await fetch(rest, file["url"], ann)
    assert headers["Content-Type"] == "text/plain; charset=utf-8"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "sandbox" in headers["Content-Security-Policy"]
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["Cache-Control"].startswith("private")


# --------------------------------------------------------------------------------------------------- who, and links


async def test_a_stranger_learns_nothing_of_a_file(rest: House) -> None:
    ann, eve = await rest.person("ann"), await rest.person("eve")
    file = await uploaded(ann, PDF)
    for path in ("", "/thumbnail", "/link"):
        (await eve.get(file["url"] + path)).error(404, "MEDIA_UNKNOWN")
        (await eve.get(f"/api/media/nothing{path}")).error(404, "MEDIA_UNKNOWN")
    (await eve.send("DELETE", file["url"])).error(404, "MEDIA_UNKNOWN")
    (await rest.send("GET", file["url"])).error(401, "TOKEN_MISSING")
    (await ann.get(file["url"] + "/thumbnail")).error(404, "MEDIA_UNKNOWN")


async def test_a_link_needs_no_header_and_lives_five_minutes(rest: House) -> None:
    ann = await rest.person("ann")
    file = await uploaded(ann, image())
    link = (await ann.get(file["url"] + "/link")).body
    assert link["expiresInMs"] == 300_000
    assert (await fetch(rest, link["url"], Range="bytes=0-1"))[:2] == (206, b"\xff\xd8")
    status, _, headers = await fetch(rest, link["thumbnailUrl"])
    assert (status, headers["Cross-Origin-Resource-Policy"]) == (200, "cross-origin")
    forged = re.sub("variant=original", "variant=thumbnail", link["url"])
    (await rest.send("GET", forged)).error(404, "MEDIA_UNKNOWN")
    (await rest.send("GET", link["url"] + "0")).error(400, "VALIDATION_FAILED")
    await rest.pass_(300)
    (await rest.send("GET", link["url"])).error(404, "MEDIA_UNKNOWN")


async def test_one_deletes_ones_own_file(rest: House) -> None:
    ann = await rest.person("ann")
    file = await uploaded(ann, PDF)
    assert (await ann.send("DELETE", file["url"])).status == 204
    (await ann.get(file["url"])).error(404, "MEDIA_UNKNOWN")
    (await ann.send("DELETE", file["url"])).error(404, "MEDIA_UNKNOWN")


async def test_there_is_room_for_so_much_and_no_more(rest: House) -> None:
    ann = await rest.person("ann")
    most = PDF + bytes(MOST - len(PDF))
    for _ in range(8):
        await uploaded(ann, most)
    error = (await put(ann, most)).error(409, "MEDIA_QUOTA")
    assert error["details"]["maxBytes"] == 8 * MOST


async def test_a_small_file_in_a_form_needs_no_more_room_than_it_takes(rest: House) -> None:
    ann = await rest.person("ann")
    for _ in range(7):
        await uploaded(ann, PDF + bytes(MOST - len(PDF)))
    await uploaded(ann, PDF + bytes(MOST - 4 * KIB))
    form = (
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.pdf"\r\n\r\n'
        + PDF
        + b"\r\n--x--\r\n"
    )
    file = await uploaded(ann, form, headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert file["sizeBytes"] == len(PDF)
    large = form.replace(PDF, PDF + bytes(4 * KIB))
    reply = await put(ann, large, headers={"Content-Type": "multipart/form-data; boundary=x"})
    reply.error(409, "MEDIA_QUOTA")


async def test_a_web_page_of_the_app_may_read_what_it_needs(rest: House) -> None:
    ann = await rest.person("ann")
    file = await uploaded(ann, DATA)
    origin = "http://localhost:8081"
    _, _, headers = await fetch(rest, file["url"], ann, Origin=origin, Range="bytes=0-9")
    assert headers["Access-Control-Allow-Origin"] == origin
    for name in ("ETag", "Content-Range", "Content-Disposition"):
        assert name in headers["Access-Control-Expose-Headers"]
