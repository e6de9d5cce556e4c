"""What photos lose on their way, and what stays as it was, however they come in pieces."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from models.media.metadata import SEGMENTS_MAX, Jpeg, filter_of
from tests.services.mediakit import image

SECRETS = (b"Lagos", b"N6.52", b"Serial", b"draft of", b"Ann's phone")


def through(data: bytes, content_type: str, size: int = 1 << 16) -> bytes:
    made = filter_of(content_type)
    return b"".join(made.feed(data[at : at + size]) for at in range(0, len(data), size)) + made.end()


def pixels(data: bytes) -> Any:
    with Image.open(io.BytesIO(data)) as opened:
        return opened.format, opened.size, opened.tobytes()


def exif(orientation: int = 6) -> Image.Exif:
    made = Image.Exif()
    made[0x0112] = orientation
    made[0x010E] = "Lagos"
    made[0x010F] = "Ann's phone"
    made.get_ifd(0x8825).update({1: "N", 2: (6.0, 31.0, 12.0), 29: "N6.52"})
    made.get_ifd(0x8769)[0xA431] = "Serial 1234"
    return made


def photo(kind: str, **how: Any) -> bytes:
    if kind == "PNG":
        text = PngInfo()
        text.add_text("Location", "Lagos")
        text.add_itxt("XML:com.adobe.xmp", "N6.52")
        return image("PNG", exif=exif(), pnginfo=text, icc_profile=b"a profile", **how)
    more = {"comment": b"draft of Ann's phone"} if kind == "JPEG" else {}
    return image(
        kind, exif=exif(), xmp=b"<x:xmpmeta>Lagos N6.52</x:xmpmeta>", icc_profile=b"a profile", **more, **how
    )


PHOTOS = [("JPEG", "image/jpeg"), ("PNG", "image/png"), ("WEBP", "image/webp")]


@pytest.mark.parametrize(("kind", "content_type"), PHOTOS)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 1 << 16])
def test_a_photo_tells_nothing_of_its_maker_and_is_the_same_picture(
    kind: str, content_type: str, size: int
) -> None:
    before = photo(kind)
    assert any(secret in before for secret in SECRETS)
    after = through(before, content_type, size)
    assert [secret for secret in SECRETS if secret in after] == []
    assert pixels(after) == pixels(before)
    with Image.open(io.BytesIO(after)) as opened:
        assert opened.info.get("icc_profile") == b"a profile"
        assert not opened.getexif().get_ifd(0x8825)
        assert "xmp" not in opened.info
        assert "XML:com.adobe.xmp" not in opened.info


def test_a_jpeg_keeps_its_orientation() -> None:
    for orientation in range(1, 9):
        after = through(image("JPEG", exif=exif(orientation)), "image/jpeg")
        with Image.open(io.BytesIO(after)) as opened:
            assert dict(opened.getexif()) == ({0x0112: orientation} if orientation > 1 else {})


@pytest.mark.parametrize("how", [{"progressive": True}, {"restart_marker_rows": 1}, {"quality": 100}])
def test_every_way_to_write_a_jpeg_comes_through(how: dict[str, Any]) -> None:
    noise = Image.effect_noise((300, 200), 80).convert("RGB")
    sink = io.BytesIO()
    noise.save(sink, "JPEG", exif=exif(), **how)
    for size in (1, 1000):
        after = through(sink.getvalue(), "image/jpeg", size)
        assert pixels(after) == pixels(sink.getvalue())
        assert b"Lagos" not in after


class Counting(Jpeg):
    """How often the filter had to look."""

    steps = 0

    def _step(self, made: bytearray) -> bool:
        self.steps += 1
        return super()._step(made)


def test_bytes_that_only_fill_are_skipped_at_once_however_many_they_are() -> None:
    plain = image("JPEG")
    filled = plain[:2] + b"\xff" * 100_000 + plain[2:]
    passing = Counting()
    assert passing.feed(filled) + passing.end() == plain
    assert passing.steps < 100
    assert through(plain[:2] + b"\xff" * 9 + plain[2:], "image/jpeg", 1) == plain


@pytest.mark.parametrize("segment", [b"\xff\x01", b"\xff\xda\0\x02", b"\xff\xfe\0\x02"])
def test_of_more_segments_than_any_picture_has_the_rest_is_left_out(segment: bytes) -> None:
    passing = Counting()
    passing.feed(b"\xff\xd8" + segment * (20 * SEGMENTS_MAX))
    assert passing.steps <= 3 * SEGMENTS_MAX
    assert passing.feed(image("JPEG")) == b""


@pytest.mark.parametrize(("kind", "content_type"), PHOTOS)
@pytest.mark.parametrize("size", [1, 1 << 16])
def test_what_follows_the_pictures_end_is_left_out(kind: str, content_type: str, size: int) -> None:
    plain = image(kind)
    hidden = b"PK\x03\x04 <script>alert(1)</script>" + photo("JPEG")
    assert through(plain + hidden, content_type, size) == through(plain, content_type) == plain


@pytest.mark.parametrize(("kind", "content_type"), [*PHOTOS, ("GIF", "image/gif")])
def test_a_picture_that_says_nothing_comes_through_byte_by_byte_as_it_is(
    kind: str, content_type: str
) -> None:
    plain = image(kind)
    assert through(plain, content_type, 1) == plain


@settings(max_examples=300, deadline=None)
@given(
    data=st.binary(max_size=300),
    kind=st.sampled_from(PHOTOS),
    at=st.integers(0, 900),
    size=st.integers(1, 50),
)
def test_whatever_comes_a_filter_never_fails_and_never_grows_a_file_much(
    data: bytes, kind: tuple[str, str], at: int, size: int
) -> None:
    broken = photo(kind[0], size=(16, 12))
    for whole in (data, broken[:at], broken[:at] + data + broken[at:]):
        assert len(through(whole, kind[1], size)) <= len(whole) + 64
