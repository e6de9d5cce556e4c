"""The other end of a call at another process, for a relay that knows nothing of processes."""

from __future__ import annotations

from collections.abc import Callable


class Far:
    """Looks like a connection that takes frames: ``send`` publishes them, while ``reaches()``."""

    pending = None

    def __init__(self, send: Callable[[bytes], None], reaches: Callable[[], bool]) -> None:
        self.text = send
        self._reaches = reaches

    @property
    def open(self) -> bool:
        """Whether what is sent arrives."""
        return self._reaches()

    @property
    def wire(self) -> Far:
        """Itself."""
        return self
