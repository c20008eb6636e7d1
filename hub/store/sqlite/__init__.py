"""The SQLite store: sqlite-utils over one file in WAL mode, one writer, numbered migrations."""

from __future__ import annotations

from pathlib import Path

from hub.store.sqlite.alerts import SqliteAlerts
from hub.store.sqlite.claims import SqliteClaims
from hub.store.sqlite.database import Database
from hub.store.sqlite.dead_letters import SqliteDeadLetters
from hub.store.sqlite.devices import SqliteDevices
from hub.store.sqlite.diagnostics import SqliteDiagnostics
from hub.store.sqlite.drift import SqliteDrift
from hub.store.sqlite.measurements import SqliteMeasurements
from hub.store.sqlite.noised import SqliteNoised
from hub.store.sqlite.quality import SqliteQuality
from hub.store.sqlite.quarantines import SqliteQuarantines
from hub.store.sqlite.records import SqliteRecords
from hub.store.sqlite.registry import SqliteRegistry
from hub.store.sqlite.rollouts import SqliteRollouts
from hub.store.sqlite.rollups import SqliteRollups
from hub.store.sqlite.samples import SqliteSamples
from hub.store.sqlite.shadows import SqliteShadows
from hub.store.sqlite.state_questions import SqliteStateQuestions
from hub.store.sqlite.states import SqliteStates
from hub.store.sqlite.tags import SqliteTags
from hub.store.sqlite.telemetry import SqliteTelemetry
from hub.store.sqlite.tokens import SqliteTokens
from hub.store.sqlite.wishes import SqliteWishes


class SqliteStore(
    SqliteTokens,
    SqliteAlerts,
    SqliteRegistry,
    SqliteDevices,
    SqliteWishes,
    SqliteRecords,
    SqliteDeadLetters,
    SqliteQuarantines,
    SqliteDiagnostics,
    SqliteMeasurements,
    SqliteShadows,
    SqliteStates,
    SqliteStateQuestions,
    SqliteRollouts,
    SqliteClaims,
    SqliteRollups,
    SqliteDrift,
    SqliteTelemetry,
    SqliteNoised,
    SqliteQuality,
    SqliteTags,
    SqliteSamples,
):
    """Implements `hub.store.protocols.Store` on one SQLite file.

    Args:
        path: The database file; created and migrated where needed.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(Database(path))

    def size_bytes(self) -> int:
        """Return the size of the file and of its write-ahead log."""
        return self._database.size_bytes()

    def close(self) -> None:
        """Close every connection."""
        self._database.close()
