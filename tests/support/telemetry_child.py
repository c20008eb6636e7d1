"""A telemetry pass in a process of its own: counts the records of a database, step by step.

It kills itself with SIGKILL at the statement of that number, from 0, that changes the database after so many
records were counted::

    python -m tests.support.telemetry_child DATABASE [RECORDS STATEMENT]
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from fleet.drift.profile import FeatureReference, ReferenceProfile
from hub.store.sqlite import SqliteStore
from hub.telemetry import counting
from hub.telemetry.counting import Telemetry
from tests.support.rollout_world import Breaking
from tests.support.stores import DIGEST

REFERENCE = ReferenceProfile((FeatureReference("output.class", (5, 5, 5)),))
BLOCK_PREDICTIONS = 90


def main(path: Path, records: int = 0, statement: int | None = None) -> None:
    """Count everything, if nothing is said of an end before."""
    counting.RECORDS_PER_STEP = 64
    store = SqliteStore(path)
    telemetry = Telemetry(
        store,
        reference=lambda *_: (DIGEST, REFERENCE),
        block_predictions=BLOCK_PREDICTIONS,
        group_by=("site",),
    )
    if statement is not None:
        while store.telemetry_position() < records:
            telemetry.step()
        writer = store._database._writer
        writer.conn = Breaking(writer.conn, statement, _end)  # type: ignore[assignment]
    telemetry.advance()
    store.close()


def _end(_: bool) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
