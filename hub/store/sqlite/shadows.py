"""What devices reported of candidates in the shadow of their active version, added up."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import sqlite_utils

from fleet.protocol.messages import ShadowReport
from fleet.protocol.shadow import contradiction, merge_shadows
from hub.store.rows import IncomingRecord, ShadowTotals
from hub.store.sqlite.database import Part


class SqliteShadows(Part):
    """Implements `hub.store.protocols.ShadowStore`."""

    def shadows(self, model: str, version: int) -> list[ShadowTotals]:
        """Return what was reported of a version in the shadow, by device and deployment."""
        rows = self._database.rows(
            "SELECT device_id, body FROM shadows WHERE model = ? AND version = ?"
            " ORDER BY device_id, deployment_id, active_version",
            (model, version),
        )
        return [ShadowTotals(row["device_id"], _report(row["body"])) for row in rows]


def add_shadows(db: sqlite_utils.Database, records: Iterable[IncomingRecord]) -> None:
    """Add the reports among new records to their totals, in the caller's transaction."""
    for incoming in records:
        report = incoming.record.body
        if not isinstance(report, ShadowReport) or contradiction(report) is not None:
            continue
        key = [incoming.device_id, report.deployment_id, report.manifest_sha256, report.active_version]
        known = db.execute(
            "SELECT body FROM shadows WHERE device_id = ? AND deployment_id = ? AND manifest_sha256 = ?"
            " AND active_version = ?",
            key,
        ).fetchone()
        total = merge_shadows(_report(known[0]), report) if known else report
        db.execute(
            "INSERT INTO shadows"
            " (device_id, deployment_id, manifest_sha256, active_version, model, version, body)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (device_id, deployment_id, manifest_sha256, active_version)"
            " DO UPDATE SET body = excluded.body",
            [*key, report.model, report.version, msgspec.msgpack.encode(total)],
        )


def _report(body: bytes) -> ShadowReport:
    return msgspec.msgpack.decode(body, type=ShadowReport)
