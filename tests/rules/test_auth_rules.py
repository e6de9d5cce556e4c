"""What names, addresses, numbers and passwords may be, and how they are compared."""

from __future__ import annotations

import pytest

from models.auth.rules import (
    Key,
    checked_email,
    checked_password,
    checked_phone,
    email_key,
    first_username,
    login_key,
)
from models.errors import Refusal
from models.users.rules import (
    checked_display_name,
    checked_username,
    folded,
    username_from,
    username_variant,
)


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("ada@example.com", "ada@example.com"),
        ("  Ada.Obi+calls@EXAMPLE.Com ", "Ada.Obi+calls@example.com"),
        ("o'brien@sub.example.co.uk", "o'brien@sub.example.co.uk"),
        ("ọmọ@xn--bcher-kva.example", "ọmọ@xn--bcher-kva.example"),
        ("ada@bücher.example", "ada@bücher.example"),
        (f"{'a' * 64}@example.com", f"{'a' * 64}@example.com"),
    ],
)
def test_an_address_keeps_its_local_part_and_loses_the_case_of_its_domain(typed: str, kept: str) -> None:
    assert checked_email(typed) == kept


@pytest.mark.parametrize(
    "typed",
    [
        *("", "ada", "@example.com", "ada@", "ada@localhost", "a@b@example.com", "ada@example..com"),
        *(
            ".ada@example.com",
            "ada.@example.com",
            "a..da@example.com",
            "ada@-example.com",
            "ada@example-.com",
        ),
        *("ada obi@example.com", "ada@exam ple.com", '"ada"@example.com', "ada@[127.0.0.1]", "ada@10.0.0.1"),
        *(
            "ada@example.com\nbcc: x@example.com",
            f"{'a' * 65}@example.com",
            f"a@{'b' * 64}.com",
            "ada@ex_am.com",
        ),
        "a@" + "b." * 130 + "com",
    ],
)
def test_what_is_no_address_is_refused_by_field(typed: str) -> None:
    with pytest.raises(Refusal) as no:
        checked_email(typed)
    assert no.value.code == "VALIDATION_FAILED"
    assert list(no.value.details) == ["email"]


def test_addresses_are_compared_without_case() -> None:
    assert email_key(checked_email("ADA@Example.com")) == email_key(checked_email("ada@example.COM"))


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("+2348012345678", "+2348012345678"),
        ("+234 801 234 5678", "+2348012345678"),
        (" +1 (415) 555-2671 ", "+14155552671"),
        ("+44/20/7946-0958", "+442079460958"),
        # A national 0 that people leave in goes, where the country has one.
        ("+44 (0)20 7946 0958", "+442079460958"),
    ],
)
def test_a_phone_number_is_kept_as_e164(typed: str, kept: str) -> None:
    assert checked_phone(typed) == kept


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "08012345678",
        "+",
        "+1",
        "+2348",
        "+999123456789",
        "+1415555267199999999",
        "+1415CALLNOW",
        "+١٤١٥٥٥٥٢٦٧١",
    ],
)
def test_what_is_no_number_with_a_country_is_refused(typed: str) -> None:
    with pytest.raises(Refusal) as no:
        checked_phone(typed)
    assert list(no.value.details) == ["phone"]


def test_length_is_the_only_rule_of_passwords() -> None:
    assert checked_password("aaaaaaaa")
    assert checked_password("🐘" * 8)
    assert checked_password("x" * 1024)
    for bad in ("1234567", "x" * 1025):
        with pytest.raises(Refusal):
            checked_password(bad)


@pytest.mark.parametrize("good", ["ada", "Ada.Obi", "a-b_c.d", "0123", "x" * 32])
def test_usernames_are_plain(good: str) -> None:
    assert checked_username(f" {good} ") == good


@pytest.mark.parametrize(
    "bad", ["", "ab", "x" * 33, "ada obi", "ada@x", "+234", "аda", "ada\n", "$ne", "a/b"]
)
def test_other_usernames_are_refused(bad: str) -> None:
    if bad == "ada\n":
        assert checked_username(bad) == "ada"  # what surrounds a name is no part of it
        return
    with pytest.raises(Refusal):
        checked_username(bad)


def test_display_names_lose_what_steers_a_terminal_or_turns_text_around() -> None:
    assert checked_display_name("  Ada \t Obi\u202e ") == "Ada Obi"
    assert checked_display_name("👩\u200d🚀") == "👩\u200d🚀"
    for bad in ("", "   ", "\u202e", "x" * 65):
        with pytest.raises(Refusal):
            checked_display_name(bad)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Ada.Obi", "ada.obi"),
        ("ada+calls", "ada_calls"),
        ("Ọmọlará", "omolara"),
        ("a", "user_a"),
        ("李", "user"),
        ("...", "user"),
        ("x" * 50, "x" * 32),
    ],
)
def test_a_username_can_be_made_of_anything(text: str, name: str) -> None:
    assert username_from(text) == name
    assert checked_username(username_from(text)) == name
    assert len(checked_username(username_variant(name, "0a1b2c"))) <= 32


def test_a_username_made_for_somebody_never_shows_their_whole_number() -> None:
    assert first_username(None, "+2348012345678") == "user5678"
    assert first_username("Ada@example.com", "+2348012345678") == "ada"


def test_who_signs_in_is_found_by_whatever_they_typed() -> None:
    assert login_key(" ADA@example.com ") == (Key.EMAIL, "ada@example.com")
    assert login_key("+234 801 234 5678") == (Key.PHONE, "+2348012345678")
    assert login_key("Ada.Obi") == (Key.USERNAME, "ada.obi")
    assert login_key("08012345678") == (Key.USERNAME, "08012345678")
    assert login_key("ada@nowhere") is None
    assert login_key("   ") is None


def test_names_are_searched_without_case_and_by_compatible_characters() -> None:
    assert folded("  ADA   Straße ") == "ada strasse"
    assert folded("Ａｄａ") == "ada"
    assert folded("Ｓtraße") == folded("STRASSE")
