"""Telling what is durable: to-dos on messages and places that stay until their letters are posted.

Whoever dies between the change and its letters is followed by a retry or by a job; letters have keys, so that none is
posted twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import replace
from weakref import WeakValueDictionary

from models.chat import rules
from models.chat.conversations.conversation import Conversation, Membership
from models.chat.conversations.store import ConversationStore
from models.chat.message import Message
from models.chat.ports import DELIVERED, READ, Announcer, Marker, Written
from models.chat.store import ChatStore
from models.ports import Clock
from models.users.service import Users

# Things that one turn of the job tells.
RETELL_MAX = 200


class Telling:
    """One per process. ``announcer`` is set by the wiring."""

    def __init__(
        self, *, messages: ChatStore, conversations: ConversationStore, users: Users, clock: Clock
    ) -> None:
        self._messages = messages
        self._conversations = conversations
        self._users = users
        self._clock = clock
        self._marking: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()
        self.announcer: Announcer

    async def tell(
        self, conversation: Conversation, written: Sequence[Written], *, again: bool = False
    ) -> None:
        """Tell new messages of one conversation, in order, and whom it may wake."""
        newest = written[-1].message
        muted, *_ = await asyncio.gather(
            self._conversations.muted(conversation.id),
            self._conversations.active(conversation.id, newest.seq, newest.created_at),
            self.announcer.announce(conversation, written, again=again),
        )
        await self.announcer.wake(conversation, written, muted=muted)
        await self._told([one for one in written if one.message.version == 1])

    async def tell_change(self, written: Written, *, again: bool = False) -> None:
        """Tell an edited or deleted message, which was told itself."""
        await self._announce_change(written, again=again)
        await self._told([written])

    async def _announce_change(self, written: Written, *, again: bool) -> None:
        once: set[str] = set()
        if written.message.deleted_at is not None:
            # Also for who was out since, and in again, and from whom a block hides it by now: they may have it.
            places = await self._conversations.everybody(written.message.conversation_id)
            once = {place.user_id for place in places}
        await self.announcer.announce_change(written, once=once, again=again)

    async def tell_before(self, conversation_id: str) -> int:
        """Tell what another process may have died over, before anything newer of the conversation is told; how much.

        Where that one lives, it is told twice at the same time, which the keys of the letters make once.
        """
        untold = await self._messages.untold(conversation_id, RETELL_MAX)
        if untold:
            await self._tell_again(conversation_id, untold)
        return len(untold)

    async def tell_again(self, message: Message) -> Written:
        """Tell all that there may be to tell of a message."""
        return (await self._tell_again(message.conversation_id, [message]))[0]

    async def tell_deletion(self, message: Message) -> Written:
        """Tell a deleted message that somebody was about to tell when it was deleted.

        That one may do so yet, words and all, and not live to look again: it stays untold until the job looks.
        """
        return (await self._tell_again(message.conversation_id, [message], leave=True))[0]

    async def _tell_again(
        self, conversation_id: str, messages: Sequence[Message], *, leave: bool = False
    ) -> list[Written]:
        """Tell messages of one conversation, in order, to those who were in when they were sent.

        What has not passed a block until now does not, either. With ``leave`` they count as untold after it.
        """
        conversation = await self._conversation(conversation_id)
        places = await self._conversations.everybody(conversation_id)
        senders = {message.sender_id for message in messages}
        people, blocks = await asyncio.gather(
            self._users.profiles(senders),
            self._users.blocks_among(senders, [place.user_id for place in places]),
        )
        written = []
        for message in messages:
            message = await self._hidden(message, blocks)
            seen = [
                place.user_id
                for place in places
                if place.sees(message.seq) and place.user_id not in message.hidden_from
            ]
            written.append(Written(message, people[message.sender_id], tuple(seen)))
        await self.tell(conversation, written, again=True)
        out = {place.user_id for place in places if place.left_seq is not None}
        tell_change = self._announce_change if leave else self.tell_change
        for one in written:
            if one.message.version > 1:
                # A deletion is for all who have the message, new words for those who are still there.
                gone = out if one.message.deleted_at is None else set()
                readers = tuple(reader for reader in one.readers if reader not in gone)
                await tell_change(replace(one, readers=readers), again=True)
        return written

    async def _hidden(self, message: Message, blocks: Collection[tuple[str, str]]) -> Message:
        """A message without those between whom and its sender there is a block by now. Notes are for all members."""
        apart = rules.apart(message.sender_id, blocks) - message.hidden_from
        if not apart or message.note is not None:
            return message
        return await self._messages.hide(message, apart)

    def marking(self, conversation_id: str, user_id: str) -> asyncio.Lock:
        """Held from moving somebody's markers to telling them: told in the order of moving, they never go back.

        Between processes that is only nearly so; a client takes the highest.
        """
        return self._marking.setdefault((conversation_id, user_id), asyncio.Lock())

    async def tell_markers(
        self, place: Membership, *, what: str | None = None, except_device: str | None = None
    ) -> None:
        """Tell how far somebody has got: the marker ``what``, or both when nobody knows which one is untold."""
        conversation = await self._conversation(place.conversation_id)
        few = len(conversation.members) <= rules.RECEIPTS_MEMBERS_MAX
        now, blocks = await asyncio.gather(
            self._conversations.membership(place.conversation_id, place.user_id),
            self._users.blocks_among([place.user_id], conversation.members if few else ()),
        )
        now = now or place  # further by now, by another process: then nothing less is told
        others: set[str] = set()
        if few and now.left_seq is None:
            others = set(conversation.members) - {place.user_id} - rules.apart(place.user_id, blocks)
        for marker in _markers(now):
            if what in (None, marker.what):
                await self.announcer.announce_marker(marker, sorted(others), except_device=except_device)
        await self._conversations.marks_told(place)

    async def tell_untold(self) -> int:
        """Tell what dead processes have left untold; how much. Safe in any number of processes."""
        told = 0
        while told < RETELL_MAX:
            message = await self._messages.claim_untold(self._clock.now())
            if message is None:
                break
            # With what else of the conversation its process has left.
            told += await self.tell_before(message.conversation_id) or 1
        while told < RETELL_MAX:
            place = await self._conversations.claim_untold(self._clock.now())
            if place is None:
                break
            async with self.marking(place.conversation_id, place.user_id):
                await self.tell_markers(place)
            told += 1
        return told

    async def written(self, message: Message, *, readers: Sequence[str] = ()) -> Written:
        """A message with its sender as they are now, for those of ``readers`` who may see it."""
        sender = await self._users.profile(message.sender_id)
        assert sender is not None, "a deleted user stays as a tombstone"
        return Written(message, sender, tuple(one for one in readers if one not in message.hidden_from))

    async def _told(self, written: Sequence[Written]) -> None:
        """Done; but what was deleted meanwhile, at another process, must not stay in letters posted after that."""
        if not written or await self._messages.told([one.message for one in written]):
            return
        by_id = {one.message.id: one for one in written}
        now = await self._messages.some(written[0].message.conversation_id, by_id)
        for message in now.values():
            before = by_id[message.id]
            if message.deleted_at is not None and before.message.deleted_at is None:
                await self._announce_change(replace(before, message=message), again=True)

    async def _conversation(self, conversation_id: str) -> Conversation:
        found = await self._conversations.find(conversation_id)
        assert found is not None, "it is kept before its first message"
        return found


def marker_of(place: Membership, what: str) -> Marker:
    """One of somebody's two markers."""
    seq, at = (place.read_seq, place.read_at) if what == READ else (place.delivered_seq, place.delivered_at)
    return Marker(what=what, conversation_id=place.conversation_id, user_id=place.user_id, seq=seq, at=at)


def _markers(place: Membership) -> list[Marker]:
    """Those that have moved since somebody came."""
    found = [marker_of(place, what) for what in (DELIVERED, READ)]
    return [marker for marker in found if marker.at is not None]
