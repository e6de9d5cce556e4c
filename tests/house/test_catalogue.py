"""What the catalogue declares is whole, agrees with itself, and is what was promised to clients."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from marshmallow import fields

from handlers.registry import Event, Notice, Route
from handlers.shapes import Nothing, Shape
from models.errors import CODES, Refusal
from server.wiring import catalogue

ROOT = Path(__file__).parents[2]
EVENTS = list(catalogue.events.values())
ROUTES = catalogue.routes
NOTICES = list(catalogue.notices.values())
DOORS: list[Event | Route] = [*EVENTS, *ROUTES]

# The contract with clients, written out: what stands here may not go away.
PROMISED_EVENTS = """
CALL_REQUEST CALL_RINGING CALL_ACCEPT CALL_REJECT CALL_BUSY CALL_ENDED SESSION_DESCRIPTION ICE_CANDIDATE
CALL_CONNECTED CALL_QUALITY CALL_RESUME CALL_UPGRADE CALL_UPGRADE_ACCEPT CALL_UPGRADE_REJECT CALL_SYNC
AUTH_REFRESH CHAT_MESSAGE PRESENCE_WATCH PRESENCE_SET
join-room leave-room offer answer ice-candidate chat-message
MESSAGE_EDIT MESSAGE_DELETE MESSAGE_DELIVERED MESSAGE_READ CHAT_TYPING CHAT_STOP_TYPING
""".split()
PROMISED_NOTICES = """
CALL_REQUEST CALL_RINGING CALL_ACCEPT CALL_REJECT CALL_BUSY CALL_TIMEOUT CALL_ANSWERED_ELSEWHERE CALL_ENDED
CALL_UPDATED SESSION_DESCRIPTION ICE_CANDIDATE CALL_UPGRADE CALL_UPGRADE_ACCEPT CALL_UPGRADE_REJECT
AUTH_EXPIRING SYNC error CHAT_MESSAGE WALLET_UPDATED PRESENCE
existing-users user-connected user-disconnected offer answer ice-candidate chat-message
room-updated room-invited room-kicked room-closed
MESSAGE_EDIT MESSAGE_DELETE MESSAGE_DELIVERED MESSAGE_READ CHAT_TYPING CHAT_STOP_TYPING CONVERSATION_UPDATED
KEYS_CHANGED KEYS_LOW GROUP_COMMIT GROUP_WELCOME GROUP_RESET REPORT_FILED PAYOUT_UPDATED
""".split()
PROMISED_ROUTES = """
POST /api/auth/register
POST /register
POST /users/register
POST /api/auth/login
POST /login
POST /auth/login
POST /api/auth/refresh-token
POST /auth/refresh
POST /api/auth/logout
POST /api/auth/logout-all
POST /api/auth/change-password
POST /api/auth/forgot-password
POST /api/auth/reset-password
POST /api/auth/verify-email
POST /api/auth/verify-email/send
POST /api/auth/verify-phone
POST /api/auth/verify-phone/send
POST /api/auth/oauth/google
POST /api/auth/oauth/facebook
GET /api/auth/oauth
POST /api/auth/oauth/{}/link
DELETE /api/auth/oauth/{}
POST /api/auth/api-keys
GET /api/auth/api-keys
DELETE /api/auth/api-keys/{}
POST /api/auth/2fa/setup
POST /api/auth/2fa/enable
POST /api/auth/2fa/disable
POST /api/auth/2fa/recovery-codes
GET /api/auth/sessions
DELETE /api/auth/sessions/{}
POST /api/auth/expo-push-token
DELETE /api/auth/expo-push-token
GET /api/auth/profile
GET /api/user/profile
GET /users/me
PUT /api/user/profile
GET /api/user/notices
PUT /api/user/notices
DELETE /api/user/account
GET /api/user/export
GET /api/users
GET /api/users/{}
PUT /api/users/{}/block
DELETE /api/users/{}/block
POST /api/calls/initiate
POST /api/calls
POST /calls
POST /api/calls/accept
POST /api/calls/reject
POST /api/calls/end
POST /api/calls/signal
PATCH /api/calls/{}/answer
PATCH /calls/{}/answer
PATCH /api/calls/{}/end
PATCH /calls/{}/end
GET /api/calls/history
GET /api/call/history
GET /api/calls
GET /calls
GET /api/calls/{}
GET /calls/{}
GET /api/calls/{}/signals
GET /api/ice-servers
GET /api/chat/history/{}
GET /api/chat/conversations
GET /api/chat/conversations/{}
GET /api/chat/conversations/{}/messages
PUT /api/chat/conversations/{}/mute
GET /api/chat/unread
GET /api/chat/search
POST /api/chat/messages
PATCH /api/chat/messages/{}
DELETE /api/chat/messages/{}
POST /api/chat/delivered
POST /api/chat/read
POST /api/chat/groups
PATCH /api/chat/groups/{}
POST /api/chat/groups/{}/members
DELETE /api/chat/groups/{}/members/{}
PUT /api/chat/groups/{}/members/{}
POST /api/chat/groups/{}/leave
POST /api/wallet/create
GET /api/wallet
GET /wallet
GET /api/wallets
GET /wallets
GET /api/wallets/{}
GET /wallets/{}
POST /api/wallet/deposit
POST /api/wallet/add-funds
POST /wallet/add-funds
POST /api/wallet/verify-deposit
POST /api/payments
POST /payments
POST /api/payments/webhooks/{}
GET /api/payments
GET /payments
GET /api/payments/{}
GET /payments/{}
POST /api/payments/verify/{}
POST /payments/verify/{}
GET /api/wallet/transactions
GET /transactions
POST /api/wallet/validate-pin
POST /api/wallet/change-pin
POST /api/wallet/reset-pin
POST /api/wallet/transfer
POST /wallet/transfer
POST /api/wallet/fx/quote
POST /api/wallet/fx/convert
GET /api/wallet/statement
GET /api/wallet/analytics
POST /api/wallet/withdraw
POST /wallet/withdraw
GET /api/wallet/payouts
GET /api/wallet/payouts/{}
GET /api/wallet/banks
GET /api/wallet/bank-accounts
POST /api/wallet/bank-accounts
DELETE /api/wallet/bank-accounts/{}
GET /api/wallet/cards
POST /api/wallet/cards
DELETE /api/wallet/cards/{}
GET /api/wallet/rewards
POST /api/wallet/rewards/redeem
POST /api/media
GET /api/media/{}
GET /api/media/{}/thumbnail
GET /api/media/{}/link
GET /api/media/{}/signed
DELETE /api/media/{}
POST /api/room/create
POST /api/room/join/{}
POST /api/room/{}/leave
POST /api/room/{}/invite
POST /api/room/{}/kick
POST /api/room/{}/close
GET /api/room/{}
GET /api/room/{}/messages
GET /api/rooms
GET /api/call-logs
POST /api/call-logs
PUT /api/call-logs/{}/end
GET /api/call-logs/stats
PUT /api/keys
DELETE /api/keys
GET /api/keys/count
POST /api/keys/check
POST /api/keys/claim
GET /api/keys/groups/{}
POST /api/keys/groups/{}/commits
GET /api/keys/groups/{}/commits
POST /api/keys/groups/{}/reset
POST /api/reports
GET /api/admin/reports
GET /api/admin/reports/{}
POST /api/admin/reports/{}/close
""".strip().splitlines()
# Field names of others, which are not ours to spell (RFC 6749 §5.1).
FOREIGN_NAMES = {"access_token", "refresh_token"}


def name_of(door: Event | Route | Notice) -> str:
    return f"{door.method} {door.path}" if isinstance(door, Route) else door.name


def names_of(route: Route) -> list[str]:
    return [f"{route.method} {re.sub(r'{[^}]*}', '{}', path)}" for path in (route.path, *route.also)]


def shapes() -> list[type[Shape]]:
    """Every shape that the catalogue uses, nested ones too."""
    found: dict[type[Shape], None] = {}

    def add(shape: type[Shape] | None) -> None:
        if shape is None or shape in found:
            return
        found[shape] = None
        for field in shape().fields.values():
            inner = field.inner if isinstance(field, fields.List) else field
            if isinstance(inner, fields.Nested):
                add(type(inner.schema))

    for door in DOORS:
        add(door.takes)
        add(door.gives)
    for notice in NOTICES:
        add(notice.shape)
    return list(found)


def codes_in_the_code() -> Iterator[tuple[str, str]]:
    """Each code of a ``Refusal("…")``, with the place where it stands."""
    for folder in ("handlers", "models", "server"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if not isinstance(node, ast.Call) or getattr(node.func, "id", "") != "Refusal":
                    continue
                if node.args and isinstance(node.args[0], ast.Constant):
                    yield str(node.args[0].value), f"{path.relative_to(ROOT)}:{node.lineno}"


def test_every_promised_event_is_heard() -> None:
    assert set(PROMISED_EVENTS) <= set(catalogue.events)


def test_every_promised_notice_is_declared() -> None:
    assert set(PROMISED_NOTICES) <= set(catalogue.notices)


def test_every_promised_route_is_there_under_all_its_names() -> None:
    there = {name for route in ROUTES for name in names_of(route)}
    assert [name for name in PROMISED_ROUTES if name not in there] == []


def test_no_two_routes_have_the_same_method_and_path() -> None:
    counted = Counter(name for route in ROUTES for name in names_of(route))
    assert [name for name, times in counted.items() if times > 1] == []


@pytest.mark.parametrize("door", DOORS, ids=name_of)
def test_every_door_says_what_it_does(door: Event | Route) -> None:
    text = door.doc.strip()
    assert len(text) >= 10, "its docstring is the public documentation"
    assert text.endswith(".")


@pytest.mark.parametrize("notice", NOTICES, ids=name_of)
def test_every_notice_has_a_shape_and_says_to_whom_it_goes(notice: Notice) -> None:
    assert notice.shape is not Nothing
    assert notice.doc.endswith(".")


@pytest.mark.parametrize("job", catalogue.jobs.values(), ids=lambda job: job.name)
def test_every_job_says_what_it_does(job) -> None:  # type: ignore[no-untyped-def]
    assert job.doc.strip()
    assert job.every_seconds > 0


@pytest.mark.parametrize("shape", shapes(), ids=lambda shape: shape.__name__)
def test_every_shape_says_what_it_is_and_spells_its_fields_in_camel_case(shape: type[Shape]) -> None:
    assert (shape.__doc__ or "").strip()
    for name, field in shape().fields.items():
        wire = field.data_key or name
        assert wire in FOREIGN_NAMES or re.fullmatch(r"[a-z][a-zA-Z0-9]*", wire), wire


@pytest.mark.parametrize("shape", {door.takes: None for door in DOORS}, ids=lambda shape: shape.__name__)
def test_what_is_taken_has_an_example_and_the_example_passes(shape: type[Shape]) -> None:
    has_required = any(field.required for field in shape().fields.values())
    assert shape.example or not has_required, "a shape with required fields shows an example"
    assert shape().validate(dict(shape.example)) == {}
    known = {field.data_key or name for name, field in shape().fields.items()}
    assert set(shape.example) <= known, "an example uses the documented names"


@pytest.mark.parametrize("door", DOORS, ids=name_of)
def test_every_refusal_that_is_declared_is_in_the_table_and_declared_once(door: Event | Route) -> None:
    assert [code for code in door.refuses if code not in CODES] == []
    assert len(set(door.refuses)) == len(door.refuses)


@pytest.mark.parametrize("door", DOORS, ids=name_of)
def test_a_lane_is_a_field_of_what_is_taken(door: Event | Route) -> None:
    assert door.lane is None or door.lane in door.takes().fields


@pytest.mark.parametrize("route", ROUTES, ids=name_of)
def test_the_fields_in_a_path_are_fields_of_what_is_taken(route: Route) -> None:
    known = {field.data_key or name for name, field in route.takes().fields.items()}
    for path in (route.path, *route.also):
        assert set(re.findall(r"{([^}]*)}", path)) == set(re.findall(r"{([^}]*)}", route.path))
    assert set(re.findall(r"{([^}]*)}", route.path)) <= known


def test_every_code_in_the_code_is_in_the_table() -> None:
    assert [f"{place}: {code}" for code, place in codes_in_the_code() if code not in CODES] == []


def test_every_code_of_the_table_can_happen() -> None:
    """A code that nothing refuses with would be documented for nothing."""
    text = "\n".join(
        path.read_text()
        for folder in ("handlers", "models", "server")
        for path in (ROOT / folder).rglob("*.py")
        if path.name not in ("errors.py", "openapi.py")
    )
    assert [code for code in CODES if f'"{code}"' not in text] == []


def test_a_refusal_that_is_not_in_the_table_cannot_be_made() -> None:
    with pytest.raises(KeyError):
        Refusal("NO_SUCH_CODE")
