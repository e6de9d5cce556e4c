"""What goes with a change, in its transaction: a row of the trail, the other half of a movement of money."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from models.db import Session

# Called with the transaction, perhaps several times: what runs in one may run again.
Also = Callable[[Session], Awaitable[None]]
