"""Secrets that stand in files: each by its name with _FILE; what is wrong with one is told without its content."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.config import ConfigFault, load_config
from server.config_read import FILE_BYTES_MAX, with_files
from server.variables import VARIABLES, env_example, markdown_table
from tests.standins.keys import account_json, p256_key, pem

SECRET = "0123456789abcdef0123456789abcdef"


def faults_of(env: dict[str, str]) -> list[str]:
    with pytest.raises(ConfigFault) as caught:
        load_config(env)
    return caught.value.faults


@pytest.fixture
def kept(tmp_path: Path):  # type: ignore[no-untyped-def]
    def keep(content: str | bytes, name: str = "secret") -> str:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    return keep


@pytest.mark.parametrize("name", [v.name for v in VARIABLES if v.secret])
def test_every_secret_may_stand_in_a_file(name: str, kept) -> None:  # type: ignore[no-untyped-def]
    values, faults = with_files({f"{name}_FILE": kept("tell-nobody\n")})
    assert (values[name], faults) == ("tell-nobody", {})


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_newline_at_the_end_is_no_part_of_the_secret(end: str, kept) -> None:  # type: ignore[no-untyped-def]
    assert load_config({"JWT_SECRET_FILE": kept(SECRET + end)}).jwt_secret == SECRET


def test_keys_of_several_lines_come_from_files_whole(kept) -> None:  # type: ignore[no-untyped-def]
    config = load_config(
        {
            "FCM_SERVICE_ACCOUNT_FILE": kept(account_json("https://g.example/token"), "account.json"),
            "APNS_KEY_FILE": kept(pem(p256_key()), "key.p8"),
            "APNS_KEY_ID": "KEY1234567",
            "APNS_TEAM_ID": "TEAM123456",
            "APNS_TOPIC": "com.example.app",
        }
    )
    assert config.fcm_account is not None
    assert config.apns_key is not None


def test_a_secret_from_a_file_counts_as_set(kept) -> None:  # type: ignore[no-untyped-def]
    production = {"ENV": "production", "JWT_SECRET_FILE": kept(SECRET)}
    assert load_config(production).jwt_secret == SECRET
    turn = {"TURN_URLS": "turn:a.example", "TURN_SECRET_FILE": kept("t", "turn")}
    assert load_config(turn).turn_secret == "t"
    livekit = {"LIVEKIT_URL": "wss://lk.example", "LIVEKIT_API_KEY": "APIx"}
    assert load_config({**livekit, "LIVEKIT_API_SECRET_FILE": kept(SECRET)}).livekit_api_secret == SECRET


def test_a_secret_that_is_set_twice_is_a_fault_even_when_both_are_the_same(kept) -> None:  # type: ignore[no-untyped-def]
    assert faults_of({"JWT_SECRET": SECRET, "JWT_SECRET_FILE": kept(SECRET)}) == [
        "JWT_SECRET_FILE is set, and JWT_SECRET as well: take one of the two away."
    ]
    # An empty value counts as not set, so one can be taken away where both are passed on.
    assert load_config({"JWT_SECRET": " ", "JWT_SECRET_FILE": kept(SECRET)}).jwt_secret == SECRET
    assert load_config({"JWT_SECRET": SECRET, "JWT_SECRET_FILE": ""}).jwt_secret == SECRET


def test_a_file_that_cannot_be_used_is_told_by_its_variable_and_never_by_its_content(
    tmp_path: Path,
    kept,  # type: ignore[no-untyped-def]
) -> None:
    cases = {
        str(tmp_path / "nowhere"): "names a file that cannot be read: No such file or directory.",
        str(tmp_path): "names a file that cannot be read: Is a directory.",
        kept("\n", "empty"): "names a file that is empty.",
        kept(b"tell-nobody\xff" * 4, "bytes"): "names a file that is not text in UTF-8.",
        kept(f"tell-nobody\0{SECRET}", "nul"): "names a file that has a NUL byte.",
        kept("tell-nobody" * FILE_BYTES_MAX, "huge"): "names a file that is larger than 64 KiB.",
    }
    for path, said in cases.items():
        assert faults_of({"JWT_SECRET_FILE": path}) == [f"JWT_SECRET_FILE {said}"]


def test_what_a_file_holds_is_checked_like_the_variable(kept) -> None:  # type: ignore[no-untyped-def]
    assert faults_of({"JWT_SECRET_FILE": kept("tell-nobody")}) == ["JWT_SECRET must be at least 32 bytes."]
    (line,) = faults_of({"MONGO_URI_FILE": kept("postgres://u:tell-nobody@h/x")})
    assert line.startswith("MONGO_URI must begin with")
    assert "tell-nobody" not in line


def test_a_secret_whose_file_is_at_fault_is_not_called_missing_besides() -> None:
    gone = "/no/such/file"
    lines = faults_of(
        {
            "ENV": "production",
            "JWT_SECRET_FILE": gone,
            "TURN_URLS": "turn:a.example",
            "TURN_SECRET_FILE": gone,
            "LIVEKIT_URL": "wss://lk.example",
            "LIVEKIT_API_KEY": "APIx",
            "LIVEKIT_API_SECRET_FILE": gone,
        }
    )
    assert [line.split()[0] for line in lines] == [
        "JWT_SECRET_FILE",
        "LIVEKIT_API_SECRET_FILE",
        "TURN_SECRET_FILE",
    ]


def test_what_is_no_secret_is_not_read_from_files(kept) -> None:  # type: ignore[no-untyped-def]
    assert load_config({"PORT_FILE": kept("4001")}).port == 3000


def test_the_table_and_the_example_say_which_may_stand_in_files() -> None:
    for variable in VARIABLES:
        assert (f"| `{variable.name}`, `…_FILE` |" in markdown_table()) == variable.secret
        assert (f"(or {variable.name}_FILE)\n" in env_example()) == variable.secret
