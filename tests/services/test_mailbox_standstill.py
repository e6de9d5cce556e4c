"""A process that stood still, and whose phones are still there, tells them all that others have posted meanwhile."""

from __future__ import annotations

import pytest

from models.db import Database
from models.mailbox.service import STOOD_STILL_SECONDS_MAX, Mailbox
from models.mailbox.store import MailboxStore
from models.ports import Letter
from tests.fakes import FakeDoors, VirtualClock


@pytest.mark.parametrize("stood", [5, 13, STOOD_STILL_SECONDS_MAX])
async def test_what_was_posted_while_a_process_stood_still_is_told_when_it_wakes_up(
    db: Database, clock: VirtualClock, stood: int
) -> None:
    doors = FakeDoors()
    here = Mailbox(MailboxStore(db, "here"), doors, clock)
    there = Mailbox(MailboxStore(db, "there"), FakeDoors(), clock)
    heard = doors.connect("ann", "phone")
    await here.fetch()
    await there.post([Letter(user_id="ann", event="CHAT_MESSAGE", payload={}, key="k1")])
    clock.pass_(stood)
    await here.fetch()
    await here.fetch()
    assert [one.event for one in heard] == ["CHAT_MESSAGE"]
