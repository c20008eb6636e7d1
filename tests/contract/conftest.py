"""Each test of a contract runs on every implementation: brokers here, stores here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hub.broker.kinds import KINDS
from hub.store.protocols import Store
from hub.store.sqlite import SqliteStore
from tests.support.brokers import RunningBroker, running_broker

STORES: dict[str, Callable[[Path], Store]] = {"sqlite": lambda folder: SqliteStore(folder / "hub.db")}


@pytest.fixture(scope="module", params=KINDS)
def broker(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningBroker]:
    """A broker that the tests of one module share; each makes accounts of its own."""
    with running_broker(request.param, tmp_path_factory.mktemp("broker")) as running:
        yield running


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """A new, empty store."""
    opened = STORES[request.param](tmp_path)
    yield opened
    opened.close()
