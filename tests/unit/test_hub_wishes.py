"""Wishes on the hub: only for devices that know them, each with who did it, sent on at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from fleet.protocol.errors import Conflict, NotFound
from fleet.protocol.records import Diagnostics
from fleet.protocol.wishes import LogLevel, Wishes
from hub.store.protocols import Store
from hub.store.sqlite import SqliteStore
from hub.wishes import Wishing
from tests.support.stores import CAPABILITIES, add_device, greeting, incoming, say


@pytest.fixture(name="store")
def store_fixture(tmp_path: Path) -> Iterator[Store]:
    """A store with a device that obeys wishes and one that does not."""
    store = SqliteStore(tmp_path / "hub.db")
    for device_id, obeys in (("new", True), ("old", False)):
        add_device(store, device_id)
        capabilities = msgspec.structs.replace(CAPABILITIES, obeys_wishes=obeys)
        say(store, device_id, 60.0, hello=greeting(capabilities))
    yield store
    store.close()


@pytest.fixture(name="sent")
def sent_fixture() -> list[bool]:
    """One entry for each time that assignments were told to wait."""
    return []


@pytest.fixture(name="wishing")
def wishing_fixture(store: Store, sent: list[bool]) -> Wishing:
    """What changes wishes."""
    return Wishing(store, on_orders=lambda: sent.append(True))


def test_every_wish_goes_out_at_once_and_is_kept_with_its_author(
    store: Store, wishing: Wishing, sent: list[bool]
) -> None:
    wishing.hold("new", by="ana", reason="on the road")
    wishing.set_log_level("new", LogLevel.DEBUG, by="bo")
    request_id = wishing.diagnose("new", by="cy")
    assert store.desired("new").wishes == Wishes(LogLevel.DEBUG, True, request_id)
    assert store.behind() == {"new": 3}
    assert len(sent) == 3
    assert [action.by for action in store.actions("new")] == ["cy", "bo", "ana"]
    assert store.actions("new")[-1].text == "Updates held: on the road"


def test_two_requests_have_different_ids(wishing: Wishing) -> None:
    assert wishing.diagnose("new", by="ana") != wishing.diagnose("new", by="ana")


def test_what_would_be_refused_by_the_device_is_refused_here(
    store: Store, wishing: Wishing, sent: list[bool]
) -> None:
    with pytest.raises(Conflict):
        wishing.hold("old", by="ana", reason="")
    with pytest.raises(Conflict):
        wishing.set_log_level("old", LogLevel.DEBUG, by="ana")
    with pytest.raises(Conflict):
        wishing.diagnose("old", by="ana")
    assert (store.desired("old").sequence, store.actions("old"), sent) == (0, [], [])


def test_a_wish_can_be_taken_back_from_a_device_that_knows_them_no_longer(
    store: Store, wishing: Wishing
) -> None:
    wishing.hold("new", by="ana", reason="")
    wishing.set_log_level("new", LogLevel.DEBUG, by="ana")
    say(store, "new", 70.0, hello=greeting(sequence=2))
    wishing.release("new", by="ana")
    wishing.set_log_level("new", None, by="ana")
    assert store.desired("new").wishes == Wishes()


def test_who_took_a_bundle_is_remembered(store: Store, wishing: Wishing) -> None:
    store.add_records([incoming("new", 1, Diagnostics(1.0, "d-1", b"data"))])
    assert wishing.diagnostics("new", "d-1", by="ana") == b"data"
    (action,) = store.actions("new")
    assert (action.by, action.text) == ("ana", "Diagnostic bundle d-1 downloaded.")
    with pytest.raises(NotFound):
        wishing.diagnostics("old", "d-1", by="ana")
    assert store.actions("old") == []


def test_noise_is_wished_only_of_devices_that_can_put_it_on_their_counts(
    store: Store, wishing: Wishing, sent: list[bool]
) -> None:
    with pytest.raises(Conflict, match="no noise"):
        wishing.set_count_noise("new", 1.0, by="ana")
    capabilities = msgspec.structs.replace(CAPABILITIES, obeys_wishes=True, noises_counts=True)
    say(store, "new", 70.0, hello=greeting(capabilities))
    assert not sent
    assert wishing.set_count_noise("new", 0.5, by="ana").count_noise == 500
    assert store.desired("new").wishes == Wishes(count_noise=500)
    assert store.actions("new")[0].text == "Noise on counts: ε = 0.5."
    assert wishing.set_count_noise("new", None, by="bo").count_noise is None
    assert store.desired("new").wishes == Wishes()
    assert len(sent) == 2
