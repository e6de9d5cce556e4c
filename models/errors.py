"""The one way to say no.

A service or a rule raises ``Refusal("CALL_BUSY")``; the funnel turns it into an ack or an HTTP answer. Every
code that a client can meet stands in ``CODES`` below, with its HTTP status, the sentence a person may be shown,
and whether trying the very same thing again can help. The API documents are generated from this table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Code:
    """What a refusal code means: HTTP ``status``, ``sentence`` for people, ``retry_after_ms`` when waiting helps."""

    status: int
    sentence: str
    retry_after_ms: int | None = None


CODES: dict[str, Code] = {
    # -- the request itself
    "VALIDATION_FAILED": Code(400, "Some fields are missing or wrong."),
    "BAD_JSON": Code(400, "The body is not valid JSON."),
    "PAYLOAD_TOO_LARGE": Code(413, "This message is larger than allowed."),
    "EVENT_UNKNOWN": Code(404, "There is no event of this name."),
    "ROUTE_UNKNOWN": Code(404, "There is nothing at this address."),
    "METHOD_NOT_ALLOWED": Code(405, "This address does not take that method."),
    "RATE_LIMITED": Code(429, "Too many requests; slow down.", 1000),
    "TOO_MANY_CONNECTIONS": Code(
        429, "Too many connections are open; close some, or come back later.", 30_000
    ),
    "ADDRESS_BLOCKED": Code(403, "Requests from this address are not taken for a time.", 600_000),
    "IDEMPOTENCY_MISMATCH": Code(422, "This key was used before with another payload."),
    "IDEMPOTENCY_IN_FLIGHT": Code(409, "The first request with this key is still running.", 250),
    "INTERNAL": Code(500, "Something went wrong on our side.", 1000),
    "DATABASE_AWAY": Code(503, "The database is not reachable; try again shortly.", 1000),
    "SERVER_DRAINING": Code(503, "This server is restarting; connect again.", 1000),
    "SERVER_BUSY": Code(429, "The server is busy; try again shortly.", 1000),
    # -- who is asking
    "TOKEN_MISSING": Code(401, "Sign in first."),
    "TOKEN_EXPIRED": Code(401, "The access token has expired; refresh it."),
    "TOKEN_INVALID": Code(401, "The access token is not valid."),
    "REFRESH_INVALID": Code(401, "The refresh token is not valid; sign in again."),
    "REFRESH_REUSED": Code(
        401, "The refresh token was used before; all its tokens are revoked. Sign in again."
    ),
    "SESSION_ENDED": Code(401, "This sign-in has ended; sign in again."),
    "CREDENTIALS_WRONG": Code(401, "The name or the password is wrong."),
    "PASSWORD_WRONG": Code(403, "The password is wrong."),
    "PASSWORD_REQUIRED": Code(403, "This sign-in is some time ago: show the password, or sign in anew."),
    "TOTP_REQUIRED": Code(401, "A code of your authenticator app, or a recovery code, is needed as well."),
    "TOTP_WRONG": Code(403, "This code is wrong, or was used already."),
    "TOTP_LOCKED": Code(429, "Too many wrong codes; wait, or use a recovery code.", 300_000),
    "TOTP_ENABLED": Code(409, "A second factor is on already; turn it off first."),
    "TOTP_NOT_SET_UP": Code(409, "There is no second factor, or none that waits for its first code."),
    "CODE_WRONG": Code(403, "This code is wrong, or too old, or was used already."),
    "ID_TOKEN_INVALID": Code(401, "The provider's token is not valid here, or has expired."),
    "PROVIDER_UNAVAILABLE": Code(403, "There is no signing in with this provider here."),
    "PROVIDER_AWAY": Code(503, "The provider's keys cannot be had just now; try again shortly.", 5000),
    "SCOPE_MISSING": Code(403, "This API key may not do that."),
    "TOO_MANY_KEYS": Code(409, "You have as many API keys as one may; revoke some first."),
    "ACCOUNT_BANNED": Code(403, "This account is banned."),
    "ACCOUNT_DELETED": Code(403, "This account was deleted."),
    "FORBIDDEN": Code(403, "This is not yours to do."),
    "FORM_FOREIGN": Code(
        403, "This form is not from a page of this server, or its page is too old. Load the page again."
    ),
    # -- people
    "ACCOUNT_EXISTS": Code(409, "An account with this e-mail, phone or username exists already."),
    "USER_UNKNOWN": Code(404, "There is no such user."),
    "USER_BLOCKED": Code(403, "You have blocked this person."),
    "USER_UNAVAILABLE": Code(403, "This person cannot be reached."),
    "SELF_NOT_ALLOWED": Code(400, "This cannot be done with yourself."),
    "SESSION_UNKNOWN": Code(404, "There is no such session."),
    # -- calls
    "CALL_UNKNOWN": Code(404, "There is no such call."),
    "CALL_ENDED": Code(409, "This call has ended."),
    "CALL_BUSY": Code(409, "This person is in another call."),
    "CALL_IN_PROGRESS": Code(409, "You are in another call."),
    "CALL_WRONG_STATE": Code(409, "The call is not in a state for this."),
    "CALL_WRONG_SIDE": Code(403, "This is for the other side of the call."),
    "CALL_ANSWERED_ELSEWHERE": Code(409, "Another of your devices holds this call."),
    "CALL_GLARE": Code(409, "Both sides offered at once and the other side's offer goes first.", 500),
    "CALL_UPGRADE_REQUIRED": Code(409, "This is an audio call; ask for video with CALL_UPGRADE first."),
    "TOO_MANY_CANDIDATES": Code(429, "Too many candidates are waiting for the other side.", 1000),
    "SDP_INVALID": Code(400, "The session description is not valid."),
    "SDP_TOO_LARGE": Code(413, "The session description is larger than 64 KiB."),
    # -- money
    "INSUFFICIENT_FUNDS": Code(402, "There is not enough money in the wallet for this."),
    "AMOUNT_TOO_LARGE": Code(422, "No wallet can hold this much."),
    "PRICE_CHANGED": Code(409, "The price is higher than the one that was agreed to."),
    "CURRENCY_MISMATCH": Code(409, "This is in another currency than the wallet or the other side."),
    "WALLET_UNKNOWN": Code(404, "There is no such wallet; create one first."),
    "WALLET_EXISTS": Code(409, "There is a wallet already."),
    "WALLET_FROZEN": Code(403, "This wallet is frozen; ask the support."),
    "REFUND_TOO_LARGE": Code(409, "This is more than is left to give back."),
    "WALLET_NOT_EMPTY": Code(409, "There is money in your wallet; it would be lost."),
    "PIN_WRONG": Code(403, "The PIN is wrong."),
    "PIN_LOCKED": Code(429, "Too many wrong PINs; wait, or reset it."),
    "PIN_UNSET": Code(409, "There is no PIN yet; create a wallet with one."),
    "GATEWAY_UNAVAILABLE": Code(403, "There is no way to pay in or out with this gateway here."),
    "GATEWAY_AWAY": Code(503, "The payment gateway does not answer; nothing was charged. Try again.", 2000),
    "GATEWAY_REFUSED": Code(422, "The payment gateway does not accept this."),
    "PAYMENT_UNKNOWN": Code(404, "There is no such payment."),
    "PAYOUT_UNKNOWN": Code(404, "There is no such withdrawal."),
    "PAYOUT_WRONG_STATE": Code(409, "The withdrawal is not in a state for this."),
    "PAYOUT_LIMIT": Code(409, "This is more than may be withdrawn in a day, or less than the least."),
    "PAYOUT_COOLING_OFF": Code(
        403,
        "After a change of the PIN, the second factor or a bank account nothing can be withdrawn for a time.",
    ),
    "BANK_ACCOUNT_UNKNOWN": Code(404, "There is no such bank account."),
    "BANK_ACCOUNT_EXISTS": Code(409, "You have this bank account already."),
    "BANK_ACCOUNT_REFUSED": Code(422, "The bank knows no account of this number."),
    "CARD_UNKNOWN": Code(404, "There is no such card."),
    "FX_UNAVAILABLE": Code(409, "There is no rate between these currencies."),
    "FX_AWAY": Code(503, "The source of the rates does not answer; try again shortly.", 2000),
    "QUOTE_UNKNOWN": Code(404, "There is no such quote."),
    "QUOTE_EXPIRED": Code(409, "This quote has expired; ask for another."),
    "QUOTE_USED": Code(409, "This quote was used already."),
    "POINTS_INSUFFICIENT": Code(402, "There are not enough points for this."),
    "IDEMPOTENCY_KEY_REQUIRED": Code(
        400, "This moves money: send an Idempotency-Key, so that a retry cannot move it twice."
    ),
    # -- chat
    "MESSAGE_UNKNOWN": Code(404, "There is no such message."),
    "CONVERSATION_UNKNOWN": Code(404, "There is no such conversation."),
    "MESSAGE_DELETED": Code(409, "This message was deleted."),
    "GROUP_FULL": Code(409, "This group has all the members that it can have."),
    "ATTACHMENT_UNKNOWN": Code(404, "There is no such attachment, or it is not yours to send."),
    "REPORT_UNKNOWN": Code(404, "There is no such report."),
    "REPORT_CLOSED": Code(409, "This report was closed, or has changed since you read it."),
    # -- media
    "MEDIA_UNKNOWN": Code(404, "There is no such file."),
    "MEDIA_TYPE_NOT_ALLOWED": Code(415, "Files of this type are not taken."),
    "MEDIA_HARMFUL": Code(422, "This file is known to do harm; it was not kept."),
    "MEDIA_QUOTA": Code(409, "Your files take all the room that you have; delete some first."),
    "MEDIA_ATTACHED": Code(409, "This file was sent; it goes with its message."),
    "UPLOAD_INCOMPLETE": Code(400, "The upload ended before the file was whole."),
    "RANGE_NOT_SATISFIABLE": Code(416, "The file has no such bytes."),
    # -- end-to-end encryption
    "KEYS_UNKNOWN": Code(404, "This device has no keys here."),
    "SIGNATURE_INVALID": Code(422, "A signature does not match the identity key."),
    "IDENTITY_CHANGED": Code(409, "This device has another identity key; remove its keys first."),
    "KEY_ID_TAKEN": Code(409, "Another key was uploaded under this id; choose new ids for new keys."),
    "KEYS_MISMATCH": Code(409, "The server has other keys of this device; upload them again."),
    "DEVICES_MISMATCH": Code(409, "The ciphertexts do not match the devices of the conversation."),
    "EPOCH_CONFLICT": Code(409, "Another commit has made this epoch; apply it and commit again."),
    # -- rooms
    "ROOM_UNKNOWN": Code(404, "There is no such room."),
    "ROOM_FULL": Code(409, "The room has all the participants that it can have."),
    "ROOM_CLOSED": Code(409, "This room is closed."),
    "ROOM_INVITE_ONLY": Code(403, "This room is only for those who are invited."),
    "ROOM_KICKED": Code(403, "You were removed from this room."),
    "ROOM_NOT_JOINED": Code(409, "Join the room first."),
    "ROOM_NOT_OWNER": Code(403, "Only the owner of the room may do this."),
    "TOO_MANY_ROOMS": Code(409, "You have or are in as many rooms as one may; close or leave some first."),
    "TARGET_UNKNOWN": Code(404, "This person is not in the room."),
    "WEBHOOK_INVALID": Code(401, "The signature of this notification is not valid."),
}


class Refusal(Exception):
    """A clear no, with a code of ``CODES``.

    ``details`` says what a program can act on (fields, the call's id); never secrets. ``retry_after_ms``
    overrides the table where the caller knows better.
    """

    def __init__(self, code: str, /, *, retry_after_ms: int | None = None, **details: Any) -> None:
        if code not in CODES:
            raise KeyError(f"refusal code {code} is not in the table")
        super().__init__(code)
        self.code = code
        self.details = details
        self.retry_after_ms = retry_after_ms if retry_after_ms is not None else CODES[code].retry_after_ms

    @property
    def status(self) -> int:
        """The HTTP status of this refusal."""
        return CODES[self.code].status

    def body(self) -> dict[str, Any]:
        """The wire form, shared by acks and REST: ``{code, message, details?, retryAfterMs?}``."""
        out: dict[str, Any] = {"code": self.code, "message": CODES[self.code].sentence}
        if self.details:
            out["details"] = self.details
        if self.retry_after_ms is not None:
            out["retryAfterMs"] = self.retry_after_ms
        return out
