"""Noised windows on every store: added up by day, apart from all else, and nothing counts them as exact."""

from __future__ import annotations

import random

import msgspec
import numpy as np
import pytest

from fleet.drift.profile import ReferenceProfile
from fleet.privacy.windows import noised
from fleet.protocol.errors import NotFound
from fleet.protocol.noised import NoisedWindow
from hub.query.noised import noised_of
from hub.query.series import References
from hub.query.times import TimeRange
from hub.retention import Limits, Retention
from hub.store.protocols import Store
from hub.store.telemetry_rows import DAY_S, TelemetryStep
from hub.telemetry.counting import Telemetry
from tests.property.test_privacy import REFERENCE, exact
from tests.support.stores import DIGEST, add_device, incoming

NOW_S = 1_700_000_000.0
TODAY_S = int(NOW_S // DAY_S) * DAY_S
KEPT = Limits(*[10 * DAY_S] * 5)
CHANCE = random.Random(9)


def _reference(model: str, version: int) -> tuple[str, ReferenceProfile]:
    if version == 99:
        raise NotFound(f"{model} version 99 is not registered.")
    return DIGEST, REFERENCE


def told(ended_at_s: float = NOW_S, *, seed: int = 0, predictions: int = 40) -> NoisedWindow:
    body = exact(predictions, seed=seed)
    body.started_at_s, body.ended_at_s = ended_at_s - 60.0, ended_at_s
    return noised(body, 1.0, CHANCE.randbytes)


def count(store: Store, *bodies: tuple[str, NoisedWindow], first: int = 0) -> Telemetry:
    records = [
        msgspec.structs.replace(incoming(device_id, number, body), received_at_s=NOW_S)
        for number, (device_id, body) in enumerate(bodies, start=first)
    ]
    store.add_records(records)
    telemetry = Telemetry(store, reference=_reference, block_predictions=1, group_by=("site",))
    telemetry.advance()
    return telemetry


@pytest.fixture(autouse=True)
def devices(store: Store) -> None:
    """Let there be two."""
    for device_id in ("cam-1", "cam-2"):
        add_device(store, device_id)


def test_noised_windows_are_added_up_by_day_and_counted_nowhere_else(store: Store) -> None:
    windows = [told(seed=seed) for seed in range(4)]
    before = told(NOW_S - DAY_S)
    count(store, *(("cam-1", window) for window in windows[:3]))
    telemetry = count(store, ("cam-2", windows[3]), ("cam-2", before), first=10)
    sums = store.noised_sums("digits", start_s=0, end_s=2 * NOW_S)
    assert sorted(key for key in sums) == [("digits", 1, TODAY_S - DAY_S), ("digits", 1, TODAY_S)]
    today = sums["digits", 1, TODAY_S]
    assert today.windows == 4
    assert today.predictions == sum(window.predictions for window in windows)
    assert today.variance == pytest.approx(4 * windows[0].variance)
    assert telemetry.progress == (0, 0, 0, 2)
    assert telemetry.answers == {}
    assert store.totals() == []
    assert store.drift_blocks([("cam-1", "digits", 1), ("cam-2", "digits", 1)]) == {}
    assert store.drift() == []
    rollups = store.rollups(model="digits", start_s=0, end_s=2 * NOW_S, resolution_s=DAY_S)
    assert rollups == []
    assert store.dead_letters() == []


def test_what_is_wrong_with_a_noised_window_is_a_dead_letter(store: Store) -> None:
    good = told()
    wrong = [
        msgspec.structs.replace(good, version=99),
        msgspec.structs.replace(good, manifest_sha256="cd" * 32),
        msgspec.structs.replace(good, started_at_s=NOW_S + 5),
        msgspec.structs.replace(good, predictions=2**32),
        msgspec.structs.replace(good, counts=b"\x01\x01no"),
        msgspec.structs.replace(good, counts=b""),
    ]
    telemetry = count(store, *(("cam-1", body) for body in [*wrong, good]))
    assert sorted(letter.cause.code for letter in store.dead_letters()) == [
        *["invalid_message"] * 5,
        "not_found",
    ]
    assert telemetry.progress == (0, 6, 0, 1)


def test_a_window_of_a_wrong_clock_counts_as_of_when_it_came(store: Store) -> None:
    count(store, ("cam-1", msgspec.structs.replace(told(), ended_at_s=2.0**39)))
    assert [*store.noised_sums("digits", start_s=0, end_s=2 * NOW_S)] == [("digits", 1, TODAY_S)]


def test_a_sum_that_cannot_be_added_to_stays_as_it_is_and_the_pass_goes_on(store: Store) -> None:
    count(store, ("cam-1", told()))
    key = ("digits", 1, TODAY_S)
    full = msgspec.structs.replace(
        store.noised_of([key])[key],
        numbers=np.full(store.noised_of([key])[key].columns().size, 2**62).tobytes(),
    )
    position = store.telemetry_position()
    body = msgspec.msgpack.encode(full)
    store.save_telemetry(TelemetryStep(previous=position, position=position, noised={key: body}))
    telemetry = count(store, ("cam-1", told()), first=5)
    assert store.noised_of([key]) == {key: full}
    assert telemetry.backlog() == 0


def test_old_days_are_forgotten(store: Store) -> None:
    count(store, ("cam-1", told(NOW_S - 12 * DAY_S)), ("cam-1", told()))
    Retention(store, KEPT).run(NOW_S)
    assert [key[2] for key in store.noised_sums("digits", start_s=0, end_s=2 * NOW_S)] == [TODAY_S]


def test_the_answer_leaves_out_versions_that_nothing_is_known_of(store: Store) -> None:
    count(store, *(("cam-1", told(seed=seed, predictions=400)) for seed in range(30)))
    found = noised_of(store, "digits", TimeRange(0.0, 2 * NOW_S), References(_reference, "digits"))
    (one,) = found
    assert (one.version, one.total.windows) == (1, 30)
    assert [rough.feature for rough in one.features] == [feature.name for feature in REFERENCE.features]
    assert all(rough.distance is not None for rough in one.features)
    unknown = References(lambda _model, _version: _reference("digits", 99), "digits")
    assert noised_of(store, "digits", TimeRange(0.0, 2 * NOW_S), unknown) == []
