"""Who watches whom from a socket of this process, and what each watcher has been shown. Nothing here awaits."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field

from models.presence.rules import Line, Seen

# A device of a user.
Watcher = tuple[str, str]


@dataclass(slots=True)
class Watched:
    """Somebody who is watched. ``line`` is None until somebody has looked; ``look`` is the number of the newest look.

    Each watcher has what it was shown last; None while it waits for its first answer.
    """

    watchers: dict[Watcher, Seen | None] = field(default_factory=dict)
    line: Line | None = None
    look: int = 0


class Watches:
    """The watches of this process; they end with the watcher's socket."""

    def __init__(self, watching: Callable[[str, bool], None] = lambda user_id, watched: None) -> None:
        self._watching = watching
        self._people: dict[str, Watched] = {}
        self._of_watcher: dict[Watcher, frozenset[str]] = {}

    def __len__(self) -> int:
        return len(self._people)

    def __iter__(self) -> Iterator[str]:
        return iter(self._people)

    def get(self, user_id: str) -> Watched | None:
        """What is known about somebody who is watched."""
        return self._people.get(user_id)

    def begin(self, watcher: Watcher, user_ids: Collection[str]) -> None:
        """``watcher`` watches these people, and nobody else any more."""
        self.end(watcher, keep=frozenset(user_ids))
        self._of_watcher[watcher] = frozenset(user_ids)
        for user_id in user_ids:
            if user_id not in self._people:
                self._people[user_id] = Watched()
                self._watching(user_id, True)
            self._people[user_id].watchers[watcher] = None

    def end(self, watcher: Watcher, *, keep: frozenset[str] = frozenset()) -> None:
        """``watcher`` watches nobody any more, except those whom it goes on to ``keep``."""
        for user_id in self._of_watcher.pop(watcher, frozenset()) - keep:
            watched = self._people[user_id]
            watched.watchers.pop(watcher, None)
            if not watched.watchers:
                del self._people[user_id]
                self._watching(user_id, False)

    def watchers(self) -> Iterator[Watcher]:
        """Everybody who watches somebody."""
        return iter(self._of_watcher)
