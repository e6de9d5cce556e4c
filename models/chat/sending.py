"""Sending: who waits for a conversation's turn is appended together, in the order in which they came.

One process has one sender at work per conversation. What comes in meanwhile waits, and goes with one exchange when the
turn is there: a thousand who write at once cost some tens of writes. Between processes the unique number decides; who
loses it reads how far the row has got and goes behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace

from models.chat import rules
from models.chat.conversations.conversation import Conversation, Membership
from models.chat.conversations.store import ConversationStore
from models.chat.message import Attachment, Draft, Message
from models.chat.ports import Attachments, KeyDevices, Written
from models.chat.rows import Place, Rows
from models.chat.store import ChatStore
from models.chat.telling import Telling
from models.errors import Refusal
from models.once import fingerprint
from models.ports import Clock, Device, Ids
from models.users.profile import DELETED, Meeting, Profile
from models.users.service import Users

# Letters of one exchange with the database: a message has one for each member.
LETTERS_MAX = 5_000


@dataclass(slots=True, eq=False)
class Waiting:
    """Somebody's message before its turn; then what became of it."""

    device: Device
    draft: Draft
    to: str | None
    outcome: Written | Exception | None = None


@dataclass(slots=True)
class Around:
    """What has to be known of a conversation's people before messages of it are let through."""

    people: Mapping[str, Profile]
    blocks: Collection[tuple[str, str]]
    replied: Mapping[str, Message] = field(default_factory=dict)
    places: Mapping[str, Membership] = field(default_factory=dict)
    devices: Mapping[str, Collection[str]] = field(default_factory=dict)


class Sending:
    """One per process."""

    def __init__(
        self,
        *,
        messages: ChatStore,
        conversations: ConversationStore,
        rows: Rows,
        telling: Telling,
        users: Users,
        clock: Clock,
        ids: Ids,
        attachments: Attachments | None,
        key_devices: KeyDevices | None,
    ) -> None:
        self._messages = messages
        self._conversations = conversations
        self._rows = rows
        self._telling = telling
        self._users = users
        self._clock = clock
        self._ids = ids
        self._attachments = attachments
        self._key_devices = key_devices

    async def send(self, device: Device, draft: Draft, *, conversation_id: str, to: str | None) -> Written:
        """Append a draft to a conversation and tell it; see ``Chat.send``."""
        turn = self._rows.turn(conversation_id)
        mine = Waiting(device, draft, to)
        # Nothing is awaited before this: arrival order is message order.
        turn.waiting.append(mine)
        try:
            async with turn.lock:
                if mine.outcome is None:
                    await self._send_all(conversation_id, turn.take(mine))
        finally:
            if mine in turn.waiting:
                turn.waiting.remove(mine)
        assert mine.outcome is not None, "a turn leaves nobody without an answer"
        if isinstance(mine.outcome, Exception):
            raise mine.outcome
        return mine.outcome

    async def _send_all(self, conversation_id: str, batch: Sequence[Waiting]) -> None:
        """Give each of ``batch`` its outcome; a fault of the database is everybody's."""
        try:
            first: dict[tuple[str, str], Waiting] = {}
            for one in batch:
                first.setdefault((one.device.user_id, one.draft.op_id), one)
            await self._append(conversation_id, list(first.values()))
            for one in batch:
                if one.outcome is None:  # the same opId as another of the batch
                    before = first[one.device.user_id, one.draft.op_id].outcome
                    no = before if isinstance(before, Refusal) else None
                    await self._find_again(conversation_id, one, no)
        except Exception as error:
            for one in batch:
                one.outcome = one.outcome or error

    async def _append(self, conversation_id: str, left: Sequence[Waiting]) -> None:
        if not self._rows.knows(conversation_id):
            await self._telling.tell_before(conversation_id)
        while left:
            known = await self._rows.place(conversation_id, of={one.device.user_id for one in left})
            place = known or _unbegun(conversation_id, left)
            if place is None:
                for one in left:
                    await self._find_again(conversation_id, one, Refusal("CONVERSATION_UNKNOWN"))
                return
            most = max(1, LETTERS_MAX // max(1, len(place.conversation.members)))
            ready = await self._admitted(place, left[:most])
            if ready and known is None:
                await self._conversations.begin(place.conversation, self._clock.now())
            left = await self._appended(place, ready) + list(left[most:])

    async def _appended(self, place: Place, ready: Sequence[tuple[Waiting, Written]]) -> list[Waiting]:
        """Append and tell what fits at its numbers; those whose turn it still is."""
        if not ready:
            return []
        kept, obstacle = await self._messages.append([written.message for _, written in ready])
        if kept:
            self._rows.keep(replace(place, head=place.head + kept))
            await self._telling.tell(place.conversation, [written for _, written in ready[:kept]])
            for one, written in ready[:kept]:
                one.outcome = written
        left = [one for one, _ in ready[kept:]]
        if obstacle == "sender_id":
            await self._find_again(place.conversation.id, left.pop(0))
        elif obstacle is not None:
            self._rows.forget(place.conversation.id)
        return left

    async def _admitted(self, place: Place, waiting: Sequence[Waiting]) -> list[tuple[Waiting, Written]]:
        """Messages with their numbers, of those who may send theirs; the others are refused."""
        around = await self._around(place.conversation, waiting)
        ready: list[tuple[Waiting, Written]] = []
        for one in waiting:
            try:
                seq = place.head + 1 + len(ready)
                ready.append((one, await self._drafted(place.conversation, one, around, seq)))
            except Refusal as no:
                # What is refused now may have been sent before: then this is its retry.
                await self._find_again(place.conversation.id, one, no)
        return ready

    async def _around(self, conversation: Conversation, waiting: Sequence[Waiting]) -> Around:
        """What there is to know, in as few exchanges as the drafts need."""
        senders = {one.device.user_id for one in waiting}
        people = senders if conversation.is_group else senders | set(conversation.members)
        profiles, blocks = await asyncio.gather(
            self._users.profiles(people), self._users.blocks_among(senders, conversation.members)
        )
        around = Around(profiles, blocks)
        replied = {one.draft.reply_to for one in waiting if one.draft.reply_to is not None}
        if replied:
            around.replied = await self._messages.some(conversation.id, replied)
            around.places = await self._conversations.memberships(conversation.id, senders)
        if self._key_devices is not None and any(one.draft.ciphertexts for one in waiting):
            around.devices = await self._key_devices.devices_of(conversation.members)
        return around

    async def _drafted(self, conversation: Conversation, one: Waiting, around: Around, seq: int) -> Written:
        """The message that a draft becomes; refuses who may not send it."""
        sender_id, draft = one.device.user_id, one.draft
        if sender_id not in conversation.members:
            raise Refusal("CONVERSATION_UNKNOWN")
        apart = rules.apart(sender_id, around.blocks)
        if not conversation.is_group:
            other_id = conversation.other_than(sender_id)
            rules.reachable(meeting_of(sender_id, other_id, around.people, around.blocks))
        if draft.reply_to is not None and not _may_reply(draft.reply_to, sender_id, around):
            raise Refusal("MESSAGE_UNKNOWN")
        if draft.ciphertexts:
            rules.check_devices(
                draft, around.devices, sender_id=sender_id, device_id=one.device.device_id, apart=apart
            )
        hidden_from = apart & set(conversation.members)
        message = Message(
            id=self._ids.new(),
            conversation_id=conversation.id,
            seq=seq,
            sender_id=sender_id,
            device_id=one.device.device_id,
            op_id=draft.op_id,
            op_print=_print(draft, conversation.id),
            text=draft.text,
            reply_to=draft.reply_to,
            attachment=await self._attached(draft, sender_id, conversation.id),
            encrypted=bool(draft.ciphertexts),
            ciphertexts=draft.ciphertexts,
            hidden_from=frozenset(hidden_from),
            created_at=self._clock.now(),
        )
        readers = tuple(member for member in conversation.members if member not in hidden_from)
        return Written(message, around.people[sender_id], readers)

    async def _attached(self, draft: Draft, owner_id: str, conversation_id: str) -> Attachment | None:
        if draft.attachment_id is None:
            return None
        if self._attachments is None:
            raise Refusal("ATTACHMENT_UNKNOWN")
        file = await self._attachments.attach(
            draft.attachment_id, owner_id=owner_id, conversation_id=conversation_id
        )
        return Attachment(
            id=file.id,
            kind=str(file.kind),
            content_type=file.content_type,
            size_bytes=file.size_bytes,
            filename=file.filename,
            width=file.width,
            height=file.height,
            thumbnail=file.thumbnail,
        )

    # ----------------------------------------------------------------------------------------------- the same again

    async def _find_again(self, conversation_id: str, one: Waiting, no: Refusal | None = None) -> None:
        """The message that was sent with this ``op_id`` before; ``no`` if there is none."""
        known = await self._messages.by_op(one.device.user_id, one.draft.op_id)
        assert known is not None or no is not None, "its opId stood in the way"
        one.outcome = no if known is None else await self._sent_before(conversation_id, one, known)

    async def _sent_before(self, conversation_id: str, one: Waiting, known: Message) -> Written | Refusal:
        """The first answer again, after making good what the first try may have left undone."""
        if known.conversation_id != conversation_id or (
            known.deleted_at is None and known.op_print != _print(one.draft, conversation_id)
        ):
            return Refusal("IDEMPOTENCY_MISMATCH")
        if not await self._messages.is_told(known.id):
            return await self._telling.tell_again(known)
        return await self._telling.written(known)


def meeting_of(
    one_id: str, other_id: str, people: Mapping[str, Profile], blocks: Collection[tuple[str, str]]
) -> Meeting:
    """Two people as ``Users.meet`` gives them. Refuses with ``USER_UNKNOWN`` (no first one)."""
    if one_id not in people:
        raise Refusal("USER_UNKNOWN")
    other = people.get(other_id)
    return Meeting(
        caller=people[one_id],
        callee=None if other is None or other.status == DELETED else other,
        blocked_by_caller=(one_id, other_id) in blocks,
        blocked_by_callee=(other_id, one_id) in blocks,
    )


def _unbegun(conversation_id: str, waiting: Sequence[Waiting]) -> Place | None:
    """A pair's conversation before its first message, when one of those who wait says who the other one is."""
    for one in waiting:
        if one.to is not None:
            pair = tuple(sorted((one.device.user_id, one.to)))
            return Place(Conversation(id=conversation_id, members=pair), 0)
    return None


def _may_reply(message_id: str, sender_id: str, around: Around) -> bool:
    message, place = around.replied.get(message_id), around.places.get(sender_id)
    return (
        message is not None
        and place is not None
        and place.sees(message.seq)
        and sender_id not in message.hidden_from
    )


def _print(draft: Draft, conversation_id: str) -> str:
    """By what the same draft is known again. Bodies that were encrypted anew are still the same message."""
    said = {**asdict(draft), "ciphertexts": bool(draft.ciphertexts)}
    return fingerprint({**said, "conversation_id": conversation_id})
