"""The contract of every store: tags of devices."""

from __future__ import annotations

import pytest

from fleet.protocol.errors import InvalidInput, NotFound
from hub.store.protocols import Store
from hub.store.rows import Action
from tests.support.stores import add_device

DID = Action(5.0, "ana", "Tags changed: +lab.")


def test_tags_are_given_and_taken_and_who_did_it_is_remembered(store: Store) -> None:
    add_device(store, "cam-1")
    add_device(store, "cam-2")
    assert store.tag("cam-1", add=["lab", "a"], remove=[], action=DID) == ("a", "lab")
    assert store.tag("cam-1", add=["new"], remove=["a", "never"], action=DID) == ("lab", "new")
    assert store.tags("cam-1") == ("lab", "new")
    assert store.tags("cam-2") == ()
    assert store.tags_of(["cam-1", "cam-2", "nobody"]) == {"cam-1": ("lab", "new")}
    assert store.tags_of(["cam-2"]) == {}
    assert store.actions("cam-1") == [DID, DID]


def test_what_changes_nothing_is_not_remembered(store: Store) -> None:
    add_device(store, "cam-1")
    store.tag("cam-1", add=["lab"], remove=[], action=DID)
    assert store.tag("cam-1", add=["lab"], remove=["old"], action=DID) == ("lab",)
    assert store.actions("cam-1") == [DID]


def test_a_device_has_no_end_of_tags_and_a_refused_change_changes_nothing(store: Store) -> None:
    add_device(store, "cam-1")
    store.tag("cam-1", add=["lab"], remove=[], action=DID)
    with pytest.raises(InvalidInput):
        store.tag("cam-1", add=[f"t{i}" for i in range(1000)], remove=["lab"], action=DID)
    assert store.tags("cam-1") == ("lab",)


def test_the_names_of_attributes_are_those_that_some_device_has(store: Store) -> None:
    assert store.attribute_names() == set()
    add_device(store, "cam-1")
    assert store.attribute_names() == {"site"}


def test_a_device_that_is_not_there_has_no_tags(store: Store) -> None:
    with pytest.raises(NotFound):
        store.tag("nobody", add=["lab"], remove=[], action=DID)
    assert store.tags("nobody") == ()
    assert store.tags_of(["nobody"]) == {}
