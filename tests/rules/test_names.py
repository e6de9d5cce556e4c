"""What a name may be that others see: nothing in it rearranges what stands around it, and no two are alike unseen."""

from __future__ import annotations

import pytest

from models.errors import Refusal
from models.users.rules import checked_display_name, checked_username, folded


@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("  Ada   Obi ", "Ada Obi"),
        ("Ada\u202eibO", "Ada ibO"),
        ("\u2066Ada\u2069", "Ada"),
        ("\u200fAda\u061c", "Ada"),
        ("Ada\x00\x1b[2J", "Ada [2J"),
        ("Ada\u2028Obi\u0085x", "Ada Obi x"),
        ("A\u200bd\ufeffa", "A d a"),
        ("A\u00adda", "A da"),
        ("\u200dAda\u200c", "Ada"),
        ("Ada \u200d\u200c Obi", "Ada Obi"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("क्\u200d\u200d\u200dष", "क्\u200dष"),
        ("👩\u200d👩\u200d👧", "👩\u200d👩\u200d👧"),
        ("✈\ufe0f", "✈\ufe0f"),
        ("Ade\u0301", "Adé"),
        ("Z" + "\u0336" * 50 + "oe", "Z" + "\u0336" * 4 + "oe"),
        ("Ada \uf8ff", "Ada"),
        ("Ada\ufdd0\U0001fffe", "Ada"),
        ("Nguyễn", "Nguyễn"),
        ("تَشْكِيل", "تَشْكِيل"),
    ],
)
def test_a_display_name_keeps_its_letters_and_loses_what_steers(typed: str, shown: str) -> None:
    assert checked_display_name(typed) == shown
    assert checked_display_name(shown) == shown, "and is that name from then on"


@pytest.mark.parametrize(
    "typed",
    [
        "",
        " ",
        "\u200d",
        "\u202e",
        "\u200d\u200c",
        "\u3164",
        "\u115f\u1160",
        "\u2800",
        "\ufe0f",
        "\u0301",
        "\uf8ff",
    ],
)
def test_a_display_name_with_nothing_to_see_is_refused(typed: str) -> None:
    with pytest.raises(Refusal) as no:
        checked_display_name(typed)
    assert no.value.code == "VALIDATION_FAILED"


@pytest.mark.parametrize(
    "typed",
    [
        *(
            "аda",
            "adа",
            "ａｄａ",
            "ada\u200b",
            "ad\u200da",
            "ada\u202e",
            "\ufeffada",
            "ada\u0301",
            "adá",
            "ѕam",
            "ᴀda",
        ),
        *(
            "ⅰvan",
            "ﬁona",
            "ßam",
            "İda",
            "ıda",
            "ada\x00",
            "ad a",
            "ad\u00a0a",
            "$ada",
            "ada\ud800",
            "👩",
            "аdа",
        ),
    ],
)
def test_no_username_looks_like_another_by_letters_of_another_script(typed: str) -> None:
    with pytest.raises(Refusal) as no:
        checked_username(typed)
    assert no.value.code == "VALIDATION_FAILED"


@pytest.mark.parametrize("typed", ["ADA", "Ada", " ada ", "aDa"])
def test_usernames_that_differ_by_case_are_the_same(typed: str) -> None:
    assert folded(checked_username(typed)) == "ada"


@pytest.mark.parametrize(
    "name", ["__proto__", "constructor", "prototype", "toString", "null", "undefined", "NaN"]
)
def test_names_that_mean_something_to_programs_are_names_like_any_other(name: str) -> None:
    assert checked_username(name) == name
