"""From the windows that devices sent to drift alarms, on every store: who is named, and what for."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np
import pytest

from fleet.drift.alarms import LEAST_THRESHOLD
from fleet.drift.allowance import calibrated
from fleet.drift.profile import Profile, ReferenceProfile, categorical_reference, count, numeric_reference
from hub.store.protocols import Store
from hub.store.rows import OrderChange
from hub.telemetry.counting import Telemetry
from tests.contract.test_store_devices import _apply
from tests.support.stores import DIGEST, add_device, incoming, order, window

DEVICES = ("cam-1", "cam-2", "cam-3", "cam-4")
PREDICTIONS = 100
LOOK = 300
RNG = np.random.default_rng(12)
BRIGHTNESS = numeric_reference("input.mean", RNG.normal(size=500))
CLASS = categorical_reference("output.class", RNG.integers(0, 4, 500), 4)
REFERENCE = calibrated(ReferenceProfile((BRIGHTNESS, CLASS)))


class Fleet:
    """Devices that send windows, and the watch over them."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.rng = np.random.default_rng(13)
        self.watch = Telemetry(store, reference=lambda *_: (DIGEST, REFERENCE), block_predictions=LOOK)
        self.sent = 0
        for device_id in DEVICES:
            add_device(store, device_id)
            _apply(store, OrderChange(device_id, "digits", order(1)))

    def send(self, looks: int, *, dark: tuple[str, ...] = (), version: int = 1) -> None:
        """Let every device send what makes so many looks; some of them see darker images."""
        for _ in range(looks * LOOK // PREDICTIONS):
            for device_id in DEVICES:
                self.sent += 1
                body = window(version=version, predictions=PREDICTIONS)
                body.profile = self._profile(-1.5 if device_id in dark else 0.0)
                self.store.add_records([incoming(device_id, self.sent, body)])

    def _profile(self, mean: float) -> Profile:
        return {
            "input.mean": count(BRIGHTNESS, self.rng.normal(mean, 1.0, PREDICTIONS)),
            "output.class": count(CLASS, self.rng.integers(0, 4, PREDICTIONS)),
        }


@pytest.fixture
def fleet(store: Store) -> Iterator[Fleet]:
    """Four devices that have looked at the same as the reference for a while."""
    made = Fleet(store)
    made.send(4)
    made.watch.advance()
    yield made


def test_without_drift_there_are_looks_and_no_alarm(fleet: Fleet) -> None:
    rows = fleet.store.drift()
    assert [row.device_id for row in rows] == list(DEVICES)
    assert all(row.alarm.looks >= 1 and not row.alarm.raised for row in rows)
    fleet.watch.advance()  # with nothing new
    assert fleet.store.drift() == rows
    assert all(row.raised_at_s is None and row.looked_at_s == 20.0 for row in rows)


def test_the_device_that_drifts_is_named_with_its_feature_and_evidence(fleet: Fleet) -> None:
    for _ in range(3):
        fleet.send(1, dark=("cam-3",))
        fleet.watch.advance()
    alarmed = {row.device_id: row for row in fleet.store.drift() if row.alarm.raised}
    assert alarmed.keys() == {"cam-3"}
    row = alarmed["cam-3"]
    assert row.alarm.raised == ("input.mean",)
    seen = next(each for each in row.last_look if each.feature == "input.mean")
    assert seen.evidence >= seen.threshold > LEAST_THRESHOLD
    assert seen.split.startswith("below ")
    assert seen.share > seen.expected
    assert seen.wasserstein == pytest.approx(1.5, abs=0.2)


def test_an_alarm_of_a_version_that_a_device_left_does_not_help_to_convict_others(fleet: Fleet) -> None:
    for _ in range(3):
        fleet.send(1, dark=("cam-3", "cam-4"))
        fleet.watch.advance()
    before = _threshold(fleet, "cam-1", 1)
    for device_id in DEVICES:
        _apply(fleet.store, OrderChange(device_id, "digits", order(2)))
    fleet.send(1, version=2)
    fleet.watch.advance()
    assert _threshold(fleet, "cam-1", 2) > before  # there were two discoveries then, and are none now


def test_what_cannot_be_judged_is_given_up_and_the_rest_goes_on(fleet: Fleet) -> None:
    odd = window(predictions=LOOK)
    odd.profile = {"output.class": msgspec.structs.replace(count(CLASS, np.zeros(LOOK)), cells=[LOOK])}
    fleet.store.add_records([incoming("cam-5", 1, odd)])
    fleet.send(1)
    fleet.watch.advance()
    rows = {row.device_id: row for row in fleet.store.drift()}
    assert "cam-5" not in rows
    assert [letter.device_id for letter in fleet.store.dead_letters()] == ["cam-5"]
    assert rows["cam-1"].alarm.looks >= 2


def _threshold(fleet: Fleet, device_id: str, version: int) -> float:
    (row,) = [r for r in fleet.store.drift(device_id=device_id) if r.version == version]
    return row.last_look[0].threshold


def test_answers_are_counted_for_metrics_once_and_anew_with_every_start(fleet: Fleet) -> None:
    answers = fleet.watch.answers["digits", 1]
    fleet.watch.advance()  # with nothing new
    assert fleet.watch.answers == {("digits", 1): answers}
    assert answers.scalars.tolist() == [fleet.sent * PREDICTIONS, 0, 0, 0]
    assert answers.latency.sum() == fleet.sent * PREDICTIONS
    again = Telemetry(fleet.store, reference=lambda *_: (DIGEST, REFERENCE), block_predictions=LOOK)
    again.advance()
    assert again.answers == {}
