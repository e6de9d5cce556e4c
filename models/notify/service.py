"""Pushes: everything that wakes devices, as one.

What is to be pushed is kept before anything is sent, and sent by jobs that any process may run:

- rings and what follows them (``rings``), which wait for nothing else,
- messages, as one notification per person and conversation (``messages``),
- invitations to rooms (``invites``),
- and what the providers say later of what they took (``receipts``).
"""

from __future__ import annotations

import asyncio

from models.notify.invites.service import Invites
from models.notify.messages.service import Messages
from models.notify.receipts.service import Receipts
from models.notify.rings.service import Rings


class Pushes:
    """One per process: ``models.ports.Pusher`` and ``models.ports.MessagePusher`` in one."""

    def __init__(self, *, rings: Rings, messages: Messages, invites: Invites, receipts: Receipts) -> None:
        self.rings = rings
        self.messages = messages
        self.invites = invites
        self.receipts = receipts

        self.ring = rings.ring
        self.stop_ringing = rings.stop_ringing
        self.message = messages.message
        self.message_changed = messages.message_changed
        self.message_read = messages.message_read
        self.room_invited = invites.room_invited

    async def run_due(self) -> int:
        """Send what a nudge is for, rings and invitations; how many to-dos were worked on."""
        return sum(await asyncio.gather(self.rings.run_due(), self.invites.run_due()))
