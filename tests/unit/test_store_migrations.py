"""A database of an earlier release keeps its rows when a later one opens it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import sqlite_utils

from hub.store.rows import VersionRow, VersionStatus
from hub.store.sqlite import SqliteStore
from hub.store.sqlite.migrations import migrations


def test_versions_survive_that_their_dataset_may_be_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA foreign_keys=ON")
        migrations.apply(
            sqlite_utils.Database(connection, strict=True), stop_before="m002_versions_of_datasets_elsewhere"
        )
        connection.execute("INSERT INTO datasets VALUES ('digits', 'ab', 1, 1, '[64]', '[]', 1.0)")
        connection.execute(
            "INSERT INTO versions"
            " (model, version, status, dataset, estimator, hyperparameters, seed, created_at_s)"
            " VALUES ('digits', 1, 'FAILED', 'digits', 'mlp', '{}', 7, 2.0)"
        )
    old = VersionRow("digits", 1, VersionStatus.FAILED, "digits", "mlp", {}, 7, 2.0)
    new = VersionRow("digits", 2, VersionStatus.REGISTERED, "elsewhere", "onnx", {}, 0, 3.0)
    for _ in range(2):  # the second time there is nothing left to do
        with closing(SqliteStore(path)) as store:
            store.add_version(new)
            assert store.versions() == [old, new]
