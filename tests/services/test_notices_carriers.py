"""The carriers of notices against a real SMTP server and a stand-in of Twilio: every answer, and none at all."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import pytest
import structlog

from models.notices.notice import Letter, Outcome, Sent
from server.adapters.smtp import SmtpCarrier, relay_of
from server.adapters.twilio import TwilioCarrier
from server.cli_doctor import examine
from server.config import load_config
from tests.fakes import VirtualClock
from tests.standins import smtp
from tests.standins.smtp import PASSWORD, USER, RelayStandIn
from tests.standins.twilio import ACCOUNT, NUMBER, TOKEN, TwilioStandIn

FROM = "Ringmeter <no-reply@calls.example.org>"
LETTER = Letter(
    to="ada@example.com",
    subject="NGN 500.00 paid in",
    text="Hello Ada,\n\nü ₦ …\n",
    mark="abc123",
    at=VirtualClock().now(),
)
TEXT = Letter(
    to="+2348012345678",
    subject="",
    text="NGN 500.00 was paid in. Ref abc123ab",
    mark="abc123",
    at=VirtualClock().now(),
)


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    folder: Path = tmp_path_factory.mktemp("tls")
    return smtp.certificate(folder)


@pytest.fixture
async def relay() -> AsyncIterator[RelayStandIn]:
    made = RelayStandIn()
    await made.start()
    yield made
    await made.stop()


def mail(relay: RelayStandIn, url: str = "smtp://127.0.0.1:{port}", **more: object) -> SmtpCarrier:
    return SmtpCarrier(relay_of(url.format(port=relay.port)), FROM, **more)  # type: ignore[arg-type]


# --------------------------------------------------------------------------------------------------------------- mail


async def test_a_letter_arrives_as_it_was_written(relay: RelayStandIn) -> None:
    assert await mail(relay).carry(LETTER) == Outcome(sent=Sent.OK)
    (got,) = relay.letters
    assert (got["From"], got["To"], got["Subject"]) == (FROM, LETTER.to, LETTER.subject)
    assert got["Message-ID"] == "<abc123@calls.example.org>"
    assert got["Auto-Submitted"] == "auto-generated"
    assert got["Date"] == "Sun, 01 Mar 2026 12:00:00 +0000"
    assert got.get_content().replace("\r\n", "\n") == LETTER.text
    assert relay.recipients == [LETTER.to]


@pytest.mark.parametrize(
    ("mode", "sent"),
    [
        ("grey", Sent.LATER),
        ("unknown", Sent.NEVER),
        ("spam", Sent.NEVER),
        ("busy", Sent.LATER),
        ("sender", Sent.LATER),  # ours to put right: no letter is lost by it
        ("cut", Sent.LATER),
    ],
)
async def test_what_a_relay_says_decides_whether_it_is_tried_again(
    relay: RelayStandIn, mode: str, sent: Sent
) -> None:
    relay.mode = mode
    assert (await mail(relay).carry(LETTER)).sent is sent


async def test_a_relay_that_takes_the_text_and_says_nothing_is_not_waited_for(relay: RelayStandIn) -> None:
    relay.mode = "slow"
    assert (await mail(relay, total_seconds=0.3).carry(LETTER)).sent is Sent.LATER
    relay.hold.set()


async def test_a_relay_that_is_not_there_is_asked_later(relay: RelayStandIn) -> None:
    carrier = mail(relay)
    await relay.stop()
    assert (await carrier.carry(LETTER)).sent is Sent.LATER
    assert await carrier.try_access() is not None


async def test_starttls_and_a_password(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    server, client = contexts
    relay = RelayStandIn(server)
    relay.password_wanted = True
    await relay.start()
    url = f"smtp://{quote(USER, safe='')}:{quote(PASSWORD, safe='')}@localhost:{{port}}"
    try:
        carrier = mail(relay, url, context=client)
        assert await carrier.try_access() is None
        assert await carrier.carry(LETTER) == Outcome(sent=Sent.OK)
        assert relay.tls == [True]
        assert all(relay.logins)
        wrong = mail(relay, url.replace("word", "wort"), context=client)
        with structlog.testing.capture_logs() as logs:
            assert (await wrong.carry(LETTER)).sent is Sent.LATER
        assert [line["log_level"] for line in logs] == ["error"], "it is for the operator to put right"
        assert "wort" not in str(logs)
        assert LETTER.to not in str(logs)
        assert await wrong.try_access() == "it answers 535"
        stranger = mail(relay, url)  # knows no authority that vouches for this relay
        assert (await stranger.carry(LETTER)).sent is Sent.LATER
        assert len(relay.letters) == 1
    finally:
        await relay.stop()


async def test_tls_from_the_first_byte(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    server, client = contexts
    relay = RelayStandIn(server, implicit=True)
    await relay.start()
    try:
        assert await mail(relay, "smtps://localhost:{port}", context=client).carry(LETTER) == Outcome(
            sent=Sent.OK
        )
        assert relay.tls == [True]
    finally:
        await relay.stop()


async def test_a_relay_elsewhere_gets_nothing_without_tls() -> None:
    relay = RelayStandIn()  # offers no STARTTLS
    await relay.start("127.0.0.2")  # not one of the names of this machine
    try:
        carrier = mail(relay, "smtp://user:secret@127.0.0.2:{port}")
        assert (await carrier.carry(LETTER)).sent is Sent.LATER
        assert (relay.letters, relay.logins, relay.asked) == ([], [], 0)
    finally:
        await relay.stop()


@pytest.mark.parametrize("to", ["grüße@example.com", "a@b\r\nBcc: all@example.com"])
async def test_an_address_that_cannot_be_written_down_is_given_up(relay: RelayStandIn, to: str) -> None:
    letter = Letter(to=to, subject="x", text="x", mark="m", at=LETTER.at)
    assert (await mail(relay).carry(letter)).sent is Sent.NEVER
    assert relay.letters == []


def test_the_address_of_a_relay_is_read_as_a_url() -> None:
    found = relay_of("smtp://a%40b.org:p%3A%2F%40@mail.example.org")
    assert (found.host, found.port, found.tls, found.user, found.password) == (
        *("mail.example.org", 587, False),
        *("a@b.org", "p:/@"),
    )
    assert "p:/@" not in repr(found)
    assert relay_of("smtps://mail.example.org").port == 465
    assert relay_of("smtp://[::1]:25").host == "::1"


# ---------------------------------------------------------------------------------------------------------------- SMS


@pytest.fixture
async def service() -> AsyncIterator[TwilioStandIn]:
    made = TwilioStandIn()
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def sms(service: TwilioStandIn) -> AsyncIterator[TwilioCarrier]:
    made = TwilioCarrier(ACCOUNT, TOKEN, NUMBER, url=service.url)
    yield made
    await made.close()


async def test_a_message_is_handed_over(service: TwilioStandIn, sms: TwilioCarrier) -> None:
    assert await sms.carry(TEXT) == Outcome(sent=Sent.OK)
    assert service.messages == [{"to": TEXT.to, "from": NUMBER, "body": TEXT.text}]


@pytest.mark.parametrize(
    ("mode", "sent", "unsure"),
    [
        (21211, Sent.NEVER, False),
        (21610, Sent.NEVER, False),
        (21606, Sent.LATER, False),  # our own number may not send: the operator's to put right
        ("nonsense", Sent.LATER, False),
        ("down", Sent.LATER, True),
        ("taken_down", Sent.LATER, True),
        ("cut", Sent.LATER, True),
        ("lost", Sent.LATER, True),
    ],
)
async def test_what_twilio_says_decides_whether_it_is_tried_again(
    service: TwilioStandIn, sms: TwilioCarrier, mode: str | int, sent: Sent, unsure: bool
) -> None:
    service.mode = mode
    said = await sms.carry(TEXT)
    assert (said.sent, said.unsure) == (sent, unsure)
    assert await sms.carried(TEXT) is (mode in ("taken_down", "cut"))


async def test_too_many_requests_are_waited_for_as_twilio_asks(
    service: TwilioStandIn, sms: TwilioCarrier
) -> None:
    service.mode, service.retry_after = "too_many", "17"
    assert await sms.carry(TEXT) == Outcome(sent=Sent.LATER, reason="20429", retry_after_seconds=17.0)


async def test_a_wrong_token_is_said_without_it(service: TwilioStandIn) -> None:
    carrier = TwilioCarrier(ACCOUNT, "another token", NUMBER, url=service.url)
    with structlog.testing.capture_logs() as logs:
        assert (await carrier.carry(TEXT)).sent is Sent.LATER
    assert [line["log_level"] for line in logs] == ["error"]
    assert "another token" not in str(logs)
    assert TEXT.to not in str(logs)
    assert await carrier.carried(TEXT) is None
    await carrier.close()


async def test_a_message_is_found_among_others_also_behind_a_trial_accounts_sentence(
    service: TwilioStandIn, sms: TwilioCarrier
) -> None:
    assert await sms.carried(TEXT) is False
    service.prefix = "Sent from your Twilio trial account - "
    await sms.carry(TEXT)
    service.prefix = ""
    await sms.carry(Letter(to=TEXT.to, subject="", text="another. Ref 00", mark="0", at=TEXT.at))
    assert await sms.carried(TEXT) is True
    service.listing = False
    assert await sms.carried(TEXT) is None


async def test_where_nobody_listens_nothing_has_left(service: TwilioStandIn, sms: TwilioCarrier) -> None:
    await service.stop()
    said = await sms.carry(TEXT)
    assert (said.sent, said.unsure) == (Sent.LATER, False)
    assert await sms.carried(TEXT) is None


# ------------------------------------------------------------------------------------------------------------- doctor


async def test_the_doctor_says_whether_the_carriers_take_us(
    mongo_uri: str, relay: RelayStandIn, service: TwilioStandIn
) -> None:
    env = {
        "MONGO_URI": mongo_uri,
        "STUN_URLS": "none",
        "SMTP_URL": f"smtp://127.0.0.1:{relay.port}",
        "MAIL_FROM": FROM,
        "TWILIO_ACCOUNT_SID": ACCOUNT,
        "TWILIO_AUTH_TOKEN": TOKEN,
        "TWILIO_FROM": NUMBER,
        "TWILIO_URL": service.url,
    }

    async def found(**more: str) -> dict[str, bool | None]:
        findings = await examine(load_config({**env, **more}))
        return {one.what: one.ok for one in findings if one.what.startswith("notices")}

    assert await found() == {"notices by e-mail": True, "notices by SMS": True}
    await relay.stop()
    assert await found(TWILIO_AUTH_TOKEN="another") == {"notices by e-mail": False, "notices by SMS": False}
    none = dict.fromkeys(
        ("SMTP_URL", "MAIL_FROM", "TWILIO_ACCOUNT_SID", "TWILIO_AUTH_TOKEN", "TWILIO_FROM"), ""
    )
    assert await found(**none) == {"notices by e-mail": None, "notices by SMS": None}
    assert (relay.letters, service.messages) == ([], [])
