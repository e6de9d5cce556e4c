"""How chat looks from outside, and who says it: messages, markers and groups become letters and pushes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Any

from handlers.chat_shapes import (
    ConversationCore,
    ConversationNotice,
    MarkerNotice,
    MarkerView,
    MessageNotice,
    MessageView,
    TypingNotice,
)
from handlers.registry import notice
from handlers.shapes import PublicUser
from handlers.users import public_user
from models.chat import rules
from models.chat.conversations.conversation import Conversation
from models.chat.message import Attachment, Ciphertext, Message
from models.chat.ports import READ, Marker, Written
from models.chat.reading import MEMBERS_SHOWN, Overview
from models.mailbox.service import Mailbox
from models.ports import Letter, MessagePusher
from models.presence.memory import Veiled
from models.presence.service import Presence
from models.users.profile import Profile
from models.users.service import Users

CHAT_MESSAGE = notice(
    "CHAT_MESSAGE", MessageNotice, "To all members, on every device but the sending one: a message."
)
MESSAGE_EDIT = notice(
    "MESSAGE_EDIT", MessageNotice, "To all members, on every device: a message has other words."
)
MESSAGE_DELETE = notice(
    "MESSAGE_DELETE", MessageNotice, "To all members, on every device: a message is deleted; forget it."
)
MESSAGE_DELIVERED = notice(
    "MESSAGE_DELIVERED", MarkerNotice, "To the other members: a device of somebody has it up to `seq`."
)
MESSAGE_READ = notice(
    "MESSAGE_READ",
    MarkerNotice,
    "To the other members and the reader's other devices: somebody has read, and so got, up to `seq`.",
)
CONVERSATION_UPDATED = notice(
    "CONVERSATION_UPDATED",
    ConversationNotice,
    "To all members and who is no longer one, on every device: a group was founded, named, or its members changed.",
)
CHAT_TYPING = notice(
    "CHAT_TYPING", TypingNotice, "To the other members who are connected: somebody types, for at most 6 s."
)
CHAT_STOP_TYPING = notice(
    "CHAT_STOP_TYPING", TypingNotice, "To those who were told so: somebody types no longer."
)

_MESSAGE, _MARKER, _CORE, _USER = MessageView(), MarkerView(), ConversationCore(), PublicUser()
# What a push shows of a message that is nothing but a file.
_FILES = {"image": "Photo", "audio": "Voice message", "video": "Video", "file": "File"}


def message_view(
    written: Written, presence: Presence, *, viewer_id: str, device_id: str = ""
) -> dict[str, Any]:
    """A message as ``viewer_id`` sees it on a device, for ``MessageView`` to dump."""
    message = written.message
    view = {
        "id": message.id,
        "conversation_id": message.conversation_id,
        "seq": message.seq,
        "version": message.version,
        "sender": public_user(presence, written.sender),
        "text": message.text,
        "attachment": _attachment_view(message.attachment) if message.attachment else None,
        "reply_to": message.reply_to,
        "encrypted": message.encrypted,
        "ciphertext": _ciphertext_view(message, message.ciphertext_for(viewer_id, device_id)),
        "note": message.note,
        "created_at": message.created_at,
        "edited_at": message.edited_at,
        "deleted_at": message.deleted_at,
    }
    mine = viewer_id == message.sender_id and message.note is None
    return {**view, "op_id": message.op_id} if mine else view


def _ciphertext_view(message: Message, body: Ciphertext | None) -> dict[str, Any] | None:
    if body is None:
        return None
    return {"type": body.type, "body": body.body, "sender_device_id": message.device_id}


def _attachment_view(file: Attachment) -> dict[str, Any]:
    url = f"/api/media/{file.id}"
    return {
        "id": file.id,
        "kind": file.kind,
        "content_type": file.content_type,
        "size_bytes": file.size_bytes,
        "filename": file.filename,
        "width": file.width,
        "height": file.height,
        "url": url,
        "thumbnail_url": f"{url}/thumbnail" if file.thumbnail else None,
    }


def preview_of(message: Message) -> str | None:
    """What a push shows of a message; None when it is encrypted."""
    return message.text or (_FILES[message.attachment.kind] if message.attachment else None)


def sender_view(written: Written, presence: Presence) -> dict[str, Any]:
    """A message's sender in wire form."""
    return dict(_USER.dump(public_user(presence, written.sender)))


def core_view(
    conversation: Conversation,
    people: dict[str, Profile],
    presence: Presence,
    *,
    viewer_id: str,
    shown: Sequence[str],
) -> dict[str, Any]:
    """A conversation for ``ConversationCore`` to dump."""
    return {
        "id": conversation.id,
        "kind": conversation.kind,
        "name": conversation.name,
        "role": conversation.role_of(viewer_id),
        "members": [
            {**public_user(presence, people[member]), "role": conversation.role_of(member)}
            for member in shown
            if member in people
        ],
        "member_count": len(conversation.members),
        "version": conversation.version,
        "created_at": conversation.created_at,
    }


def overview(one: Overview, presence: Presence, *, viewer_id: str, device_id: str) -> dict[str, Any]:
    """A conversation with what is one's own of it, for ``ConversationView`` to dump."""
    core = core_view(one.conversation, dict(one.people), presence, viewer_id=viewer_id, shown=one.shown)
    last = one.last
    return {
        **core,
        "active_at": one.conversation.active_at,
        "last_message": message_view(last, presence, viewer_id=viewer_id, device_id=device_id)
        if last
        else None,
        "unread": one.unread,
        "delivered_seq": one.mine.delivered_seq,
        "read_seq": one.mine.read_seq,
        "muted": one.mine.muted,
        "markers": one.markers,
    }


class ChatTeller:
    """``models.chat.ports.Announcer``: what happens becomes letters, and new messages pushes."""

    def __init__(
        self, *, mailbox: Mailbox, presence: Presence, users: Users, pusher: MessagePusher | None = None
    ) -> None:
        self._mailbox = mailbox
        self._presence = presence
        self._users = users
        self._pusher = pusher

    async def announce(self, conversation: Conversation, written: Sequence[Written], *, again: bool) -> None:
        """Keep and tell the letters to all readers; the sending device has the message from its answer.

        The letters of an encrypted message are for those devices that have a body each.
        """
        letters: list[Letter] = []
        for one in written:
            if one.message.note is not None:
                letters += await self._noted(conversation, one)
            else:
                letters += self._encrypted(one) if one.message.ciphertexts else self._plain(one)
        await self._mailbox.post(letters, again=again)

    async def wake(
        self, conversation: Conversation, written: Sequence[Written], *, muted: Collection[str]
    ) -> None:
        """Have those pushed to who are not here, each message once."""
        if self._pusher is not None:
            await asyncio.gather(*(self._wake(self._pusher, conversation, one, muted) for one in written))

    async def _wake(
        self, pusher: MessagePusher, conversation: Conversation, written: Written, muted: Collection[str]
    ) -> None:
        message = written.message
        recipients = [user for user in written.readers if user not in muted and user != message.sender_id]
        if message.note is not None or message.deleted_at is not None or not recipients:
            return
        await pusher.message(
            conversation_id=conversation.id,
            message_id=message.id,
            seq=message.seq,
            sender=sender_view(written, self._presence),
            recipients=recipients,
            preview=preview_of(message),
            title=conversation.name,
        )

    async def announce_change(self, written: Written, *, once: Collection[str], again: bool) -> None:
        """Tell a message in its new form; of a deleted one, the letters of before say nothing any more, either."""
        message, readers = written.message, set(written.readers)
        deleted = message.deleted_at is not None
        key = f"msg:{message.id}"
        if deleted:
            await self._mailbox.redact(readers.union(once), key, _emptied(self._message(written, "")))
            readers |= await self._mailbox.holders(set(once) - readers, key)
        if self._pusher is not None:
            await self._pusher.message_changed(
                user_ids=readers, conversation_id=message.conversation_id, message_id=message.id
            )
        blocks = await self._users.blocks_among([message.sender_id], readers)
        view = self._views(written, rules.apart(message.sender_id, blocks))
        await self._mailbox.post(
            [
                Letter(
                    user_id=reader,
                    event=MESSAGE_DELETE if deleted else MESSAGE_EDIT,
                    payload=view(reader),
                    key=f"{key}:{message.version}",
                )
                for reader in sorted(readers)
            ],
            again=again,
        )

    async def announce_marker(
        self, marker: Marker, readers: Collection[str], *, except_device: str | None
    ) -> None:
        """Tell a marker to the others; that something is read also to the reader's own devices, and to the pushes."""
        read = marker.what == READ
        payload = dict(_MARKER.dump(marker))
        key = f"{marker.what}:{marker.conversation_id}:{marker.user_id}:{marker.seq}"
        event = MESSAGE_READ if read else MESSAGE_DELIVERED
        letters = [Letter(user_id=reader, event=event, payload=payload, key=key) for reader in readers]
        if read:
            own = Letter(
                user_id=marker.user_id, event=event, payload=payload, key=key, except_device=except_device
            )
            letters.append(own)
        if letters:
            await self._mailbox.post(letters, again=True)
        if read and self._pusher is not None:
            await self._pusher.message_read(
                user_id=marker.user_id, conversation_id=marker.conversation_id, seq=marker.seq
            )

    async def announce_typing(
        self, typist: Profile, conversation_id: str, readers: Collection[str], *, typing: bool
    ) -> None:
        """Tell it to who is connected; nothing of it is kept."""
        if not typing:
            # Since they were told that somebody types there may be a block. What they were told ends by itself.
            blocks = await self._users.blocks_among([typist.user_id], readers)
            readers = set(readers) - rules.apart(typist.user_id, blocks)
        payload = {
            "conversationId": conversation_id,
            "from": _USER.dump(public_user(self._presence, typist)),
        }
        event = CHAT_TYPING if typing else CHAT_STOP_TYPING
        if readers:
            await self._mailbox.post(
                [Letter(user_id=reader, event=event, payload=payload) for reader in readers]
            )

    def _plain(self, written: Written, apart: Collection[str] = ()) -> list[Letter]:
        message, view = written.message, self._views(written, apart)
        return [
            Letter(
                user_id=reader,
                event=CHAT_MESSAGE,
                payload=view(reader),
                key=f"msg:{message.id}",
                except_device=message.device_id if reader == message.sender_id else None,
            )
            for reader in written.readers
        ]

    def _encrypted(self, written: Written) -> list[Letter]:
        readers, key = set(written.readers), f"msg:{written.message.id}"
        return [
            Letter(
                user_id=body.user_id,
                event=CHAT_MESSAGE,
                payload=self._message(written, body.user_id, body),
                key=f"{key}:{body.device_id}",
                only_device=body.device_id,
            )
            for body in written.message.ciphertexts
            if body.user_id in readers
        ]

    def _views(self, written: Written, apart: Collection[str]) -> Callable[[str], dict[str, Any]]:
        """A message as each reader sees it, made once for all to whom it looks alike.

        To those who are ``apart`` from its sender it does not say whether that one is here.
        """
        sender_id = written.message.sender_id
        made: dict[tuple[bool, bool], dict[str, Any]] = {}

        def view(reader: str) -> dict[str, Any]:
            alike = (reader == sender_id, reader in apart)
            if alike not in made:
                made[alike] = self._message(written, reader if alike[0] else "", veiled=alike[1])
            return made[alike]

        return view

    def _message(
        self, written: Written, viewer_id: str, body: Ciphertext | None = None, *, veiled: bool = False
    ) -> dict[str, Any]:
        presence = Veiled(self._presence, [written.message.sender_id]) if veiled else self._presence
        device_id = body.device_id if body else ""
        return dict(_MESSAGE.dump(message_view(written, presence, viewer_id=viewer_id, device_id=device_id)))

    async def _noted(self, conversation: Conversation, written: Written) -> list[Letter]:
        """That a group has changed, and what it is after that, for each of its members and for who is out."""
        shown, sender_id = conversation.members[:MEMBERS_SHOWN], written.message.sender_id
        people, blocks = await asyncio.gather(
            self._users.profiles(shown), self._users.blocks_among({*shown, sender_id}, written.readers)
        )
        letters = self._plain(written, rules.apart(sender_id, blocks))
        for reader in written.readers:
            presence = Veiled(self._presence, rules.apart(reader, blocks))
            core = core_view(conversation, people, presence, viewer_id=reader, shown=shown)
            letters.append(
                Letter(
                    user_id=reader,
                    event=CONVERSATION_UPDATED,
                    payload={"conversation": _CORE.dump(core)},
                    key=f"conversation:{conversation.id}:{conversation.version}",
                )
            )
        return letters


def _emptied(view: dict[str, Any]) -> dict[str, Any]:
    """What of a deleted message takes the place of what it said."""
    return {name: view[name] for name in ("text", "attachment", "ciphertext", "deletedAt", "version")}
