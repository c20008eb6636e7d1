"""Searching devices: which of the fleet a target means."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from fleet.protocol.errors import InvalidTarget, NotFound
from fleet.targets.evaluation import DeviceProfile, compile_target
from fleet.targets.parser import parse_target
from fleet.targets.tree import (
    Attribute,
    BuiltIn,
    Drifts,
    Fact,
    Runs,
    Tagged,
    Target,
    VersionOf,
    operands,
    read_of_devices,
    tests,
)
from hub.store.protocols import DeviceStore, RegistryStore, StateStore, TagStore
from hub.store.rows import DeviceRow

PAGE = 1000
_NO_ATTRIBUTES = {
    "tag": 'Tags are asked for by `tag("name")`. ',
    "runs": 'Models are asked for by `runs("model")`. ',
    "model": 'Models are asked for by `runs("model")`. ',
    "version": 'Versions are a model\'s: `version("model") == 1`. ',
}
"""What is asked for in another form than attributes are."""
_TOLD = 10
"""Most attributes that are named in a refusal."""


class SearchStore(DeviceStore, StateStore, TagStore, RegistryStore, Protocol):
    """What searching needs of the store."""


class Search:
    """Finds the devices that a target means.

    Attributes:
        asks_state: Whether the target asks for health or drift, which are as old as their last refresh.

    Args:
        store: Knows the devices.
        where: The target; None for every device.
        is_checked: Whether it was searched for before: what some device had then is not looked up again.

    Raises:
        InvalidTarget: It cannot be understood, or asks for an attribute or model that nobody has.
    """

    def __init__(self, store: SearchStore, where: str | None, *, is_checked: bool = False) -> None:
        self._store = store
        target = parse_target(where) if where is not None else None
        self._test: Callable[[DeviceProfile], bool] | None = None
        self._asks_tags = self._asks_health = self._asks_drift = False
        if target is not None:
            if not is_checked:
                check_names(store, target)
            self._asks_tags = any(isinstance(test, Tagged) for test in tests(target))
            self._test = compile_target(target)
            self._asks_health = Fact(BuiltIn.HEALTH) in read_of_devices(target)
            self._asks_drift = any(isinstance(test, Drifts) for test in tests(target))
        self.asks_state = self._asks_health or self._asks_drift

    def devices(self, *, after: str = "", wanted: int = PAGE) -> Iterator[DeviceRow]:
        """Yield the devices that are meant, by id.

        Args:
            after: Only those whose id comes after it.
            wanted: About so many are taken.
        """
        while rows := self._store.devices(after=after, limit=PAGE if self._test else wanted):
            yield from self.among(rows)
            after = rows[-1].device_id

    def among(self, rows: Sequence[DeviceRow]) -> Iterator[DeviceRow]:
        """Yield those of some devices that are meant."""
        test = self._test
        if test is None:
            yield from rows
            return
        tags, health, drifting = self._tags(rows), self._health(rows), self._drifting(rows)
        for row in rows:
            key = row.device_id
            if test(_profile(row, tags, health.get(key, ""), drifting.get(key, frozenset()))):
                yield row

    def _tags(self, rows: Sequence[DeviceRow]) -> dict[str, tuple[str, ...]]:
        return self._store.tags_of([row.device_id for row in rows]) if self._asks_tags else {}

    def _health(self, rows: Sequence[DeviceRow]) -> dict[str, str]:
        if not self._asks_health:
            return {}
        states = self._store.device_states([row.device_id for row in rows])
        return {device_id: state.status.value for device_id, state in states.items()}

    def _drifting(self, rows: Sequence[DeviceRow]) -> dict[str, frozenset[str]]:
        return self._store.drifting_features([row.device_id for row in rows]) if self._asks_drift else {}


class Searches:
    """Makes searches; what their targets ask of health and drift is brought up to date first.

    Args:
        store: Knows the devices.
        refresh: Brings states up to date, as far as nobody waits long for it.
    """

    def __init__(self, store: SearchStore, refresh: Callable[[], object]) -> None:
        self._store = store
        self._refresh = refresh

    def __call__(self, where: str | None) -> Search:
        """Return the search for what a target means; raises `InvalidTarget` as `Search` does."""
        return self._fresh(Search(self._store, where))

    def among(self, where: str | None, rows: Iterable[DeviceRow]) -> list[DeviceRow]:
        """Return those of some devices that a target means which was searched for before."""
        return list(self._fresh(Search(self._store, where, is_checked=True)).among(list(rows)))

    def _fresh(self, search: Search) -> Search:
        if search.asks_state:
            self._refresh()
        return search


def asks_what_devices_are(where: str | None) -> bool:
    """Return whether a target asks of devices nothing but what `DeviceStore.device_changes` tells of."""
    if where is None:
        return True
    target = parse_target(where)
    volatile = {Fact(BuiltIn.ONLINE), Fact(BuiltIn.HEALTH)}
    read = read_of_devices(target)
    if read & volatile or any(isinstance(operand, VersionOf) for operand in read):
        return False
    return not any(isinstance(test, Runs | Drifts) for test in tests(target))


def check_names(store: SearchStore, target: Target) -> None:
    """Refuse a target that asks for what nobody has: more often it is a slip of the pen than meant.

    Raises:
        InvalidTarget: No device has an attribute of that name, or there is no such model.
    """
    asked = operands(target)
    attributes = {operand.name for operand in asked if isinstance(operand, Attribute)}
    known = store.attribute_names() if attributes else set()
    for name in sorted(attributes - known):
        near = difflib.get_close_matches(name, [*known, *BuiltIn], 1)
        there = f"There are {', '.join(sorted(known)[:_TOLD])}. " if known else ""
        guess = _NO_ATTRIBUTES.get(name) or (f"Did you mean {near[0]}? " if near else there)
        raise InvalidTarget(
            f"No device has the attribute {name!r:.80}.", remedy=f"{guess}`has(…)` asks for it all the same."
        )
    models = {operand.model for operand in asked if isinstance(operand, VersionOf)}
    for model in sorted(models | {test.model for test in tests(target) if isinstance(test, Runs)}):
        try:
            check_model(store, model)
        except NotFound as error:
            raise InvalidTarget(error.message, remedy=error.remedy) from error


def check_model(store: RegistryStore, model: str) -> None:
    """Raise `NotFound` if there is no model of that name."""
    if not store.versions(model, limit=1):
        raise NotFound(
            f"There is no model {model!r:.80}.", remedy="`muster model list` shows those there are."
        )


def _profile(
    row: DeviceRow, tags: dict[str, tuple[str, ...]], health: str, drifting: frozenset[str]
) -> DeviceProfile:
    can = row.capabilities
    models = row.reported.models if row.reported else ()
    return DeviceProfile(
        id=row.device_id,
        attributes=row.attributes,
        hardware=can.hardware,
        architecture=can.architecture,
        agent_version=can.agent_version,
        memory_bytes=can.memory_bytes,
        free_bytes=can.free_bytes,
        runtimes=can.runtimes,
        online=row.online,
        health=health,
        tags=frozenset(tags.get(row.device_id, ())),
        versions={state.model: state.version for state in models if state.version is not None},
        drifting=drifting,
    )
