"""Fleets for end-to-end tests, on either broker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hub.broker.kinds import KINDS
from tests.support.brokers import require_mosquitto
from tests.support.fleet import Fleet
from tests.support.hub import HubProcess

DEVICES = 3


@pytest.fixture(params=KINDS)
def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Fleet]:
    """A hub and three devices with cameras, running."""
    if request.param == "mosquitto":
        require_mosquitto()
    with HubProcess(tmp_path / "hub", broker=request.param) as hub:
        fleet = Fleet(hub, tmp_path, DEVICES)
        try:
            fleet.start()
            yield fleet
        finally:
            fleet.close()
