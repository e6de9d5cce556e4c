"""What the server knows of a person, as a file: every list that they can read, and what they wrote.

It is made while it is sent, page by page, so that neither side has to hold all of it.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

from handlers.auth_shapes import OwnUser
from handlers.blobs import Stream
from handlers.context import Context
from handlers.registry import Route, catalogue, route
from handlers.shapes import Page, PublicUser, rfc3339
from handlers.users import own_user, public_user
from models.chat.message import Message
from models.errors import Refusal

# Under which name each list stands in the file. Lists of other people's things are not one's own data.
LISTS = {
    "sessions": "/api/auth/sessions",
    "signInProviders": "/api/auth/oauth",
    "apiKeys": "/api/auth/api-keys",
    "wallets": "/api/wallets",
    "payments": "/api/payments",
    "withdrawals": "/api/wallet/payouts",
    "bankAccounts": "/api/wallet/bank-accounts",
    "cards": "/api/wallet/cards",
    "calls": "/api/calls/history",
    "roomCalls": "/api/call-logs",
    "rooms": "/api/rooms",
    "conversations": "/api/chat/conversations",
}
_STATEMENT = "/api/wallet/transactions"
_PAGE = 200
_USER, _PUBLIC = OwnUser(), PublicUser()


@route("GET", "/api/user/export", blob=True, limit="auth", refuses=["RATE_LIMITED"])
async def export(ctx: Context, ask: dict[str, Any]) -> Stream:
    """All that is kept about you, as a JSON file: account, devices, money, calls, and the messages that you wrote.

    What others wrote to you is theirs, and is not in it.
    """
    account = await ctx.services.users.account(ctx.user_id)
    now = ctx.services.clock.now()
    return Stream(
        content_type="application/json",
        filename=f"ringmeter-{account.profile.username}-{now:%Y-%m-%d}.json",
        pieces=_pieces(ctx, {"exportedAt": rfc3339(now), "user": _USER.dump(own_user(ctx, account))}),
    )


async def _pieces(ctx: Context, head: dict[str, Any]) -> AsyncIterator[bytes]:
    left = await ctx.services.accounts.factors.recovery_left(ctx.user_id)
    head["secondFactor"] = {"on": left is not None, "recoveryCodesLeft": left or 0}
    settings = await ctx.services.notices.settings(ctx.user_id)
    head["notices"] = {"email": settings.email, "sms": settings.sms}
    blocked = await ctx.services.users.blocked_by(ctx.user_id)
    head["blocked"] = [_PUBLIC.dump(public_user(ctx, person)) for person in blocked]
    yield _json(head)[:-1]
    for name, path in LISTS.items():
        async for piece in _list(name, _pages(ctx, path)):
            yield piece
    async for piece in _list("transactions", _statements(ctx)):
        yield piece
    async for piece in _list("messages", _messages(ctx)):
        yield piece
    yield b"}\n"


async def _list(name: str, pages: AsyncIterator[Sequence[Any]]) -> AsyncIterator[bytes]:
    yield b"," + _json(name) + b":["
    first = True
    async for items in pages:
        if items:
            yield (b"" if first else b",") + b",".join(_json(item) for item in items)
            first = False
    yield b"]"


async def _pages(ctx: Context, path: str, **asked: Any) -> AsyncIterator[Sequence[Any]]:
    """The pages of a list, as its own route gives them."""
    found = _route(path)
    assert found.gives is not None
    gives, takes = found.gives(), found.takes()
    limit = {"limit": _PAGE} if "limit" in takes.fields else {}
    cursor: str | None = None
    while True:
        try:
            ask = takes.load({**asked, **limit, **({"cursor": cursor} if cursor else {})})
            page: Page = await found.handler(ctx, ask)
        except Refusal as refusal:
            if refusal.code == "WALLET_UNKNOWN":
                return  # who has no wallet has no money in it
            raise
        yield gives.dump(page.items, many=True)
        cursor = page.next_cursor
        if cursor is None:
            return


async def _statements(ctx: Context) -> AsyncIterator[Sequence[Any]]:
    currencies = {one.wallet.currency for one in await ctx.services.wallets.accounts(ctx.user_id)}
    for currency in sorted(currencies):
        async for items in _pages(ctx, _STATEMENT, currency=currency):
            yield items


async def _messages(ctx: Context) -> AsyncIterator[Sequence[Any]]:
    after: str | None = None
    while True:
        found = await ctx.services.chat.written_by(ctx.user_id, after=after, limit=_PAGE)
        yield [_message(message) for message in found if message.deleted_at is None]
        if len(found) < _PAGE:
            return
        after = found[-1].op_id


def _message(message: Message) -> dict[str, Any]:
    file = message.attachment
    return {
        "id": message.id,
        "conversationId": message.conversation_id,
        "text": message.text,
        "encrypted": message.encrypted,
        "attachmentId": file.id if file else None,
        "filename": file.filename if file else None,
        "replyTo": message.reply_to,
        "createdAt": rfc3339(message.created_at),
        "editedAt": rfc3339(message.edited_at) if message.edited_at else None,
    }


def _route(path: str) -> Route:
    return next(one for one in catalogue.routes if one.method == "GET" and one.path == path)


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
