"""A batch made ready: nonsense counts against its device like everything else that it sends."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from fleet.flood import FloodLimits
from fleet.protocol.messages import Presence, encode
from fleet.protocol.topics import Up, up
from hub.floods import Floods
from hub.ingest_batch import BatchReader
from hub.mqtt_packets import Published
from hub.store.protocols import Store
from hub.store.sqlite import SqliteStore
from tests.support.stores import DIGEST, add_device

NOW_S = 1_700_000_000.0
LIMITS = FloodLimits(rate=1.0, burst=20.0, quarantine_after_s=5.0, quarantine_s=300.0)
FLOOD = 1000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(SqliteStore(tmp_path / "hub.db")) as made:
        add_device(made, "cam-1")
        yield made


@pytest.mark.parametrize("topic", ["muster/v1/d/cam-1/up/nonsense", up("cam-1", Up.STATE)])
def test_a_flood_of_nonsense_leaves_few_dead_letters_and_ends_in_quarantine(store: Store, topic: str) -> None:
    floods = Floods(store, LIMITS)
    reader = BatchReader(lambda model, version: DIGEST, floods.admit)
    letters = []
    for second in range(10):
        flood = [Published(topic, b"nonsense", b"")] * FLOOD
        letters += reader.read(flood, NOW_S + second).letters
    assert {letter.device_id for letter in letters} == {"cam-1"}
    assert len(letters) <= 2 * LIMITS.burst + 10 * LIMITS.rate
    assert [row.device_id for row in store.quarantines()] == ["cam-1"]


def test_a_device_in_quarantine_is_still_seen(store: Store) -> None:
    floods = Floods(store, LIMITS)
    reader = BatchReader(lambda model, version: DIGEST, floods.admit)
    for second in range(10):
        reader.read([Published(up("cam-1", Up.RECORD), b"nonsense", b"")] * FLOOD, NOW_S + second)
    here = Published(up("cam-1", Up.PRESENCE), encode(Presence(True)), b"")
    assert reader.read([here], NOW_S + 10.0).devices["cam-1"].online


def test_topics_that_no_device_may_publish_to_are_nobodys(store: Store) -> None:
    floods = Floods(store, LIMITS)
    reader = BatchReader(lambda model, version: DIGEST, floods.admit)
    for topic in ("muster/v1/d/../up/state", "muster/v1/x", "", "muster/v1/d/cam-1/down/ack"):
        assert [letter.device_id for letter in reader.read([Published(topic, b"", b"")], NOW_S).letters] == [
            None
        ]
