"""Datasets and model versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import sqlite_utils

from fleet.protocol.errors import Cause, Conflict, NotFound
from hub.store.rows import DatasetRow, Revocation, VersionRow, VersionStatus
from hub.store.sqlite.database import Part
from hub.store.sqlite.migrations import table

_JSON_COLUMNS = ("feature_shape", "classes", "hyperparameters", "report", "cause", "revoked")


class SqliteRegistry(Part):
    """Implements `hub.store.protocols.RegistryStore`."""

    def add_dataset(self, dataset: DatasetRow) -> None:
        """Add a dataset; raises `Conflict` if its name stands for other bytes already."""
        with self._database.writing() as db:
            known = db.execute("SELECT sha256 FROM datasets WHERE name = ?", [dataset.name]).fetchone()
            if known and known[0] != dataset.sha256:
                raise Conflict(
                    f"Dataset {dataset.name!r} is registered with other contents.",
                    remedy="Datasets never change: register it under a new name.",
                )
            if not known:
                table(db, "datasets").insert(_encoded(msgspec.to_builtins(dataset)))

    def dataset(self, name: str) -> DatasetRow:
        """Return a dataset; raises `NotFound`."""
        row = self._database.row("SELECT * FROM datasets WHERE name = ?", (name,))
        if row is None:
            raise _no_dataset(name)
        return msgspec.convert(_decoded(row), DatasetRow)

    def datasets(self, *, after: str = "", limit: int = 100) -> list[DatasetRow]:
        """Return datasets by name."""
        rows = self._database.rows(
            "SELECT * FROM datasets WHERE name > ? ORDER BY name LIMIT ?", (after, limit)
        )
        return [msgspec.convert(_decoded(row), DatasetRow) for row in rows]

    def begin_version(
        self,
        model: str,
        *,
        dataset: str,
        estimator: str,
        hyperparameters: Mapping[str, Any],
        seed: int,
        now_s: float,
    ) -> VersionRow:
        """Reserve the model's next version number for a training; raises `NotFound` for the dataset."""
        with self._database.writing() as db:
            if not db.execute("SELECT 1 FROM datasets WHERE name = ?", [dataset]).fetchone():
                raise _no_dataset(dataset)
            version = VersionRow(
                model=model,
                version=_next_version(db, model),
                status=VersionStatus.TRAINING,
                dataset=dataset,
                estimator=estimator,
                hyperparameters=dict(hyperparameters),
                seed=seed,
                created_at_s=now_s,
            )
            table(db, "versions").insert(_encoded(msgspec.to_builtins(version)))
        return version

    def finish_version(
        self, model: str, version: int, *, manifest_sha256: str, report: Mapping[str, Any]
    ) -> None:
        """Training → registered."""
        self._change(
            model,
            version,
            {VersionStatus.TRAINING},
            {
                "status": VersionStatus.REGISTERED.value,
                "manifest_sha256": manifest_sha256,
                "report": dict(report),
            },
        )

    def add_version(self, version: VersionRow) -> bool:
        """Add a complete version; False if its number is not the model's next one."""
        with self._database.writing() as db:
            if version.version != _next_version(db, version.model):
                return False
            table(db, "versions").insert(_encoded(msgspec.to_builtins(version)))
        return True

    def fail_version(self, model: str, version: int, cause: Cause) -> None:
        """Training → failed."""
        self._change(
            model,
            version,
            {VersionStatus.TRAINING},
            {"status": VersionStatus.FAILED.value, "cause": msgspec.to_builtins(cause)},
        )

    def release_version(self, model: str, version: int, now_s: float) -> None:
        """Registered → released; raises `Conflict` from any other status but released."""
        if self.version(model, version).status is not VersionStatus.RELEASED:
            self._change(
                model,
                version,
                {VersionStatus.REGISTERED},
                {"status": VersionStatus.RELEASED.value, "released_at_s": now_s},
            )

    def revoke_version(self, model: str, version: int, revocation: Revocation) -> None:
        """Registered or released → revoked, see `hub.store.protocols.RegistryStore.revoke_version`."""
        if self.version(model, version).status is not VersionStatus.REVOKED:
            self._change(
                model,
                version,
                {VersionStatus.REGISTERED, VersionStatus.RELEASED},
                {"status": VersionStatus.REVOKED.value, "revoked": msgspec.to_builtins(revocation)},
            )

    def abandon_trainings(self, cause: Cause) -> int:
        """Mark every version in training as failed: the process that trained them is gone."""
        with self._database.writing() as db:
            return int(
                db.execute(
                    "UPDATE versions SET status = ?, cause = ? WHERE status = ?",
                    [
                        VersionStatus.FAILED.value,
                        _json(msgspec.to_builtins(cause)),
                        VersionStatus.TRAINING.value,
                    ],
                ).rowcount
            )

    def version(self, model: str, version: int) -> VersionRow:
        """Return a version; raises `NotFound`."""
        row = self._database.row("SELECT * FROM versions WHERE model = ? AND version = ?", (model, version))
        if row is None:
            raise _no_version(model, version)
        return msgspec.convert(_decoded(row), VersionRow)

    def versions(
        self, model: str | None = None, *, after: tuple[str, int] = ("", 0), limit: int = 100
    ) -> list[VersionRow]:
        """Return versions by model and number."""
        rows = self._database.rows(
            "SELECT * FROM versions WHERE (? IS NULL OR model = ?) AND (model, version) > (?, ?)"
            " ORDER BY model, version LIMIT ?",
            (model, model, *after, limit),
        )
        return [msgspec.convert(_decoded(row), VersionRow) for row in rows]

    def _change(self, model: str, version: int, allowed: set[VersionStatus], values: dict[str, Any]) -> None:
        with self._database.writing() as db:
            status = _status(db, model, version)
            if status not in allowed:
                raise Conflict(
                    f"{model} version {version} is {status.value}: it cannot become {values['status']}."
                )
            table(db, "versions").update((model, version), _encoded(values))


def _next_version(db: sqlite_utils.Database, model: str) -> int:
    last = db.execute("SELECT max(version) FROM versions WHERE model = ?", [model]).fetchone()[0]
    return (last or 0) + 1


def _status(db: sqlite_utils.Database, model: str, version: int) -> VersionStatus:
    row = db.execute(
        "SELECT status FROM versions WHERE model = ? AND version = ?", [model, version]
    ).fetchone()
    if row is None:
        raise _no_version(model, version)
    return VersionStatus(row[0])


def _no_dataset(name: str) -> NotFound:
    return NotFound(
        f"There is no dataset {name!r:.80}.", remedy="`muster dataset list` shows those there are."
    )


def _no_version(model: str, version: int) -> NotFound:
    return NotFound(
        f"There is no version {version} of model {model!r:.80}.",
        remedy="`muster model list` shows those there are.",
    )


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _encoded(row: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _json(value) if key in _JSON_COLUMNS and value is not None else value
        for key, value in row.items()
    }


def _decoded(row: dict[str, Any]) -> dict[str, Any]:
    return {
        key: msgspec.json.decode(value) if key in _JSON_COLUMNS and value is not None else value
        for key, value in row.items()
    }
