"""Each test of a broker's contract runs on every broker."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.brokers import KINDS, RunningBroker, running_broker


@pytest.fixture(scope="module", params=KINDS)
def broker(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningBroker]:
    """A broker that the tests of one module share; each makes accounts of its own."""
    with running_broker(request.param, tmp_path_factory.mktemp("broker")) as running:
        yield running
