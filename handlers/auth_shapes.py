"""Wire shapes of accounts: what is asked to come in, and what one sees of oneself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marshmallow import ValidationError, fields, pre_load, validate, validates_schema

from handlers.shapes import Id, Instant, PublicUser, Shape, Text
from models.auth.rules import EMAIL_LENGTH_MAX, PASSWORD_LENGTH_MAX, PASSWORD_LENGTH_MIN
from models.notify.rules import is_expo_token

# Access tokens have some 400 characters, refresh tokens some 100.
TOKEN_LENGTH_MAX = 2048
PHONE_LENGTH_MAX = 40
# Longer than a display name may be: the rule says its own sentence about length.
NAME_LENGTH_MAX = 256
PUSH_TOKEN_LENGTH_MAX = 4096
CODE_LENGTH_MAX = 64
PUSH_KINDS = ("EXPO", "FCM", "APNS_VOIP")
_PASSWORD = "correct horse battery"  # noqa: S105 - an example


class Synonyms(Shape):
    """A shape that understands other clients' names of its fields; the documented name wins."""

    synonyms: Mapping[str, str] = {}

    @pre_load
    def translate(self, data: Any, **_: Any) -> Any:
        """Give fields their documented names."""
        if not isinstance(data, Mapping):
            return data
        found = dict(data)
        for theirs, ours in self.synonyms.items():
            if found.get(ours) is None and found.get(theirs) is not None:
                found[ours] = found[theirs]
        return self.complete(found)

    def complete(self, data: dict[str, Any]) -> dict[str, Any]:
        """What else can be made of the fields."""
        return data


NAMES = {"fullName": "displayName", "full_name": "displayName", "display_name": "displayName"}


class Named(Synonyms):
    """A shape with a display name, under any of its names, or as first and last name."""

    synonyms = NAMES

    def complete(self, data: dict[str, Any]) -> dict[str, Any]:
        """A display name put together from first and last name, where no other is given."""
        if data.get("displayName") is None:
            parts = [
                data.get("first_name", data.get("firstName")),
                data.get("last_name", data.get("lastName")),
            ]
            given = [part.strip() for part in parts if isinstance(part, str) and part.strip()]
            if given:
                data["displayName"] = " ".join(given)
        return data


def device_token_field() -> Text:
    """Of those who may have been here before."""
    said = "The `deviceToken` of an earlier sign-in on this device, if it was kept: strangers cannot lock it out."
    return Text(load_default=None, allow_none=True, most=TOKEN_LENGTH_MAX, metadata={"description": said})


class DeviceShape(Shape):
    """What a device says about itself."""

    id = Text(load_default=None, allow_none=True, most=64)
    name = Text(load_default=None, allow_none=True, most=128)
    platform = Text(load_default=None, allow_none=True, most=32)
    example = {"id": "6f0d2c1e", "name": "Ada's phone", "platform": "ios"}


class Register(Named):
    """A new account; ``email`` or ``phone`` is needed."""

    email = Text(load_default=None, allow_none=True, most=EMAIL_LENGTH_MAX)
    phone = Text(
        load_default=None,
        allow_none=True,
        most=PHONE_LENGTH_MAX,
        metadata={"description": "With its country code; `phoneNumber` is understood too."},
    )
    username = Text(
        load_default=None,
        allow_none=True,
        metadata={"description": "3 to 32 letters, digits and `. _ -`; made up when missing."},
    )
    password = Text(required=True, least=PASSWORD_LENGTH_MIN, most=PASSWORD_LENGTH_MAX)
    display_name = Text(
        load_default=None,
        allow_none=True,
        most=NAME_LENGTH_MAX,
        metadata={"description": "`fullName`, or `first_name` and `last_name`, are understood too."},
    )
    device = fields.Nested(DeviceShape, load_default=None, allow_none=True)
    synonyms = {**NAMES, "phoneNumber": "phone", "phone_number": "phone"}
    example = {"email": "ada@example.com", "username": "ada", "password": _PASSWORD, "displayName": "Ada Obi"}


class Login(Synonyms):
    """Who, and the proof. One of ``identifier``, ``email``, ``username`` and ``phone``."""

    identifier = Text(
        load_default=None,
        allow_none=True,
        metadata={"description": "A username, e-mail address or phone number."},
    )
    email = Text(load_default=None, allow_none=True)
    username = Text(load_default=None, allow_none=True)
    phone = Text(load_default=None, allow_none=True)
    # Any length that can be looked at: one that is too short is simply wrong.
    password = Text(required=True, least=1, most=PASSWORD_LENGTH_MAX)
    device = fields.Nested(DeviceShape, load_default=None, allow_none=True)
    totp = Text(
        load_default=None,
        allow_none=True,
        most=CODE_LENGTH_MAX,
        metadata={"description": "A code of the authenticator app, when `TOTP_REQUIRED` asked for it."},
    )
    recovery_code = Text(
        load_default=None,
        allow_none=True,
        most=CODE_LENGTH_MAX,
        metadata={"description": "A recovery code instead; each is taken once."},
    )
    device_token = device_token_field()
    synonyms = {"phoneNumber": "phone", "phone_number": "phone", "recovery_code": "recoveryCode"}
    example = {"identifier": "ada", "password": _PASSWORD, "device": DeviceShape.example}

    @validates_schema
    def _somebody(self, data: Mapping[str, Any], **_: Any) -> None:
        if not any(data.get(name) for name in ("identifier", "email", "username", "phone")):
            raise ValidationError("A username, e-mail address or phone number is needed.", "identifier")


class Refresh(Synonyms):
    """A refresh token; ``refresh_token`` is understood too."""

    refresh_token = Text(required=True, least=1, most=TOKEN_LENGTH_MAX)
    synonyms = {"refresh_token": "refreshToken"}
    example = {"refreshToken": "01985c3e-7f1a-7b7c-9d53-0a5f1c2b3d4e.1.x3Wq"}


class ChangePassword(Shape):
    """The old password and the new one."""

    current_password = Text(required=True, least=1, most=PASSWORD_LENGTH_MAX)
    new_password = Text(required=True, least=PASSWORD_LENGTH_MIN, most=PASSWORD_LENGTH_MAX)
    example = {"currentPassword": _PASSWORD, "newPassword": "correct horse battery staple"}


class DeleteAccount(Shape):
    """The password, so that a phone left lying about deletes nothing."""

    password = Text(required=True, least=1, most=PASSWORD_LENGTH_MAX)
    forfeit_balance = fields.Boolean(
        load_default=False,
        metadata={"description": "Delete it although there is money in a wallet, which is lost then."},
    )
    example = {"password": _PASSWORD}


class SessionRef(Shape):
    """A sign-in by its id."""

    id = Id(required=True)
    example = {"id": "01985c3e-7f1a-7b7c-9d53-0a5f1c2b3d4e"}


class PushTokenRef(Shape):
    """A push token, or all of a device (without one: of the device that asks)."""

    expo_push_token = Text(load_default=None, allow_none=True, most=PUSH_TOKEN_LENGTH_MAX)
    device_id = Text(load_default=None, allow_none=True, most=64)
    example = {"expoPushToken": "ExponentPushToken[xxxxxxxxxxxxxxxxxxxxxx]"}


class GivePushToken(Shape):
    """Where this device can be woken."""

    expo_push_token = Text(
        required=True,
        least=1,
        most=PUSH_TOKEN_LENGTH_MAX,
        metadata={"description": "`ExponentPushToken[…]`, or a token of the given `kind`."},
    )
    kind = fields.String(load_default="EXPO", validate=validate.OneOf(PUSH_KINDS))
    device_id = Text(
        load_default=None,
        allow_none=True,
        least=1,
        most=64,
        metadata={"description": "The app's own name for the device; without one, that of the sign-in."},
    )
    platform = Text(load_default=None, allow_none=True, most=32)
    example = {"expoPushToken": "ExponentPushToken[xxxxxxxxxxxxxxxxxxxxxx]", "platform": "ios"}

    @validates_schema
    def _shape_of_kind(self, data: Mapping[str, Any], **_: Any) -> None:
        token, kind = data.get("expo_push_token", ""), data.get("kind")
        if kind == "EXPO" and not is_expo_token(token):
            raise ValidationError("Not an Expo push token, such as ExponentPushToken[…].", "expoPushToken")
        if kind != "EXPO" and (not token.isascii() or not token.isprintable() or " " in token):
            raise ValidationError("Not a push token.", "expoPushToken")


class OwnUser(PublicUser):
    """A person as they see themselves."""

    email = fields.String(required=True, allow_none=True)
    phone = fields.String(required=True, allow_none=True)
    email_verified = fields.Boolean(required=True)
    phone_verified = fields.Boolean(required=True)
    two_factor = fields.Boolean(
        required=True, metadata={"description": "Whether signing in takes a code of an authenticator app."}
    )
    role = fields.String(required=True, validate=validate.OneOf(["user", "admin"]))
    status = fields.String(required=True, validate=validate.OneOf(["active", "banned", "deleted"]))
    created_at = Instant(required=True)
    updated_at = Instant(required=True)


class TokensView(Shape):
    """Tokens, also under the names that OAuth gives them (RFC 6749 §5.1)."""

    access_token = fields.String(required=True)
    refresh_token = fields.String(required=True)
    token_type = fields.String(required=True)
    expires_in = fields.Integer(
        required=True, metadata={"description": "Seconds until the access token expires."}
    )
    device_token = fields.String(
        required=True,
        metadata={
            "description": "Keep it, also after signing out, and send it with the next sign-in: it opens nothing, and "
            "keeps the wrong guesses of strangers from locking this device out."
        },
    )
    oauth_access_token = fields.String(data_key="access_token", attribute="access_token", dump_only=True)
    oauth_refresh_token = fields.String(data_key="refresh_token", attribute="refresh_token", dump_only=True)

    def on_bind_field(self, field_name: str, field_obj: fields.Field[Any]) -> None:
        """As everywhere, but for the names that are OAuth's."""
        if not field_name.startswith("oauth_"):
            super().on_bind_field(field_name, field_obj)


class SignedInView(TokensView):
    """The account, with the tokens of a new sign-in."""

    user = fields.Nested(OwnUser, required=True)


class SessionView(Shape):
    """A device that is signed in."""

    id = fields.String(required=True)
    device = fields.Nested(DeviceShape, required=True)
    current = fields.Boolean(required=True, metadata={"description": "Whether it is the one that asks."})
    created_at = Instant(required=True)
    last_seen_at = Instant(required=True)
    expires_in_ms = fields.Integer(required=True)


class PushDeviceView(Shape):
    """A device that can be woken."""

    id = fields.String(required=True)
    kind = fields.String(required=True, validate=validate.OneOf(PUSH_KINDS))
    platform = fields.String(required=True, allow_none=True)
    updated_at = Instant(required=True)


class NewToken(Shape):
    """A fresh access token for this socket."""

    token = Text(required=True, least=1, most=TOKEN_LENGTH_MAX)
    example = {"token": "eyJhbGciOiJIUzI1NiJ9.e30.x"}


class Expiring(Shape):
    """How long the socket's access token is still good."""

    expires_in_ms = fields.Integer(required=True)
