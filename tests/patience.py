"""What tests ask of their databases: a machine that stands still for some seconds is no outage, and none loses power.

Tests about a database that is away take the server's own patience, which is short: ``as_shipped``. Servers in processes
of their own have it anyway, and wait for the disk with every write.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import models.db

PATIENT_MS = 30_000
SHIPPED_MS = models.db.SELECTION_MS


def be_patient() -> None:
    """Let every ``Database`` of this process that is made from now on wait for its primary as long as it takes.

    And not for the disk: that is a quarter of what the tests cost.
    """
    models.db.SELECTION_MS = PATIENT_MS
    models.db.JOURNALED = False


@contextmanager
def as_shipped() -> Iterator[None]:
    """Those made within a ``with`` are as impatient as in the server, and their writes as safe."""
    models.db.SELECTION_MS = SHIPPED_MS
    models.db.JOURNALED = True
    try:
        yield
    finally:
        be_patient()
