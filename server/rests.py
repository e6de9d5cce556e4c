"""How long a job may rest between two turns, where those between would find nothing to do.

What ends a rest early is told, never looked for: a job that rests costs an idle process next to nothing, and is at
work as soon as one that has every turn.
"""

from __future__ import annotations

from handlers.registry import Job
from models.agenda import Agenda
from models.ports import Clock
from server.clock import Rest
from server.strikes import Bell
from server.turns import Turns

# The longest rest of a job with an agenda, should ever an entry come there without a word, or the machine sleep: its
# loop counts on then from where it was, and the instants on an agenda do not.
REST_SECONDS_MAX = 2.0


class AgendaRest:
    """Rests while nothing on the agenda is to be seen."""

    def __init__(self, agenda: Agenda, clock: Clock) -> None:
        self._agenda = agenda
        self._clock = clock
        self.bell = Bell()
        agenda.sooner = self.bell.ring

    def seconds(self, every: float) -> float:
        """Until there is something to be seen."""
        at = self._agenda.to_be_seen()
        if at is None:
            return max(every, REST_SECONDS_MAX)
        return max(every, min(REST_SECONDS_MAX, (at - self._clock.now()).total_seconds()))


class TurnsRest:
    """Rests while the turns are for other processes."""

    def __init__(self, job: Job, turns: Turns) -> None:
        self._job = job
        self._turns = turns
        self.bell = Bell()
        turns.moved.append(self.bell.ring)

    def seconds(self, every: float) -> float:
        """Until the next turn that is for this process."""
        return every * self._turns.until_mine(self._job)


def rest_of(job: Job, services: object, turns: Turns, clock: Clock) -> Rest | None:
    """How the job rests; None when it has every turn."""
    if job.agenda is not None:
        return AgendaRest(job.agenda(services), clock)
    return TurnsRest(job, turns) if job.anywhere else None
