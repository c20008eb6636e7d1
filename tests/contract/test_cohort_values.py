"""A device that says something else of itself each time makes few cohorts, and keeps nobody from theirs."""

from __future__ import annotations

import msgspec
import pytest

from fleet.cohorts import MOST_BROUGHT, MOST_VALUES, OTHER, is_admitted
from fleet.drift.profile import ReferenceProfile
from hub.retention import Limits, Retention
from hub.store.protocols import Store
from hub.store.telemetry_rows import DAY_S
from hub.telemetry.counting import Telemetry
from tests.support.stores import CAPABILITIES, DIGEST, add_device, greeting, incoming, say, window

NOW_S = 1_700_000_000.0
HOSTILE, HONEST = "cam-1", "cam-2"


def telemetry(store: Store) -> Telemetry:
    return Telemetry(
        store,
        reference=lambda _model, _version: (DIGEST, ReferenceProfile(())),
        block_predictions=10**6,
        group_by=("site",),
    )


@pytest.fixture(autouse=True)
def devices(store: Store) -> None:
    """Let there be one of each kind."""
    for device_id in (HOSTILE, HONEST):
        add_device(store, device_id)


def report(store: Store, counting: Telemetry, device_id: str, number: int, hardware: str) -> None:
    """Let a device name its hardware and send a window, which is counted."""
    said = greeting(msgspec.structs.replace(CAPABILITIES, hardware=hardware))
    say(store, device_id, NOW_S, hello=said)
    body = window()
    body.started_at_s, body.ended_at_s = NOW_S - 10.0, NOW_S
    store.add_records([msgspec.structs.replace(incoming(device_id, number, body), received_at_s=NOW_S)])
    counting.advance()


def windows_by_hardware(store: Store) -> dict[str, int]:
    rows = store.rollups(
        model="digits", key="hardware", start_s=0, end_s=2 * NOW_S, resolution_s=DAY_S, profiles=False
    )
    return {row.value: row.windows for row in rows}


def test_a_device_that_changes_its_hardware_each_time_makes_few_cohorts(store: Store) -> None:
    counting = telemetry(store)
    report(store, counting, HONEST, 1, "pi4")
    for number in range(40):
        report(store, counting, HOSTILE, number, f"hardware {number}")
    assert counting.cohorts.others == {("hardware",): 40 - MOST_BROUGHT}
    again = telemetry(store)
    report(store, again, HOSTILE, 40, "after a restart of the hub")
    report(store, again, HOSTILE, 41, "pi4")  # what others have is no new value
    report(store, again, HONEST, 2, "pi5")
    found = windows_by_hardware(store)
    assert len(found) == MOST_BROUGHT + 3
    assert found[OTHER] == 40 - MOST_BROUGHT + 1
    assert (found["pi4"], found["pi5"], found["hardware 0"]) == (2, 1, 1)
    assert sum(found.values()) == 44, "every window counts"


def test_values_that_nobody_has_any_more_make_room(store: Store) -> None:
    counting = telemetry(store)
    report(store, counting, HONEST, 1, "pi4")
    kept = Limits(*[3 * DAY_S] * 5)
    Retention(store, kept).run(NOW_S + 2 * DAY_S)
    assert {one.value for one in store.cohort_values() if one.key == "hardware"} == {"pi4"}
    Retention(store, kept).run(NOW_S + 6 * DAY_S)
    assert store.cohort_values() == []


def test_there_is_an_end_to_values_whoever_brings_them() -> None:
    full = {str(number): f"cam-{number}" for number in range(MOST_VALUES)}
    assert is_admitted("7", "another", full)
    assert not is_admitted("new", "another", full)
    del full["7"]
    assert is_admitted("new", "another", full)
