"""A version that was built elsewhere names a dataset that this hub need not have."""

from __future__ import annotations

import sqlite_utils

from hub.store.sqlite.migrations.registry import migrations, table


@migrations()
def m002_versions_of_datasets_elsewhere(db: sqlite_utils.Database) -> None:
    """A version that was built elsewhere names a dataset that this hub need not have."""
    table(db, "versions").transform(drop_foreign_keys=("dataset",))
