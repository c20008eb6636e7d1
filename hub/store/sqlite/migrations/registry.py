"""Where migrations register, in the order in which they are imported."""

from __future__ import annotations

from typing import cast

import sqlite_utils
from sqlite_utils.db import Table
from sqlite_utils.migrations import Migrations

migrations = Migrations("muster-hub")


def table(db: sqlite_utils.Database, name: str) -> Table:
    """Return a table that is known not to be a view."""
    return cast(Table, db[name])
