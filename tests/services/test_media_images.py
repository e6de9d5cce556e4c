"""Images through the real decoder: thumbnails, what is refused, and programs that loop, die or are too few."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import struct
import zlib
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from PIL import Image

from models.errors import Refusal
from models.media.ports import Picture
from server.adapters import images
from server.adapters.images import Images
from tests.services.mediakit import body, image


@asynccontextmanager
async def decoder(**how: Any) -> AsyncIterator[Images]:
    made = Images(**how)
    try:
        yield made
    finally:
        await made.close()


async def examined(made: Images, data: bytes, content_type: str = "image/jpeg") -> Picture | None:
    return await made.examine(body(data), content_type=content_type, size_bytes=len(data))


def opened(picture: Picture | None) -> Image.Image:
    assert picture is not None
    return Image.open(io.BytesIO(picture.thumbnail))


async def test_a_thumbnail_is_small_upright_and_says_nothing() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side: the left half becomes the upper one
    exif[0x010E] = "Lagos"
    exif.get_ifd(0x8825)[1] = "N"
    data = image("JPEG", (1200, 800), exif=exif, comment=b"Lagos", icc_profile=b"a profile")
    async with decoder() as made:
        picture = await examined(made, data)
    thumb = opened(picture)
    assert picture is not None
    assert (picture.width, picture.height, picture.thumbnail_type) == (800, 1200, "image/jpeg")
    assert thumb.size == (213, 320)
    assert not thumb.getexif()
    assert set(thumb.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
    assert b"Lagos" not in picture.thumbnail
    above, below = thumb.getpixel((100, 20)), thumb.getpixel((100, 300))
    assert above[0] > 200 > 50 > above[2], "red"  # type: ignore[index]
    assert below[2] > 200 > 50 > below[0], "blue"  # type: ignore[index]


@pytest.mark.parametrize(
    ("kind", "mode", "thumbnail_type"),
    [
        ("JPEG", "RGB", "image/jpeg"),
        ("JPEG", "L", "image/jpeg"),
        ("JPEG", "CMYK", "image/jpeg"),
        ("PNG", "RGB", "image/jpeg"),
        ("PNG", "RGBA", "image/webp"),
        ("PNG", "LA", "image/webp"),
        ("PNG", "1", "image/jpeg"),
        ("PNG", "I;16", "image/jpeg"),
        ("WEBP", "RGBA", "image/webp"),
        ("GIF", "RGB", "image/jpeg"),
    ],
)
async def test_every_kind_of_picture_gets_a_thumbnail(kind: str, mode: str, thumbnail_type: str) -> None:
    sink = io.BytesIO()
    Image.new(mode, (500, 400)).save(sink, kind)
    async with decoder() as made:
        picture = await examined(made, sink.getvalue(), f"image/{kind.lower()}")
    assert picture is not None
    assert (picture.width, picture.height, picture.thumbnail_type) == (500, 400, thumbnail_type)
    assert opened(picture).size == (320, 256)


async def test_a_small_picture_is_not_made_larger() -> None:
    async with decoder() as made:
        assert opened(await examined(made, image("PNG", (10, 4)), "image/png")).size == (10, 4)


def png_of(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG that says it is so large."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(data))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("data", "content_type"),
    [
        (image("JPEG")[:-100], "image/jpeg"),
        (image("JPEG")[:100], "image/jpeg"),
        (image("PNG")[:-40], "image/png"),
        (image("WEBP")[:-40], "image/webp"),
        (image("GIF")[:40], "image/gif"),
        (image("PNG"), "image/jpeg"),
        (b"<html><script>alert(1)</script></html>", "image/png"),
        (b"\x89PNG\r\n\x1a\n<svg onload=alert(1)>", "image/png"),
        (png_of(50_000, 50_000), "image/png"),
        (png_of(2**31 - 1, 2**31 - 1), "image/png"),
        (png_of(0, 10), "image/png"),
        (png_of(7000, 7000), "image/png"),  # within the limit, but there are no pixels
    ],
)
async def test_what_is_no_whole_picture_of_its_type_is_none(data: bytes, content_type: str) -> None:
    async with decoder() as made:
        assert await examined(made, data, content_type) is None
        assert await examined(made, image()) is not None, "the next one is looked at"


async def test_pixels_are_counted_before_they_are_decoded() -> None:
    async with decoder(pixels_max=100 * 100) as made:
        assert await examined(made, image("PNG", (100, 100)), "image/png")
        assert await examined(made, image("PNG", (101, 100)), "image/png") is None


async def test_a_picture_that_takes_too_long_ends_its_program_and_no_other() -> None:
    async with decoder() as made:
        await examined(made, image())
        (program,) = made._idle
        made._seconds = 0.3
        program.send_signal(signal.SIGSTOP)
        assert await examined(made, image()) is None
        assert program.returncode == -signal.SIGKILL
        made._seconds = 20
        assert await examined(made, image())


async def test_a_program_that_has_died_is_replaced() -> None:
    async with decoder() as made:
        await examined(made, image())
        (program,) = made._idle
        program.kill()
        await program.wait()
        assert await examined(made, image())


async def test_a_program_that_dies_over_an_image_is_replaced() -> None:
    """In whatever piece of it: its end of the pipe is closed then, and what we say next finds nobody."""

    async def pieces(program: Process) -> AsyncIterator[bytes]:
        data = image()
        yield data[:100]
        program.kill()
        await program.wait()
        for start in range(100, len(data), 100):
            yield data[start : start + 100]

    async with decoder() as made:
        await examined(made, image())
        (program,) = made._idle
        size = len(image())
        assert await made.examine(pieces(program), content_type="image/jpeg", size_bytes=size) is None
        assert made._idle == []
        assert await examined(made, image())


async def test_a_picture_that_wants_more_memory_than_there_is_is_none() -> None:
    async with decoder(pixels_max=10**10) as made:
        assert await examined(made, png_of(60_000, 60_000, bytes(1000)), "image/png") is None
        assert await examined(made, image())


async def test_a_file_that_cannot_be_read_to_its_end_is_not_the_pictures_fault() -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield image()[:1000]
        raise ConnectionResetError("the database went")

    async with decoder() as made:
        with pytest.raises(ConnectionResetError):
            await made.examine(broken(), content_type="image/jpeg", size_bytes=10_000)
        assert await examined(made, image()), "and the half file is in nobody's way"


async def test_too_many_at_once_are_asked_to_come_later(monkeypatch: Any) -> None:
    monkeypatch.setattr(images, "WAITING_MAX", 3)
    async with decoder() as made:
        done = await asyncio.gather(
            *(examined(made, image("PNG", (2000, 2000)), "image/png") for _ in range(8)),
            return_exceptions=True,
        )
        codes = [one.code for one in done if isinstance(one, Refusal)]
        assert codes == ["SERVER_BUSY"] * (8 - 3 - images.PROGRAMS)
        assert len(made._idle) <= images.PROGRAMS
        assert await examined(made, image())


async def test_whoever_goes_away_in_the_middle_leaves_no_program_behind() -> None:
    begun = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        begun.set()
        await asyncio.Event().wait()
        yield b""

    async with decoder() as made:
        await examined(made, image())
        (program,) = made._idle
        task = asyncio.create_task(made.examine(endless(), content_type="image/jpeg", size_bytes=10))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert program.returncode == -signal.SIGKILL
        assert made._idle == []


async def test_nothing_is_left_running_at_the_end() -> None:
    async with decoder() as made:
        await asyncio.gather(*(examined(made, image()) for _ in range(4)))
        programs = [program.pid for program in made._idle]
        assert len(programs) == images.PROGRAMS
    for pid in programs:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
