"""What a file is by its content, what it is called, and which of its bytes somebody asks for."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import Refusal
from models.media.rules import FILENAME_MAX, TYPES, PlainText, clean_filename, type_of
from server.blobs import byte_range, disposition, known
from tests.services.mediakit import image


def ftyp(brand: bytes, *more: bytes) -> bytes:
    brands = brand + b"\0\0\0\0" + b"".join((brand, *more))
    return (8 + len(brands)).to_bytes(4, "big") + b"ftyp" + brands + bytes(64)


GOOD = {
    "image/jpeg": [image("JPEG")],
    "image/png": [image("PNG")],
    "image/gif": [image("GIF")],
    "image/webp": [image("WEBP")],
    "audio/mp4": [ftyp(b"M4A ", b"isom", b"mp42")],
    "audio/mpeg": [b"ID3\x04" + bytes(64), b"\xff\xfb\x90\x00" + bytes(64)],
    "audio/ogg": [b"OggS\x00\x02" + bytes(64)],
    "audio/wav": [b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(64)],
    "audio/aac": [b"\xff\xf1\x50\x80" + bytes(64)],
    "video/mp4": [ftyp(b"isom", b"mp41"), ftyp(b"mp42", b"isom")],
    "video/webm": [
        b"\x1aE\xdf\xa3\x9fB\x86\x81\x01B\xf7\x81\x01B\xf2\x81\x04B\xf3\x81\x08B\x82\x84webm" + bytes(64)
    ],
    "video/quicktime": [ftyp(b"qt  ")],
    "application/pdf": [b"%PDF-1.4\n"],
    "text/plain": [
        b"hello",
        "Ẹ káàárọ̀".encode(),
        b"\xef\xbb\xbfwith a mark",
        b"BMW is no bitmap",
        b"I <3 you",
        b"{}",
    ],
}
BAD = [
    b"MZ\x90\x00\x03\x00",
    b"\x7fELF\x02\x01\x01\x00",
    b"\xca\xfe\xba\xbe\x00\x00\x00\x34",
    b"PK\x03\x04" + bytes(30),
    b"#!/usr/bin/env python",
    b"  \n#!/bin/sh",
    b"<!DOCTYPE html>",
    b"hello <HTML>",
    b"\xef\xbb\xbf<?xml version='1.0'?><svg/>",
    b"< script >alert(1)",
    b"<?php system('id'); ?>",
    b"text <!-- and a comment",
    b"text with \x00 in it",
    b"\xff\xfeh\x00i\x00",
    b"caf\xe9 au lait",
    b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(64),
    b"RIFF\x24\x00\x00\x00AVI LIST",
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(64),
]


def test_every_type_that_is_taken_is_known_by_its_beginning() -> None:
    assert set(GOOD) == set(TYPES)
    for content_type, files in GOOD.items():
        assert [type_of(data) for data in files] == [content_type] * len(files)


@pytest.mark.parametrize("data", BAD)
def test_everything_else_is_refused(data: bytes) -> None:
    with pytest.raises(Refusal) as no:
        type_of(data)
    assert no.value.code == "MEDIA_TYPE_NOT_ALLOWED"


@given(st.binary(min_size=1, max_size=200))
def test_whatever_comes_is_a_type_that_is_taken_or_refused(data: bytes) -> None:
    with suppress(Refusal):
        assert type_of(data) in TYPES


@given(st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"]), min_size=1), st.integers(1, 5))
def test_text_is_text_wherever_it_is_cut(text: str, size: int) -> None:
    data = ("a" + text).replace("<", "").encode()
    follow = PlainText()
    for at in range(0, len(data), size):
        follow.feed(data[at : at + size])
    follow.end()


@pytest.mark.parametrize(
    ("given_name", "content_type", "name"),
    [
        ("photo.JPG", "image/jpeg", "photo.JPG"),
        ("photo.png", "image/jpeg", "photo.png.jpg"),
        ("photo.jpg.exe", "image/jpeg", "photo.jpg.exe.jpg"),
        ("C:\\Users\\ann\\cv.pdf", "application/pdf", "cv.pdf"),
        ("../../etc/passwd", "text/plain", "passwd.txt"),
        ("photo\u202egpj.exe", "image/jpeg", "photogpj.exe.jpg"),
        ("a\r\nb\x00\x1b.txt", "text/plain", "ab.txt"),
        ("...", "audio/mpeg", "audio.mp3"),
        ("", "video/mp4", "video.mp4"),
        (None, "application/pdf", "file.pdf"),
        (".htaccess", "text/plain", "htaccess.txt"),
        ("Ọjà ọ̀la.pdf", "application/pdf", "Ọjà ọ̀la.pdf"),
    ],
)
def test_a_file_has_a_name_that_harms_nobody(given_name: str | None, content_type: str, name: str) -> None:
    assert clean_filename(given_name, content_type) == name


@given(st.text(max_size=400), st.sampled_from(sorted(TYPES)))
def test_a_name_is_short_safe_and_has_an_extension_of_its_type(given_name: str, content_type: str) -> None:
    name = clean_filename(given_name, content_type)
    assert 0 < len(name) <= FILENAME_MAX
    assert name.rpartition(".")[2].lower() in TYPES[content_type].extensions
    assert not set(name) & set('/\\"<>|:*?\r\n\x00\u202e')
    said = disposition(name, inline=True)
    assert said.isascii()
    assert said.isprintable()


@given(st.integers(1, 10**12), st.integers(0, 10**12), st.integers(0, 10**12))
def test_a_range_is_within_the_file_or_refused(size: int, first: int, last: int) -> None:
    for header in (f"bytes={first}-{last}", f"bytes={first}-", f"bytes=-{last}"):
        try:
            found = byte_range(header, size)
        except Refusal:
            continue
        if found is not None:
            assert 0 <= found[0] < found[1] <= size


@given(st.text(alphabet="bytes=0123456789-, ", max_size=40), st.integers(1, 1000))
def test_a_range_header_never_breaks_anything(header: str, size: int) -> None:
    try:
        found = byte_range(header, size)
    except Refusal:
        return
    assert found is None or 0 <= found[0] < found[1] <= size


def test_what_the_client_has_is_compared_weakly() -> None:
    assert known('"a"', '"a"')
    assert known('W/"a"', '"a"')
    assert known('"x", W/"a"', '"a"')
    assert known("*", '"a"')
    assert not known(None, '"a"')
    assert not known('"aa"', '"a"')
