"""Chat on the wire: what is asked for, and how messages, conversations and markers look."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marshmallow import ValidationError, fields, validate, validates_schema

from handlers.shapes import ID_MAX, NUMBER_MAX, Id, Instant, PageQuery, PublicUser, Shape, Text
from models.chat.conversations.conversation import ADMIN, DIRECT, GROUP, MEMBER, OWNER
from models.chat.rules import MEMBERS_MAX

OP_ID_MAX = 128
# Far above what a message may have in bytes, so that it is its own refusal that says so; a frame has no more.
TEXT_CHARACTERS_MAX = 128 * 1024
# Above what a group may be called, for the same reason.
NAME_CHARACTERS_MAX = 400
# A group of people with several devices each; the frame is the nearer limit.
CIPHERTEXTS_MAX = 1024
# The 32 bits in which apps keep a message's type.
TYPE_MAX = 2**31 - 1

EXAMPLE_ID = "01985c3e-7f1a-7b7c-9d53-0a5f1c2b3d4e"
_SEQ = {"description": "Place in the conversation: 1, 2, 3 …"}


class CiphertextFor(Shape):
    """The body of a message for one device, as its app has encrypted it; ``type`` is the app's own."""

    user_id = Id(required=True)
    device_id = Id(required=True)
    type = fields.Integer(required=True, strict=True, validate=validate.Range(min=0, max=TYPE_MAX))
    body = Text(
        required=True,
        least=1,
        most=TEXT_CHARACTERS_MAX,
        validate=validate.Regexp(r"[A-Za-z0-9+/_-]+={0,2}\Z", error="Not base64."),
    )
    example = {"userId": EXAMPLE_ID, "deviceId": "phone", "type": 3, "body": "bWVzc2FnZQ=="}


def _one_address(data: Mapping[str, Any]) -> None:
    if ("to" in data) == ("conversation_id" in data):
        raise ValidationError({"to": ["Exactly one of to and conversationId."]})


class SendMessage(Shape):
    """A message to a person (``to``) or into a conversation; exactly one of the two.

    It has a text of at most 8 KiB of UTF-8, an attachment, or both. An encrypted one has ``ciphertexts`` instead of a
    text: one for each device with keys of all members, except for the one that sends.
    """

    to = Id()
    conversation_id = Id()
    text = Text(load_default=None, allow_none=True, least=1, most=TEXT_CHARACTERS_MAX)
    attachment_id = Id(load_default=None, allow_none=True)
    reply_to = Id(load_default=None, allow_none=True)
    ciphertexts = fields.List(
        fields.Nested(CiphertextFor),
        load_default=None,
        allow_none=True,
        validate=validate.Length(min=1, max=CIPHERTEXTS_MAX),
    )
    op_id = Text(required=True, least=1, most=OP_ID_MAX)
    example = {"to": EXAMPLE_ID, "text": "Good morning!", "opId": "b7a0c1de-5a"}

    @validates_schema
    def one_address(self, data: Mapping[str, Any], **_: Any) -> None:
        """Refuse none and both."""
        _one_address(data)

    @validates_schema
    def something_said(self, data: Mapping[str, Any], **_: Any) -> None:
        """Refuse a message without anything in it."""
        if data["text"] is None and data["attachment_id"] is None and not data["ciphertexts"]:
            raise ValidationError({"text": ["A text, an attachment, or ciphertexts."]})


class MessageRef(Shape):
    """A message."""

    message_id = Id(required=True)
    example = {"messageId": EXAMPLE_ID}


class EditMessage(MessageRef):
    """Other words for one's own message."""

    text = Text(required=True, least=1, most=TEXT_CHARACTERS_MAX)
    example = {"messageId": EXAMPLE_ID, "text": "Good evening!"}


class MarkMessages(Shape):
    """Up to and including a message (``messageId``), or a number of a conversation (``conversationId`` and ``seq``)."""

    message_id = Id()
    conversation_id = Id()
    seq = fields.Integer(strict=True, validate=validate.Range(min=0, max=NUMBER_MAX))
    example = {"conversationId": EXAMPLE_ID, "seq": 7}

    @validates_schema
    def one_place(self, data: Mapping[str, Any], **_: Any) -> None:
        """Refuse none and both."""
        if ("message_id" in data) == ("conversation_id" in data):
            raise ValidationError({"messageId": ["Exactly one of messageId and conversationId."]})
        if ("conversation_id" in data) != ("seq" in data):
            raise ValidationError({"seq": ["With conversationId."]})


class TypingIn(Shape):
    """Where one types: to a person (``to``) or in a conversation; exactly one of the two."""

    to = Id()
    conversation_id = Id()
    example = {"to": EXAMPLE_ID}

    @validates_schema
    def one_address(self, data: Mapping[str, Any], **_: Any) -> None:
        """Refuse none and both."""
        _one_address(data)


class _Directed(PageQuery):
    """A stretch in one direction."""

    @validates_schema
    def one_direction(self, data: Mapping[str, Any], **_: Any) -> None:
        """Refuse both."""
        if "before" in data and "after" in data:
            raise ValidationError({"after": ["Either before or after."]})


class _Numbered(_Directed):
    """By numbers: below ``before`` (newest first), or above ``after`` (oldest first)."""

    before = fields.Integer(validate=validate.Range(min=0, max=NUMBER_MAX))
    after = fields.Integer(validate=validate.Range(min=0, max=NUMBER_MAX))


class HistoryQuery(_Numbered):
    """Whose messages with oneself: below ``before`` (newest first), or above ``after`` (oldest first)."""

    user_id = Id(required=True)
    example = {"userId": EXAMPLE_ID, "limit": 50}


class MessagesQuery(_Numbered):
    """A stretch of a conversation: below ``before`` (newest first), or above ``after`` (oldest first)."""

    conversation_id = Id(required=True)
    example = {"conversationId": EXAMPLE_ID, "after": 120, "limit": 50}


class MessageSearch(_Directed):
    """Beginnings of words, all of which a message must have; in all conversations or in one.

    Older than the message ``before`` (newest first), or newer than the message ``after`` (oldest first).
    """

    query = Text(required=True, least=1, most=256)
    conversation_id = Id()
    before = Id()
    after = Id()
    example = {"query": "good morn"}


class ConversationRef(Shape):
    """A conversation."""

    id = Id(required=True)
    example = {"id": EXAMPLE_ID}


class MuteConversation(ConversationRef):
    """Whether to want no push for a conversation."""

    muted = fields.Boolean(required=True)
    example = {"id": EXAMPLE_ID, "muted": True}


class FoundGroup(Shape):
    """A group's name and its other members."""

    name = Text(required=True, least=1, most=NAME_CHARACTERS_MAX)
    member_ids = fields.List(
        Text(most=ID_MAX, least=1), required=True, validate=validate.Length(max=2 * MEMBERS_MAX)
    )
    op_id = Text(load_default=None, least=1, most=OP_ID_MAX)
    example = {"name": "Weekend", "memberIds": [EXAMPLE_ID]}


class RenameGroup(ConversationRef):
    """Another name for a group."""

    name = Text(required=True, least=1, most=NAME_CHARACTERS_MAX)
    example = {"id": EXAMPLE_ID, "name": "Long weekend"}


class AddMembers(ConversationRef):
    """More members for a group."""

    member_ids = fields.List(
        Text(most=ID_MAX, least=1), required=True, validate=validate.Length(min=1, max=2 * MEMBERS_MAX)
    )
    example = {"id": EXAMPLE_ID, "memberIds": [EXAMPLE_ID]}


class GroupMember(ConversationRef):
    """A member of a group."""

    user_id = Id(required=True)
    example = {"id": EXAMPLE_ID, "userId": EXAMPLE_ID}


class AppointMember(GroupMember):
    """Another role for a member of a group."""

    role = Text(required=True, validate=validate.OneOf([ADMIN, MEMBER]))
    example = {"id": EXAMPLE_ID, "userId": EXAMPLE_ID, "role": ADMIN}


# -------------------------------------------------------------------------------------------------------- what is said


class AttachmentView(Shape):
    """A file of a message. Who may see the message may load it."""

    id = fields.String(required=True)
    kind = fields.String(required=True, validate=validate.OneOf(["image", "audio", "video", "file"]))
    content_type = fields.String(required=True)
    size_bytes = fields.Integer(required=True)
    filename = fields.String(required=True, allow_none=True)
    width = fields.Integer(required=True, allow_none=True)
    height = fields.Integer(required=True, allow_none=True)
    url = fields.String(required=True)
    thumbnail_url = fields.String(required=True, allow_none=True)


class CiphertextView(Shape):
    """The body for this device. With ``senderDeviceId`` it knows whose session opens it."""

    type = fields.Integer(required=True)
    body = fields.String(required=True)
    sender_device_id = fields.String(required=True)


class NoteView(Shape):
    """What the server says of a group, by who did it (``sender``)."""

    what = fields.String(
        required=True,
        validate=validate.OneOf(["created", "renamed", "added", "removed", "left", ADMIN, MEMBER]),
        metadata={"description": "`admin` and `member`: the role that somebody has now."},
    )
    user_ids = fields.List(fields.String(), required=True)
    name = fields.String(required=True, allow_none=True)


class MessageView(Shape):
    """A message. ``seq`` counts in its conversation; ``opId`` is told to the sender's own devices only.

    A client ignores an older ``version`` than the one it has. A deleted message keeps its place and nothing else. Of an
    encrypted one each device sees its own body only, and null if there is none for it.
    """

    id = fields.String(required=True)
    conversation_id = fields.String(required=True)
    seq = fields.Integer(required=True, metadata=_SEQ)
    version = fields.Integer(required=True)
    sender = fields.Nested(PublicUser, required=True)
    text = fields.String(required=True, allow_none=True)
    attachment = fields.Nested(AttachmentView, required=True, allow_none=True)
    reply_to = fields.String(required=True, allow_none=True)
    encrypted = fields.Boolean(required=True)
    ciphertext = fields.Nested(CiphertextView, required=True, allow_none=True)
    note = fields.Nested(NoteView, required=True, allow_none=True)
    created_at = Instant(required=True)
    edited_at = Instant(required=True, allow_none=True)
    deleted_at = Instant(required=True, allow_none=True)
    op_id = fields.String()


class _Logged(Shape):
    """A durable event."""

    log_seq = fields.Integer(
        metadata={"description": "Your own rising number; the last one handled is `since`."}
    )


class MessageNotice(MessageView, _Logged):
    """A message as it is told to a device."""


class MarkerView(Shape):
    """How far somebody has got or read a conversation: up to and including ``seq``."""

    conversation_id = fields.String(required=True)
    user_id = fields.String(required=True)
    seq = fields.Integer(required=True, metadata=_SEQ)
    at = Instant(required=True, allow_none=True)


class MarkerNotice(MarkerView, _Logged):
    """A marker as it is told to a device."""


class TypingNotice(Shape):
    """Somebody types, or does no longer."""

    conversation_id = fields.String(required=True)
    # The contract's name for it, which is a word of Python's.
    sender = fields.Nested(PublicUser, required=True, data_key="from")


class MemberView(PublicUser):
    """A member of a conversation."""

    role = fields.String(required=True, validate=validate.OneOf([OWNER, ADMIN, MEMBER]))


class ConversationCore(Shape):
    """Who writes to one another. Of a group's members, lists and notices show eight, its own page all.

    ``role`` is your own, null once you are out. ``version`` rises with each change of a group's name or members.
    """

    id = fields.String(required=True)
    kind = fields.String(required=True, validate=validate.OneOf([DIRECT, GROUP]))
    name = fields.String(required=True, allow_none=True)
    role = fields.String(required=True, allow_none=True, validate=validate.OneOf([OWNER, ADMIN, MEMBER]))
    members = fields.List(fields.Nested(MemberView), required=True)
    member_count = fields.Integer(required=True)
    version = fields.Integer(required=True)
    created_at = Instant(required=True)


class OtherMarkers(Shape):
    """How far the other one of a pair has got and read."""

    user_id = fields.String(required=True)
    delivered_seq = fields.Integer(required=True)
    read_seq = fields.Integer(required=True)
    read_at = Instant(required=True, allow_none=True)


class ConversationView(ConversationCore):
    """A conversation as you see it. ``unread`` counts up to 1,000; ``markers`` are of the other one of a pair."""

    active_at = Instant(required=True)
    last_message = fields.Nested(MessageView, required=True, allow_none=True)
    unread = fields.Integer(required=True)
    delivered_seq = fields.Integer(required=True)
    read_seq = fields.Integer(required=True)
    muted = fields.Boolean(required=True)
    markers = fields.List(fields.Nested(OtherMarkers), required=True)


class ConversationNotice(_Logged):
    """A group after a change."""

    conversation = fields.Nested(ConversationCore, required=True)


class UnreadView(Shape):
    """What you have not read."""

    unread = fields.Integer(required=True, metadata={"description": "Messages, in all conversations."})
    conversations = fields.Integer(required=True, metadata={"description": "In how many of them."})
