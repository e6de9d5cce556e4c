"""Codes over the carriers of notices, and in the log where there are none."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
import structlog.testing

from models.auth.codes.ports import Brought
from models.auth.codes.rules import Message, Way
from models.notices.notice import Letter, Outcome, Sent
from server.adapters.messenger import CarrierMessenger

AT = datetime(2026, 3, 1, tzinfo=UTC)
MESSAGE = Message(way=Way.EMAIL, to="ada@example.com", subject="S", text="12345678 is it", mark="m", at=AT)


class FakeCarrier:
    """Says what it is told to say."""

    def __init__(self, sent: Sent) -> None:
        self.sent, self.letters = sent, list[Letter]()

    async def carry(self, letter: Letter) -> Outcome:
        self.letters.append(letter)
        return Outcome(sent=self.sent)

    async def carried(self, letter: Letter) -> bool | None:
        return None

    async def close(self) -> None: ...


@pytest.mark.parametrize(
    ("sent", "brought"),
    [(Sent.OK, Brought.YES), (Sent.LATER, Brought.LATER), (Sent.NEVER, Brought.NEVER)],
)
async def test_a_carrier_gets_the_letter_and_its_word_counts(sent: Sent, brought: Brought) -> None:
    carrier = FakeCarrier(sent)
    messenger = CarrierMessenger({"email": carrier}, development=False)
    assert (messenger.reaches(Way.EMAIL), messenger.reaches(Way.SMS)) == (True, False)
    assert await messenger.bring(MESSAGE) is brought
    assert carrier.letters == [Letter(to=MESSAGE.to, subject="S", text=MESSAGE.text, mark="m", at=AT)]


async def test_in_development_the_code_stands_in_the_log() -> None:
    messenger = CarrierMessenger({}, development=True)
    assert messenger.reaches(Way.SMS)
    with structlog.testing.capture_logs() as said:
        assert await messenger.bring(MESSAGE) is Brought.YES
    assert said[0]["says"] == MESSAGE.text
