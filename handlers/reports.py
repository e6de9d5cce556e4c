"""Reports of messages and of people: filed by anybody, read and closed by administrators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from marshmallow import ValidationError, fields, validate, validates_schema

from handlers.context import Context
from handlers.registry import job, notice, route
from handlers.services import Services
from handlers.shapes import (
    Id,
    Instant,
    Page,
    PageQuery,
    PublicUser,
    Shape,
    Text,
    decode_cursor,
    encode_cursor,
)
from handlers.users import public_user
from models.errors import Refusal
from models.mailbox.service import Mailbox
from models.ports import Letter
from models.presence.service import Presence
from models.reports.report import Reason, Report, Resolution, State
from models.reports.rules import COMMENT_LENGTH_MAX
from models.reports.service import Filed
from models.users.profile import ADMIN

_ID = "01985c3e-7f1a-7b7c-9d53-0a5f1c2b3d4e"
VERSION_MAX = 2**31 - 1


class FileReport(Shape):
    """A message (``messageId``) or a person (``userId``), exactly one of the two, and why."""

    message_id = Id(load_default=None, allow_none=True)
    user_id = Id(load_default=None, allow_none=True)
    reason = fields.String(required=True, validate=validate.OneOf([reason.value for reason in Reason]))
    comment = Text(load_default=None, allow_none=True, most=COMMENT_LENGTH_MAX)
    example = {"messageId": _ID, "reason": "fraud", "comment": "Asks everybody for money."}

    @validates_schema
    def one_subject(self, data: Mapping[str, Any], **_: Any) -> None:
        """Refuse none and both."""
        if (data["message_id"] is None) == (data["user_id"] is None):
            raise ValidationError({"messageId": ["Exactly one of messageId and userId."]})


class ReportTakenView(Shape):
    """A report as the one who filed it sees it."""

    id = fields.String(required=True)
    message_id = fields.String(required=True, allow_none=True)
    user_id = fields.String(required=True, metadata={"description": "Who is reported."})
    reason = fields.String(required=True)
    comment = fields.String(required=True, allow_none=True)
    created_at = Instant(required=True)


class EvidenceView(Shape):
    """The message as it stood when it was reported. Of an encrypted one nobody here knows the text."""

    message_id = fields.String(required=True)
    conversation_id = fields.String(required=True)
    seq = fields.Integer(required=True)
    version = fields.Integer(required=True)
    sender_id = fields.String(required=True)
    text = fields.String(required=True, allow_none=True)
    encrypted = fields.Boolean(required=True)
    attachment = fields.Dict(required=True, allow_none=True)
    reply_to = fields.String(required=True, allow_none=True)
    created_at = Instant(required=True)
    edited_at = Instant(required=True, allow_none=True)
    deleted_at = Instant(required=True, allow_none=True)
    sha256 = fields.String(required=True, metadata={"description": "Over all of it as it was copied."})


class ReportView(Shape):
    """A report as administrators see it."""

    id = fields.String(required=True)
    state = fields.String(required=True, validate=validate.OneOf([state.value for state in State]))
    version = fields.Integer(required=True)
    reporter = fields.Nested(PublicUser, required=True)
    reported = fields.Nested(PublicUser, required=True)
    reason = fields.String(required=True)
    comment = fields.String(required=True, allow_none=True)
    evidence = fields.Nested(
        EvidenceView, required=True, allow_none=True, metadata={"description": "null: a person is reported."}
    )
    created_at = Instant(required=True)
    resolution = fields.String(required=True, allow_none=True)
    note = fields.String(required=True, allow_none=True)
    closed_by = fields.String(
        required=True, allow_none=True, metadata={"description": "null also for the command line."}
    )
    closed_at = Instant(required=True, allow_none=True)


class ReportsQuery(PageQuery):
    """Of which state: ``open`` unless you say otherwise."""

    state = fields.String(load_default="open", validate=validate.OneOf(["open", "closed", "all"]))
    example = {"state": "open", "limit": 50}


class ReportRef(Shape):
    """A report."""

    id = Id(required=True)
    example = {"id": _ID}


class CloseReport(ReportRef):
    """What came of a report, which you have read at ``version``."""

    version = fields.Integer(required=True, strict=True, validate=validate.Range(min=1, max=VERSION_MAX))
    resolution = fields.String(
        required=True, validate=validate.OneOf([resolution.value for resolution in Resolution])
    )
    note = Text(load_default=None, allow_none=True, most=COMMENT_LENGTH_MAX)
    example = {"id": _ID, "version": 1, "resolution": "dismissed"}


class ReportNotice(Shape):
    """A new report."""

    report = fields.Nested(ReportView, required=True)
    seq = fields.Integer(metadata={"description": "The same as `logSeq`."})
    log_seq = fields.Integer(
        metadata={"description": "Your own rising number; the last one handled is `since`."}
    )


REPORT_FILED = notice(
    "REPORT_FILED",
    ReportNotice,
    "To all administrators but the reported one: somebody has reported a message or a person.",
)

_NOTICE = ReportNotice()


@route(
    "POST",
    "/api/reports",
    takes=FileReport,
    gives=ReportTakenView,
    wraps="report",
    status=201,
    refuses=["MESSAGE_UNKNOWN", "USER_UNKNOWN", "SELF_NOT_ALLOWED", "RATE_LIMITED"],
)
async def file_report(ctx: Context, ask: dict[str, Any]) -> Any:
    """Report a message of one of your conversations, or a person. While it is open, the same again is one report.

    The message is copied as it is now. The reported person learns nothing. At most 50 reports a day.
    """
    reports, why = ctx.services.reports, {"reason": Reason(ask["reason"]), "comment": ask["comment"]}
    if ask["message_id"] is not None:
        return _receipt(await reports.file_message(ctx.user_id, ask["message_id"], **why))
    return _receipt(await reports.file_user(ctx.user_id, ask["user_id"], **why))


@route(
    "GET",
    "/api/admin/reports",
    takes=ReportsQuery,
    gives=ReportView,
    many=True,
    refuses=["FORBIDDEN"],
)
async def list_reports(ctx: Context, ask: dict[str, Any]) -> Page:
    """Reports, newest first, without those of yourself. For administrators."""
    _refuse_unless_admin(ctx)
    parts = decode_cursor(ask["cursor"], parts=1)
    state = None if ask["state"] == "all" else State(ask["state"])
    page = await ctx.services.reports.some(
        state, before=parts[0] if parts else None, limit=ask["limit"], reader_id=ctx.user_id
    )
    items = [report_view(filed, ctx.services.presence) for filed in page.items]
    return Page(items, encode_cursor(page.items[-1].report.id) if page.more else None)


@route(
    "GET",
    "/api/admin/reports/{id}",
    takes=ReportRef,
    gives=ReportView,
    wraps="report",
    refuses=["FORBIDDEN", "REPORT_UNKNOWN"],
)
async def show_report(ctx: Context, ask: dict[str, Any]) -> Any:
    """One report. For administrators; of yourself there is none."""
    _refuse_unless_admin(ctx)
    filed = await ctx.services.reports.one(ask["id"], reader_id=ctx.user_id)
    return report_view(filed, ctx.services.presence)


@route(
    "POST",
    "/api/admin/reports/{id}/close",
    takes=CloseReport,
    gives=ReportView,
    wraps="report",
    refuses=["FORBIDDEN", "REPORT_UNKNOWN", "REPORT_CLOSED"],
)
async def close_report(ctx: Context, ask: dict[str, Any]) -> Any:
    """Close a report. For administrators, but not those whom it is about.

    ``banned`` also bans the reported person: their sockets and calls end within a second. Of the other two they learn
    nothing from the server. The same again answers alike; ``REPORT_CLOSED`` says that somebody else was first.
    """
    _refuse_unless_admin(ctx)
    filed = await ctx.services.reports.close(
        ctx.user_id,
        ask["id"],
        version=ask["version"],
        resolution=Resolution(ask["resolution"]),
        note=ask["note"],
    )
    return report_view(filed, ctx.services.presence)


def _refuse_unless_admin(ctx: Context) -> None:
    # Read from the database with this very request, see ``Accounts.authenticate``: a role may be taken away.
    if ctx.role != ADMIN:
        raise Refusal("FORBIDDEN")


def _receipt(report: Report) -> dict[str, Any]:
    return {
        "id": report.id,
        "message_id": report.evidence.message_id if report.evidence else None,
        "user_id": report.reported_id,
        "reason": report.reason.value,
        "comment": report.comment,
        "created_at": report.created_at,
    }


def report_view(filed: Filed, presence: Presence) -> dict[str, Any]:
    """A report for ``ReportView`` to dump."""
    report, closing = filed.report, filed.report.closing
    return {
        "id": report.id,
        "state": report.state.value,
        "version": report.version,
        "reporter": public_user(presence, filed.people[report.reporter_id]),
        "reported": public_user(presence, filed.people[report.reported_id]),
        "reason": report.reason.value,
        "comment": report.comment,
        "evidence": asdict(report.evidence) if report.evidence else None,
        "created_at": report.created_at,
        "resolution": closing.resolution.value if closing else None,
        "note": closing.note if closing else None,
        "closed_by": closing.by if closing else None,
        "closed_at": closing.at if closing else None,
    }


class ReportsTeller:
    """``models.reports.service.Announcer``: reports become letters."""

    def __init__(self, *, mailbox: Mailbox, presence: Presence) -> None:
        self._mailbox = mailbox
        self._presence = presence

    async def filed(self, filed: Filed, administrators: Sequence[str]) -> None:
        """Keep and tell a letter to each of them."""
        payload = _NOTICE.dump({"report": report_view(filed, self._presence)})
        key = f"report:{filed.report.id}"
        await self._mailbox.post(
            [
                Letter(user_id=one, event=REPORT_FILED, payload=dict(payload), key=key)
                for one in administrators
            ],
            again=True,  # whoever was at it before may have died between keeping and telling
        )


@job("reports.owed", every_seconds=5.0, anywhere=True)
async def run_owed_reports(services: Services) -> None:
    """Tell reports, and do bans, that a process has left behind."""
    await services.reports.run_owed()
