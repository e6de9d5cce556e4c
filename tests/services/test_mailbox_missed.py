"""What a device missed, when more is posted while it is looked up."""

from __future__ import annotations

from models.db import Database
from models.mailbox.service import Mailbox
from models.mailbox.store import MailboxStore
from models.ports import Letter
from tests.fakes import FakeDoors, VirtualClock


class Overtaken(MailboxStore):
    """A letter is posted right after the first look for letters."""

    mailbox: Mailbox
    posted = False

    async def since(self, user_id: str, seq: int) -> list[Letter]:
        found = await super().since(user_id, seq)
        if not self.posted:
            self.posted = True
            await self.mailbox.post([Letter(user_id=user_id, event="NEWS", payload={}, key="news")])
        return found


async def test_a_letter_that_is_posted_while_a_device_catches_up_is_no_gap(
    db: Database, doors: FakeDoors, clock: VirtualClock
) -> None:
    store = Overtaken(db)
    store.mailbox = Mailbox(store, doors, clock)
    missed = await store.mailbox.missed("ada", "phone", 0)
    assert ([letter.event for letter in missed.letters], missed.seq, missed.gap) == (["NEWS"], 1, False)


async def test_numbers_that_are_not_of_the_log_are_a_gap_and_the_last_one_is_none(
    db: Database, doors: FakeDoors, clock: VirtualClock
) -> None:
    mailbox = Mailbox(MailboxStore(db), doors, clock)
    await mailbox.post([Letter(user_id="ada", event="NEWS", payload={}, key=f"n{n}") for n in range(3)])
    for since, count, gap in ((0, 3, False), (1, 2, False), (3, 0, False), (4, 0, True)):
        missed = await mailbox.missed("ada", "phone", since)
        assert (len(missed.letters), missed.seq, missed.gap) == (count, 3, gap), since
    clock.pass_(8 * 86_400)
    await mailbox.trim()
    assert (await mailbox.missed("ada", "phone", 0)).gap is True
    assert (await mailbox.missed("ada", "phone", 3)).gap is False
