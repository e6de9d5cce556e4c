"""What tests ask of their databases: a machine that stands still for some seconds is no outage.

Tests about a database that is away take the server's own patience, which is short: ``as_shipped``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import models.db

PATIENT_MS = 30_000
SHIPPED_MS = models.db.SELECTION_MS


def be_patient() -> None:
    """Let every ``Database`` of this process that is made from now on wait for its primary as long as it takes."""
    models.db.SELECTION_MS = PATIENT_MS


@contextmanager
def as_shipped() -> Iterator[None]:
    """Those made within a ``with`` are as impatient as in the server."""
    models.db.SELECTION_MS = SHIPPED_MS
    try:
        yield
    finally:
        be_patient()
