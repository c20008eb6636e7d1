"""The contract of every store: windows added up over time."""

from __future__ import annotations

import pytest

from fleet.distinct import NOBODY, heard_of
from fleet.drift.profile import FeatureCounts
from fleet.protocol.errors import InvalidMessage
from fleet.protocol.messages import encode
from fleet.protocol.records import packed
from hub.store.protocols import Store
from hub.store.telemetry_rows import DAY_S, HOUR_S, MINUTE_S, RollupKey, SealedRollup
from tests.support.rollups import save_rollups
from tests.support.stores import window

PROFILE = {"output.class": FeatureCounts([3, 4, 0])}


def test_sums_are_found_by_subject_version_and_time(store: Store) -> None:
    rollups = [
        _rollup("all", "", start_s=0),
        _rollup("all", "", start_s=60),
        _rollup("all", "", start_s=60, version=2),
        _rollup("site", "lyon", start_s=60),
        _rollup("site", "nice", start_s=60),
        _rollup("all", "", start_s=0, duration_s=HOUR_S),
    ]
    save_rollups(store, rollups)
    minutes = store.rollups(model="digits", start_s=0, end_s=120, resolution_s=MINUTE_S)
    assert [(row.start_s, row.version) for row in minutes] == [(0, 1), (60, 1), (60, 2)]
    second = store.rollups(model="digits", version=2, start_s=60, end_s=61, resolution_s=MINUTE_S)
    assert [(row.version, row.devices, row.window.predictions) for row in second] == [(2, 2, 10)]
    assert second[0].window.profile == PROFILE
    bare = store.rollups(model="digits", start_s=0, end_s=60, resolution_s=MINUTE_S, profiles=False)
    assert [(row.window.predictions, row.window.profile) for row in bare] == [(10, {})]
    assert bare[0].window.latency == minutes[0].window.latency
    everywhere = store.rollups(model="digits", key="site", start_s=0, end_s=120, resolution_s=MINUTE_S)
    assert [row.value for row in everywhere] == ["lyon", "nice"]
    some = store.rollups(
        model="digits", key="site", values=["nice", "oslo"], start_s=0, end_s=120, resolution_s=MINUTE_S
    )
    assert some == everywhere[1:]
    assert not store.rollups(model="letters", start_s=0, end_s=120, resolution_s=MINUTE_S)
    assert not store.rollups(model="digits", start_s=0, end_s=DAY_S, resolution_s=DAY_S)


def test_many_devices_may_be_asked_for_at_once(store: Store) -> None:
    names = [f"cam-{number:04}" for number in range(1200)]
    save_rollups(store, [_rollup("device", name, start_s=0, duration_s=HOUR_S) for name in names])
    found = store.rollups(
        model="digits", key="device", values=names[::-1], start_s=0, end_s=1, resolution_s=HOUR_S
    )
    assert [row.value for row in found] == names
    assert {row.devices for row in found} == {1}


@pytest.mark.parametrize(("key", "resolution_s"), [("all", 61), ("device", MINUTE_S)])
def test_a_resolution_that_is_not_kept_is_refused(store: Store, key: str, resolution_s: int) -> None:
    with pytest.raises(InvalidMessage):
        store.rollups(model="digits", key=key, start_s=0, end_s=1, resolution_s=resolution_s)


def test_a_sum_takes_the_place_of_the_one_before(store: Store) -> None:
    before, after = _rollup("all", "", start_s=0), _rollup("all", "", start_s=0, windows=7)
    save_rollups(store, [before])
    save_rollups(store, [after])
    unknown = before.which._replace(start_s=60)
    assert store.sealed_rollups([before.which, unknown]) == {before.which: after}


def test_sums_whose_time_is_over_are_forgotten_oldest_first(store: Store) -> None:
    save_rollups(store, [_rollup("all", "", start_s=start_s) for start_s in (0, 60, 120, 180)])
    save_rollups(store, [_rollup("all", "", start_s=0, duration_s=HOUR_S)])
    assert store.delete_rollups(duration_s=MINUTE_S, before_s=60, limit=10) == 0  # it ends just then
    assert store.delete_rollups(duration_s=MINUTE_S, before_s=181, limit=1) == 1
    left = store.rollups(model="digits", start_s=0, end_s=600, resolution_s=MINUTE_S)
    assert [row.start_s for row in left] == [60, 120, 180]
    assert store.delete_rollups(duration_s=MINUTE_S, before_s=181, limit=10) == 2
    assert store.rollups(model="digits", start_s=0, end_s=600, resolution_s=HOUR_S)


def _rollup(
    key: str, value: str, *, start_s: int, duration_s: int = MINUTE_S, version: int = 1, windows: int = 2
) -> SealedRollup:
    body = window(version=version)
    body.profile = PROFILE
    heard = NOBODY if key == "device" else heard_of(["cam-1", "cam-2"])
    which = RollupKey(key, value, "digits", version, duration_s, start_s)
    return SealedRollup(which, windows, heard, encode(packed(body)))
