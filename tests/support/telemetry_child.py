"""A telemetry pass in a process of its own, to be killed: counts the records of a database, step by step."""

from __future__ import annotations

import sys
from pathlib import Path

from fleet.drift.profile import FeatureReference, ReferenceProfile
from hub.store.sqlite import SqliteStore
from hub.telemetry import counting
from hub.telemetry.counting import Telemetry
from tests.support.stores import DIGEST

REFERENCE = ReferenceProfile((FeatureReference("output.class", (5, 5, 5)),))
BLOCK_PREDICTIONS = 90


def main(path: Path) -> None:
    """Count everything, and say so."""
    counting.RECORDS_PER_STEP = 64
    store = SqliteStore(path)
    Telemetry(
        store,
        reference=lambda *_: (DIGEST, REFERENCE),
        block_predictions=BLOCK_PREDICTIONS,
        group_by=("site",),
    ).advance()
    store.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
