"""What devices reported of candidates in the shadow of their active version, added up."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import msgspec
import sqlite_utils

from fleet.protocol.errors import InvalidMessage
from fleet.protocol.records import ShadowReport
from fleet.protocol.shadow import contradiction, merge_shadows
from hub.store.rows import IncomingRecord, ShadowTotals
from hub.store.sqlite.database import Part

log = logging.getLogger(__name__)

KEPT_FOR_EACH_VERSION = 32
"""Of each device, the newest: it names deployments and active versions itself, so it could invent them."""


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
        report = incoming.head.body
        if not isinstance(report, ShadowReport) or contradiction(report) is not None:
            continue
        key = [incoming.device_id, report.deployment_id, report.manifest_sha256, report.active_version]
        known = db.execute(
            "SELECT body FROM shadows WHERE device_id = ? AND deployment_id = ? AND manifest_sha256 = ?"
            " AND active_version = ?",
            key,
        ).fetchone()
        try:
            total = merge_shadows(_report(known[0]), report) if known else report
        except InvalidMessage as error:
            log.warning("A report of a shadow from %s is not added up: %s", incoming.device_id, error)
            continue
        db.execute(
            "INSERT INTO shadows"
            " (device_id, deployment_id, manifest_sha256, active_version, model, version, body)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (device_id, deployment_id, manifest_sha256, active_version)"
            " DO UPDATE SET body = excluded.body",
            [*key, report.model, report.version, msgspec.msgpack.encode(total)],
        )
        of_version = [incoming.device_id, report.model, report.version]
        db.execute(
            "DELETE FROM shadows WHERE device_id = ? AND model = ? AND version = ? AND rowid NOT IN"
            " (SELECT rowid FROM shadows WHERE device_id = ? AND model = ? AND version = ?"
            " ORDER BY rowid DESC LIMIT ?)",
            [*of_version, *of_version, KEPT_FOR_EACH_VERSION],
        )


def _report(body: bytes) -> ShadowReport:
    return msgspec.msgpack.decode(body, type=ShadowReport)
