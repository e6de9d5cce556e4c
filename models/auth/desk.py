"""What every way in ends with: a session, its tokens, and the note that tells of sessions that end."""

from __future__ import annotations

from datetime import datetime, timedelta

from models.auth.known import KnownDevices
from models.auth.session import Revocation, Session, SignInDevice, Tokens
from models.auth.tokens import TokenMint
from models.errors import Refusal
from models.ports import Clock, Ids

# The longest life of a sign-in, in days, unless the configuration says another.
SESSION_DAYS_MAX = 365
# How long after a sign-in nobody has to show the password once more.
FRESH_FOR = timedelta(minutes=10)


def refuse_stale(session: Session | None, now: datetime) -> None:
    """Refuse with ``PASSWORD_REQUIRED`` unless somebody has signed in just now; refreshed tokens are no sign-in."""
    if session is None or now - session.created_at > FRESH_FOR:
        raise Refusal("PASSWORD_REQUIRED")


class Desk:
    """Makes sessions, tokens and notes; keeps nothing. A session ends unused after ``days_unused``."""

    def __init__(
        self,
        *,
        mint: TokenMint,
        known: KnownDevices,
        clock: Clock,
        ids: Ids,
        days_unused: int,
        days_max: int = SESSION_DAYS_MAX,
    ) -> None:
        self.mint = mint
        self._known = known
        self._session_life = timedelta(days=days_unused)
        self._session_life_max = timedelta(days=days_max)
        self._clock = clock
        self._ids = ids

    def note(self, user_id: str, session_ids: tuple[str, ...] | None, code: str) -> Revocation:
        """What tells every process of sessions that end (None: all of the user's)."""
        return Revocation(
            id=self._ids.new(), user_id=user_id, session_ids=session_ids, code=code, at=self._clock.now()
        )

    def session(self, user_id: str, device: SignInDevice, life: timedelta | None = None) -> Session:
        """A new session, not yet kept. ``life`` None is that of a refresh token."""
        now = self._clock.now()
        return Session(
            id=self._ids.new(),
            user_id=user_id,
            generation=1,
            device=device,
            created_at=now,
            seen_at=now,
            rotated_at=None,
            expires_at=now + life if life else self.session_end(now, since=now),
        )

    def session_end(self, now: datetime, *, since: datetime) -> datetime:
        """When a session ends that is used now and was begun ``since``: unused, or in the end however much it is."""
        return min(now + self._session_life, since + self._session_life_max)

    def tokens(self, user_id: str, session_id: str, generation: int) -> Tokens:
        """The tokens of a session."""
        access = self.mint.access(
            user_id=user_id, session_id=session_id, token_id=self._ids.new(), now=self._clock.now()
        )
        return Tokens(
            access_token=access,
            refresh_token=self.mint.refresh(session_id, generation),
            expires_in=self.mint.access_token_seconds,
            device_token=self._known.token(user_id, session_id),
        )
