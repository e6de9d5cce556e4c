"""The verbs of reports: file, list, close.

    reports = Reports(
        store=ReportStore(db), users=users, evidence=chat.evidence, stewards=stewards, trail=trail, clock=clock,
        ids=ids
    )

``announcer`` is set by the wiring. A report is durable before an administrator hears of it, and a ban is decided
before it is done; whoever dies in between is followed by a job. The reported person learns nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from models.auth.stewards import Stewards
from models.chat.message import Message
from models.errors import Refusal
from models.ports import Clock, Ids
from models.reports import rules
from models.reports.report import Closing, Evidence, Reason, Report, Resolution, State
from models.reports.store import ReportStore
from models.trail.rules import Act, Actor, Target, reason_of
from models.trail.service import Trail
from models.users.profile import DELETED
from models.users.service import Profile, Users

# Reports that one turn of the job looks after.
TURN_MAX = 100

# A message that the user may see; refuses with ``MESSAGE_UNKNOWN``.
EvidenceOf = Callable[[str, str], Awaitable[Message]]


@dataclass(frozen=True, slots=True)
class Filed:
    """A report with the people in it, by id."""

    report: Report
    people: Mapping[str, Profile]


@dataclass(frozen=True, slots=True)
class Page:
    """Reports, newest first; ``more`` when there are older ones."""

    items: Sequence[Filed]
    more: bool


class Announcer(Protocol):
    """Says reports aloud; saying one again says nothing."""

    async def filed(self, filed: Filed, administrators: Sequence[str]) -> None:
        """Tell a new report to these administrators."""
        ...


class Reports:
    """See the module for its making."""

    def __init__(
        self,
        *,
        store: ReportStore,
        users: Users,
        evidence: EvidenceOf,
        stewards: Stewards,
        trail: Trail,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._store = store
        self._users = users
        self._evidence = evidence
        self._stewards = stewards
        self._trail = trail
        self._clock = clock
        self._ids = ids
        self.announcer: Announcer

    async def file_message(
        self, user_id: str, message_id: str, *, reason: Reason, comment: str | None
    ) -> Report:
        """Report a message of a conversation of one's own; it is copied. Safe to repeat.

        Refuses with ``MESSAGE_UNKNOWN``, ``SELF_NOT_ALLOWED`` and ``RATE_LIMITED``.
        """
        evidence = rules.evidence_of(await self._evidence(user_id, message_id))
        return await self._file(user_id, evidence.sender_id, reason, comment, evidence)

    async def file_user(
        self, user_id: str, reported_id: str, *, reason: Reason, comment: str | None
    ) -> Report:
        """Report a person, whatever one has to do with them. Safe to repeat.

        Refuses with ``USER_UNKNOWN``, ``SELF_NOT_ALLOWED`` and ``RATE_LIMITED``.
        """
        reported = await self._users.profile(reported_id)
        if reported is None or reported.status == DELETED:
            raise Refusal("USER_UNKNOWN")
        return await self._file(user_id, reported_id, reason, comment, None)

    async def _file(
        self, user_id: str, reported_id: str, reason: Reason, comment: str | None, evidence: Evidence | None
    ) -> Report:
        if reported_id == user_id:
            raise Refusal("SELF_NOT_ALLOWED")
        now = self._clock.now()
        report = Report(
            id=self._ids.new(),
            reporter_id=user_id,
            reported_id=reported_id,
            reason=reason,
            comment=comment,
            evidence=evidence,
            created_at=now,
        )
        kept = await self._store.file(report)
        if kept is None:
            raise Refusal("RATE_LIMITED", retry_after_ms=rules.ms_to_tomorrow(now))
        if kept.id == report.id or await self._store.is_untold(kept.id):
            await self._tell(kept)
        return kept

    # ------------------------------------------------------------------------------------------------ administrators

    async def some(
        self, state: State | None, *, before: str | None, limit: int, reader_id: str | None = None
    ) -> Page:
        """Reports of a state (None: of any) below an id, newest first, without those of ``reader_id``.

        The reader is None on the command line: whoever has that keeps the database, too.
        """
        found = await self._store.some(state, before=before, most=limit + 1, but_of=reader_id)
        people = await self._people(found[:limit])
        return Page([Filed(report, people) for report in found[:limit]], more=len(found) > limit)

    async def one(self, report_id: str, *, reader_id: str | None = None) -> Filed:
        """One report. Refuses with ``REPORT_UNKNOWN``, also when it is of who reads it."""
        report = await self._store.by_id(report_id)
        if report is None or report.reported_id == reader_id:
            raise Refusal("REPORT_UNKNOWN")
        return Filed(report, await self._people([report]))

    async def close(
        self,
        by: str | None,
        report_id: str,
        *,
        version: int,
        resolution: Resolution,
        note: str | None,
        actor: Actor | None = None,
    ) -> Filed:
        """Close a report as it stood at ``version``; ``banned`` also bans. The same again answers alike.

        ``by`` None is the command line; ``actor`` is the same with what else the trail says of them. Refuses with
        ``REPORT_UNKNOWN``, ``REPORT_CLOSED`` and ``FORBIDDEN``.
        """
        closing = Closing(resolution=resolution, note=note, by=by, at=self._clock.now())
        report = (await self.one(report_id)).report
        after = rules.closed(report, closing, version=version)
        if after is not None and not await self._close(after, actor or await self._actor(by)):
            # Somebody else was first; if with the very same words, this is done.
            report = (await self.one(report_id)).report
            rules.closed(report, closing, version=version)
        elif after is not None:
            report = after
        if await self._store.is_unacted(report_id):
            await self._act(report, actor)
        return Filed(report, await self._people([report]))

    async def _close(self, after: Report, actor: Actor) -> bool:
        closing = after.closing
        assert closing is not None
        act = Act(
            actor=actor,
            act="report.resolve",
            target=Target("report", after.id),
            reason=reason_of(closing.note, closing.resolution.value),
            details={
                "resolution": closing.resolution.value,
                "reported": after.reported_id,
                "reporter": after.reporter_id,
            },
        )
        async with self._trail.keeping(act) as row:
            return await self._store.close(after, row.also)

    async def _actor(self, by: str | None) -> Actor:
        """Who that is for the trail."""
        if by is None:
            return Actor.operator()
        known = await self._users.profile(by)
        return Actor.admin(by, known.username if known else by)

    # ---------------------------------------------------------------------------------------------------- timed work

    async def run_owed(self) -> int:
        """Tell what a process has left untold, and do what was decided and not done; how many. Safe in any number."""
        done = 0
        while done < TURN_MAX and (report := await self._store.claim_untold(self._clock.now())):
            await self._tell(report)
            done += 1
        while done < TURN_MAX and (report := await self._store.claim_unacted(self._clock.now())):
            await self._act(report)
            done += 1
        return done

    async def _tell(self, report: Report) -> None:
        administrators = [one for one in await self._users.administrators() if one != report.reported_id]
        await self.announcer.filed(Filed(report, await self._people([report])), administrators)
        await self._store.told(report.id)

    async def _act(self, report: Report, actor: Actor | None = None) -> None:
        closing = report.closing
        assert closing is not None, "that is what decided it"
        why = reason_of(f"Report {report.id}: {closing.note or report.reason.value}", report.id)
        by = actor or await self._actor(closing.by)
        try:
            await self._stewards.ban(report.reported_id, by=by, reason=why)
        except Refusal as no:
            if no.code not in ("ACCOUNT_DELETED", "USER_UNKNOWN"):
                raise
        await self._store.acted(report.id)

    async def _people(self, reports: Sequence[Report]) -> Mapping[str, Profile]:
        ids = {one for report in reports for one in (report.reporter_id, report.reported_id)}
        return await self._users.profiles(ids)
