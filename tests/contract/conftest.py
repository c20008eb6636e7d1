"""Each test of a contract runs on every implementation: stores here, brokers in `tests.conftest`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hub.store.protocols import Store
from hub.store.sqlite import SqliteStore

STORES: dict[str, Callable[[Path], Store]] = {"sqlite": lambda folder: SqliteStore(folder / "hub.db")}


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A new, empty store."""
    opened = STORES[request.param](tmp_path)
    yield opened
    opened.close()
