"""The environment becomes one Config, or every fault is told at once."""

from __future__ import annotations

import ast
import json
import re
import stat
import threading
from pathlib import Path

import pytest

from server.config import (
    DEVELOPMENT_ORIGINS,
    ConfigFault,
    kept_secret,
    load_config,
    with_jwt_secret,
)
from server.variables import VARIABLES, env_example, markdown_table
from tests.standins.keys import account_json, p256_key, pem, rsa_key

ROOT = Path(__file__).parents[2]
SECRET = "0123456789abcdef0123456789abcdef"


def faults_of(env: dict[str, str]) -> list[str]:
    with pytest.raises(ConfigFault) as caught:
        load_config(env)
    return caught.value.faults


def test_an_empty_environment_is_development_on_this_machine() -> None:
    config = load_config({})
    assert (config.host, config.port, config.env, config.currency) == (
        "127.0.0.1",
        3000,
        "development",
        "NGN",
    )
    assert config.mongo_uri is None
    assert config.redis_url is None
    assert config.jwt_secret is None
    assert config.cors_origins == DEVELOPMENT_ORIGINS
    assert config.turn_urls == ()
    assert len(config.stun_urls) == 1
    timers = (config.ring_seconds, config.connect_seconds, config.reconnect_seconds, config.call_max_seconds)
    assert timers == (45, 30, 30, 14_400)


def test_the_written_defaults_are_the_ones_that_apply() -> None:
    assert load_config({v.name: v.default for v in VARIABLES}) == load_config({})


def test_every_fault_is_told_at_once_and_by_name() -> None:
    told = faults_of(
        {
            "PORT": "70000",
            "ENV": "prod",
            "JWT_SECRET": "short",
            "CURRENCY": "ZZZ",
            "BCRYPT_ROUNDS": "3",
            "MONGO_URI": "postgres://u:hunter2@h/x",
            "TURN_URLS": "turn:turn.example.com:3478",
            "CORS_ORIGINS": "*",
            "RING_SECONDS": "4.5",
            "LOG_LEVEL": "loud",
        }
    )
    assert [line.split()[0] for line in told] == [
        "BCRYPT_ROUNDS",
        "CORS_ORIGINS",
        "CURRENCY",
        "ENV",
        "JWT_SECRET",
        "LOG_LEVEL",
        "MONGO_URI",
        "PORT",
        "RING_SECONDS",
        "TURN_SECRET",
    ]
    assert "hunter2" not in "\n".join(told)
    assert "short" not in "\n".join(told)


def test_production_needs_a_secret_and_has_no_origins_of_its_own() -> None:
    assert faults_of({"ENV": "production"}) == [
        "JWT_SECRET is required with ENV=production, at least 32 bytes."
    ]
    config = load_config({"ENV": "production", "JWT_SECRET": SECRET})
    assert config.production
    assert config.cors_origins == ()


def test_a_secret_is_measured_in_bytes() -> None:
    assert load_config({"JWT_SECRET": "é" * 16}).jwt_secret == "é" * 16
    assert faults_of({"JWT_SECRET": "e" * 31}) == ["JWT_SECRET must be at least 32 bytes."]


@pytest.mark.parametrize(
    "wrong",
    ["http://h", "redis://", "redis://h:port", "redis://h:6379/zero?db=one", "redis://u:tell-nobody@h:99999"],
)
def test_what_is_no_redis_address_is_refused(wrong: str) -> None:
    (fault,) = faults_of({"REDIS_URL": wrong})
    assert fault.startswith("REDIS_URL ")
    assert "tell-nobody" not in fault
    for right in ("redis://h", "rediss://u:p@h:6380/2", "unix:///run/redis.sock", "redis://[::1]:6379/0"):
        assert load_config({"REDIS_URL": right}).redis_url == right


def test_turn_wants_both_or_neither() -> None:
    assert faults_of({"TURN_URLS": "turn:a.example:3478"})[0].startswith("TURN_SECRET ")
    assert faults_of({"TURN_SECRET": "x"})[0].startswith("TURN_URLS ")
    urls = "turn:a.example:3478, turns:[2001:db8::1]:5349?transport=tcp"
    assert load_config({"TURN_URLS": urls, "TURN_SECRET": "x"}).turn_urls == tuple(urls.split(", "))


@pytest.mark.parametrize(
    "urls", ["stun:a.example", "turn:", "turn:a b", "turn:a:port", "turn:a?transport=sctp"]
)
def test_what_is_no_turn_address_is_refused(urls: str) -> None:
    assert faults_of({"TURN_URLS": urls, "TURN_SECRET": "x"})[0].startswith("TURN_URLS ")


def test_no_stun_is_said_by_the_word_none() -> None:
    assert load_config({"STUN_URLS": "none"}).stun_urls == ()


def test_origins_end_after_host_and_port() -> None:
    given = "https://app.example.com, http://localhost:*"
    assert load_config({"CORS_ORIGINS": given}).cors_origins == (
        "https://app.example.com",
        "http://localhost:*",
    )
    for wrong in (
        "app.example.com",
        "https://a.example/x",
        "https://*.example",
        "ftp://a",
        "https://[",
        "http://a:b",
    ):
        assert faults_of({"CORS_ORIGINS": wrong})[0].startswith("CORS_ORIGINS ")


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("TURN_TTL_SECONDS", 60, 86_400),
        ("BCRYPT_ROUNDS", 4, 16),
        ("PORT", 0, 65_535),
        ("RING_SECONDS", 1, 600),
    ],
)
def test_numbers_have_bounds(name: str, least: int, most: int) -> None:
    for inside in (least, most):
        assert getattr(load_config({name: str(inside)}), name.lower()) == inside
    for outside in (least - 1, most + 1):
        assert faults_of({name: str(outside)}) == [f"{name} must be a whole number from {least} to {most}."]


def test_secrets_are_not_in_the_text_form() -> None:
    names = [v.name for v in VARIABLES if v.secret]
    env = {name: f"tell-nobody-{name}-{'x' * 32}" for name in names}
    env |= {"MONGO_URI": "mongodb://u:tell-nobody@h/", "REDIS_URL": "redis://:tell-nobody@h/"}
    env |= {
        "MONNIFY_API_KEY": "MK_TEST_x",
        "MONNIFY_CONTRACT_CODE": "1",
        "PAYSTACK_SECRET_KEY": "sk_test_tell-nobody",
        "STRIPE_SECRET_KEY": "sk_test_tell-nobody",
        "SMTP_URL": "smtp://u:tell-nobody@h:25",
        "MAIL_FROM": "a@b.example",
        "TWILIO_ACCOUNT_SID": "AC1",
        "TWILIO_FROM": "+2348012345678",
    }
    env |= {"TURN_URLS": "turn:a.example", "LIVEKIT_URL": "wss://lk.example", "LIVEKIT_API_KEY": "APIx"}
    keys = {"FCM_SERVICE_ACCOUNT": account_json("https://g.example/tell-nobody"), "APNS_KEY": pem(p256_key())}
    env |= {
        **keys,
        "APNS_KEY_ID": "KEY1234567",
        "APNS_TEAM_ID": "TEAM123456",
        "APNS_TOPIC": "com.example.app",
    }
    text = repr(load_config(env))
    assert "tell-nobody" not in text


@pytest.mark.parametrize(
    "env",
    [
        {"MONNIFY_API_KEY": "MK_PROD_X", "MONNIFY_SECRET_KEY": "x", "MONNIFY_CONTRACT_CODE": "1"},
        {"PAYSTACK_SECRET_KEY": "sk_live_x"},
        {"STRIPE_SECRET_KEY": "sk_live_x", "STRIPE_WEBHOOK_SECRETS": "whsec_x"},
        {"STRIPE_SECRET_KEY": "rk_live_x", "STRIPE_WEBHOOK_SECRETS": "whsec_x"},
    ],
)
def test_a_key_to_real_money_does_not_go_with_the_play_money_of_development(env: dict[str, str]) -> None:
    name = next(iter(env))
    (said,) = faults_of(env)
    assert said.startswith(f"{name} moves real money, which takes ENV=production")
    load_config({**env, "ENV": "production", "JWT_SECRET": "x" * 64})
    load_config({one: value.replace("live", "test").replace("PROD", "TEST") for one, value in env.items()})


def test_a_dotenv_file_is_read_and_the_environment_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("PORT=4001\nCURRENCY=KES\nHOST=\n")
    monkeypatch.chdir(tmp_path)
    for variable in VARIABLES:
        monkeypatch.delenv(variable.name, raising=False)
    monkeypatch.setenv("PORT", "4002")
    config = load_config()
    assert (config.port, config.currency, config.host) == (4002, "KES", "127.0.0.1")


def test_livekit_is_set_as_a_whole_or_not_at_all() -> None:
    whole = {"LIVEKIT_URL": "wss://lk.example.com", "LIVEKIT_API_KEY": "APIx", "LIVEKIT_API_SECRET": SECRET}
    config = load_config(whole)
    assert (config.livekit_url, config.livekit_api_key) == ("wss://lk.example.com", "APIx")
    assert SECRET not in repr(config)
    for name in whole:
        told = faults_of({other: value for other, value in whole.items() if other != name})
        assert told == [f"{name} is required because LiveKit's other variables are set."]
        assert {line.split()[0] for line in faults_of({name: whole[name]})} == whole.keys() - {name}
    assert faults_of({**whole, "LIVEKIT_URL": "https://lk.example.com", "LIVEKIT_API_SECRET": "short"}) == [
        "LIVEKIT_API_SECRET must be at least 32 bytes.",
        "LIVEKIT_URL must begin with ws:// or wss://.",
    ]


def test_push_keys_are_files_or_texts_and_apples_come_as_a_whole(tmp_path: Path) -> None:
    (tmp_path / "account.json").write_text(account_json("https://g.example/token"))
    (tmp_path / "key.p8").write_text(pem(p256_key()))
    files = {"FCM_SERVICE_ACCOUNT": str(tmp_path / "account.json"), "APNS_KEY": str(tmp_path / "key.p8")}
    texts = {
        "FCM_SERVICE_ACCOUNT": account_json("https://g.example/token"),
        "APNS_KEY": pem(p256_key()).replace("\n", "\\n"),
    }
    apple = {"APNS_KEY_ID": "KEY1234567", "APNS_TEAM_ID": "TEAM123456", "APNS_TOPIC": "com.example.app"}
    for given in (files, texts):
        config = load_config({**given, **apple})
        assert config.fcm_account is not None
        assert config.fcm_account.project_id == "ringmeter-test"
        assert config.apns_key is not None
        assert not config.apns_sandbox
    assert load_config({"APNS_SANDBOX": "true"}).apns_sandbox
    assert faults_of({"APNS_KEY": files["APNS_KEY"]}) == [
        f"{name} is required because APNs' other variables are set." for name in sorted(apple)
    ]


def test_push_keys_that_cannot_be_used_are_told_without_telling_them() -> None:
    account = json.loads(account_json("https://g.example/token"))
    del account["client_email"], account["token_uri"]
    told = faults_of(
        {
            "FCM_SERVICE_ACCOUNT": json.dumps(account),
            "APNS_KEY": pem(rsa_key()),
            "APNS_KEY_ID": "key",
            "APNS_TEAM_ID": "TEAM123456",
            "APNS_TOPIC": "com.example.app.voip",
            "APNS_SANDBOX": "yes",
        }
    )
    assert told == [
        "APNS_KEY is not a P-256 key, as Apple's are.",
        "APNS_KEY_ID must be ten capital letters and digits.",
        "APNS_SANDBOX must be true or false.",
        "APNS_TOPIC must be the bundle id of the app, such as com.example.app, without .voip.",
        "FCM_SERVICE_ACCOUNT lacks client_email, token_uri.",
    ]
    for wrong in ("/no/such/secret-path", '{"type": "x"}', account_json("https://g", private_key="secret")):
        (line,) = faults_of({"FCM_SERVICE_ACCOUNT": wrong})
        assert "secret" not in line


def test_a_generated_secret_is_kept_and_is_its_owners_alone(tmp_path: Path) -> None:
    config = load_config({"DATA_DIR": str(tmp_path / "data")})
    first = with_jwt_secret(config).jwt_secret
    assert first is not None
    assert len(first.encode()) >= 32
    assert with_jwt_secret(config).jwt_secret == first
    file = tmp_path / "data" / "jwt_secret"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [p.name for p in file.parent.iterdir()] == ["jwt_secret"]


def test_a_given_secret_is_written_nowhere(tmp_path: Path) -> None:
    config = load_config({"DATA_DIR": str(tmp_path / "data"), "JWT_SECRET": SECRET})
    assert with_jwt_secret(config).jwt_secret == SECRET
    assert not (tmp_path / "data").exists()


def test_eight_that_make_the_secret_at_once_get_the_same(tmp_path: Path) -> None:
    got: list[str] = []
    start = threading.Barrier(8)

    def make() -> None:
        start.wait()
        got.append(kept_secret(tmp_path / "secret"))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 8
    assert len(set(got)) == 1


def test_no_variable_is_read_that_the_table_does_not_name() -> None:
    files = ("config.py", "config_money.py", "config_identity.py", "config_limits.py")
    trees = [ast.parse((ROOT / "server" / name).read_text()) for name in files]
    read = {
        argument.value
        for tree in trees
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and not (isinstance(call.func, ast.Name) and call.func.id == "Variable")
        for argument in call.args
        if isinstance(argument, ast.Constant)
        and isinstance(argument.value, str)
        and re.fullmatch(r"[A-Z][A-Z_]{2,}", argument.value)
    }
    assert read - {"NGN"} == {v.name for v in VARIABLES}  # NGN is a value


def test_the_example_file_is_the_one_that_the_table_makes() -> None:
    assert (ROOT / ".env.example").read_text() == env_example()
    assert all(v.meaning and f"\n#{v.name}={v.default}\n" in env_example() for v in VARIABLES)


def test_the_table_for_people_names_every_variable() -> None:
    assert all(f"| `{v.name}`{', `…_FILE`' if v.secret else ''} |" in markdown_table() for v in VARIABLES)
