"""The windows that devices send: counts drawn for what ran on each, only as far as the plan's gate looks.

Every device tells once in ``window_s``, at a moment of its own. A window that a swap cuts belongs to the
version that ran at its end, from the swap on. The new version has the old one's shares and what harm adds, so
both rise and fall with whatever a device is like; classes of devices differ by a factor of their own.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from fleet.drift.features import CONFIDENCE_EDGES, OUTPUT_CLASS, OUTPUT_CONFIDENCE
from fleet.drift.profile import FeatureCounts
from fleet.protocol.errors import InvalidPlan
from fleet.protocol.latency import BUCKETS_PER_OCTAVE, LAST_BUCKET
from fleet.protocol.records import TelemetryWindow
from fleet.rollout.plans.plan import Metric, Plan
from hub.simulation.calendar import Calendar, Rows
from hub.simulation.delivery import delivered
from hub.simulation.devices import MODEL, Bools, Devices, Floats, Ints, some_devices
from hub.simulation.installs import Installs
from hub.simulation.scenario import START_S, Scenario

OLD_VERSION, NEW_VERSION = 1, 2
OLD_DIGEST, NEW_DIGEST = "a" * 64, "b" * 64
WINDOW = np.dtype(
    [
        ("arrives_s", "<f8"),
        ("happened_s", "<f8"),
        ("started_s", "<f8"),
        ("device", "<i4"),
        ("is_new", "?"),
        ("predictions", "<i8"),
        ("errors", "<i8"),
        ("unsure", "<i8"),
        ("labelled", "<i8"),
        ("wrong", "<i8"),
    ]
)
SIMULATED = frozenset(
    {
        Metric.INFERENCE_ERRORS,
        Metric.LABEL_ERRORS,
        Metric.UNSURE,
        Metric.SLOW,
        Metric.LATENCY,
        Metric.OUTPUT_DRIFT,
    }
)
_DURATIONS = 20
"""Durations in a window, at most: of each request every so many is timed."""
_CLASSES = 10
_SPREAD = 0.5
_UNSURE_CELL, _SURE_CELL = 1, len(CONFIDENCE_EDGES) - 1


class Telemetry:
    """What devices tell.

    Attributes:
        windows: What will arrive.

    Args:
        devices: The fleet.
        installs: What runs on it.
        scenario: What it is like.
        plan: What its gate looks at.
        rng: Draws what is left to chance.

    Raises:
        InvalidPlan: The scenario's harm is of devices that it does not have, or the gate looks at something
            that simulated devices do not tell.
    """

    def __init__(
        self, devices: Devices, installs: Installs, scenario: Scenario, plan: Plan, rng: np.random.Generator
    ) -> None:
        self._devices, self._installs, self._scenario, self._rng = devices, installs, scenario, rng
        self._metrics = {gate.metric for gate in plan.gate.metrics}
        for number, gate in enumerate(plan.gate.metrics):
            if gate.metric not in SIMULATED:
                raise InvalidPlan(
                    f"gate.metrics[{number}]: simulated devices tell nothing of {gate.metric.value}.",
                    field=f"gate.metrics[{number}].metric",
                )
        told = scenario.telemetry
        count = len(devices)
        differing = np.exp(told.differing * rng.standard_normal((2, count)))
        kinds = np.exp(told.differing * rng.standard_normal(len(devices.kinds)))[devices.kind]
        self._requests = told.requests * differing[0]
        self._factor = differing[1] * kinds
        self._moment_s = rng.uniform(0.0, told.window_s, count)
        self._order = np.argsort(self._moment_s, kind="stable")
        self._moments_s = self._moment_s[self._order]
        self._harm = [(harm, some_devices(devices, harm.where)) for harm in scenario.harm]
        self.windows = Calendar(WINDOW)

    @property
    def is_harmed(self) -> Bools:
        """Which devices the version does harm to."""
        found = np.zeros(len(self._devices), dtype=bool)
        for _, where in self._harm:
            found |= where
        return found

    def pass_time(self, since_s: float, until_s: float) -> None:
        """Let devices whose moment comes after a time, up to another, end their windows."""
        window_s = self._scenario.telemetry.window_s
        first, last = math.floor(since_s / window_s), math.floor(until_s / window_s)
        for turn in range(first, last + 1):
            low, high = np.searchsorted(
                self._moments_s, (since_s - turn * window_s, until_s - turn * window_s), side="right"
            )
            some = np.sort(self._order[low:high])
            some = some[~self._devices.is_silent[some] & (self._devices.joins_s[some] <= until_s)]
            if len(some):
                self.windows.put(self._drawn(some, self._moment_s[some] + turn * window_s))

    def _drawn(self, devices: Ints, ended_s: Floats) -> Rows:
        told, rng, count = self._scenario.telemetry, self._rng, len(devices)
        began_s, ceased_s = self._installs.runs_from_s[devices], self._installs.runs_until_s[devices]
        is_new = (began_s < ended_s) & (ended_s <= ceased_s)
        swapped_s = np.where(is_new, began_s, np.where(ceased_s < ended_s, ceased_s, -np.inf))
        started_s = np.maximum(ended_s - told.window_s, swapped_s)
        has_model = is_new | ~self._devices.is_fresh[devices]
        rows = np.zeros(count, WINDOW)
        rows["device"], rows["is_new"] = devices, is_new
        rows["happened_s"], rows["started_s"] = ended_s, started_s
        mean = self._requests[devices] * (ended_s - started_s) / told.window_s
        requests = rng.poisson(mean)
        rows["errors"] = rng.binomial(requests, self._share(devices, is_new, told.errors, "errors"))
        answers = requests - rows["errors"]
        rows["predictions"] = answers
        if Metric.UNSURE in self._metrics:
            rows["unsure"] = rng.binomial(answers, self._share(devices, is_new, told.unsure, "unsure"))
        if Metric.LABEL_ERRORS in self._metrics:
            rows["labelled"] = rng.binomial(answers, told.labelled)
            wrong = self._share(devices, is_new, told.wrong, "wrong")
            rows["wrong"] = rng.binomial(rows["labelled"], wrong)
        return delivered(rows[has_model], self._devices, self._scenario.reports, rng)

    def _share(self, devices: Ints, is_new: Bools, usual: float, name: str) -> Floats:
        share = usual * self._factor[devices]
        for harm, where in self._harm:
            share += getattr(harm, name) * (is_new & where[devices])
        return np.asarray(np.clip(share, 0.0, 1.0))

    def read(self, rows: Rows) -> list[tuple[str, TelemetryWindow]]:
        """Return windows as the hub reads them.

        Args:
            rows: As they arrived.
        """
        devices = rows["device"]
        ahead_s = START_S + self._devices.ahead_s[devices]
        started_s, ended_s = (rows["started_s"] + ahead_s).tolist(), (rows["happened_s"] + ahead_s).tolist()
        latency = self._latency(rows)
        classes = self._classes(rows)
        ids = self._devices.ids
        found = []
        is_unsure_counted = Metric.UNSURE in self._metrics
        for place, row in enumerate(rows.tolist()):
            _, _, _, device, is_new, predictions, errors, unsure, labelled, wrong = row
            profile = {}
            if is_unsure_counted:
                cells = [0] * (len(CONFIDENCE_EDGES) + 1)
                cells[_UNSURE_CELL], cells[_SURE_CELL] = unsure, predictions - unsure
                profile[OUTPUT_CONFIDENCE] = FeatureCounts(cells)
            if classes is not None:
                profile[OUTPUT_CLASS] = FeatureCounts(classes[place])
            window = TelemetryWindow(
                started_at_s=started_s[place],
                ended_at_s=ended_s[place],
                model=MODEL,
                version=NEW_VERSION if is_new else OLD_VERSION,
                manifest_sha256=NEW_DIGEST if is_new else OLD_DIGEST,
                variant="onnx-fp32",
                predictions=predictions,
                errors=errors,
                labelled=labelled,
                correct=labelled - wrong,
                latency=latency[place] if latency else {},
                profile=profile,
            )
            found.append((ids[device], window))
        return found

    def _latency(self, rows: Rows) -> list[dict[int, int]]:
        """Return the histogram of each window; none at all if the gate does not look at it."""
        if not self._metrics & {Metric.SLOW, Metric.LATENCY} or len(rows) == 0:
            return []
        devices, slower = rows["device"], np.ones(len(rows))
        for harm, where in self._harm:
            slower *= np.where(rows["is_new"] & where[devices], harm.latency, 1.0)
        middle = np.log2(self._scenario.telemetry.latency_us * self._factor[devices] * slower)
        drawn = middle[:, None] + _SPREAD * self._rng.standard_normal((len(rows), _DURATIONS))
        buckets = np.clip(drawn * BUCKETS_PER_OCTAVE, 0, LAST_BUCKET).astype(np.intp)
        timed = np.minimum(rows["predictions"], _DURATIONS)
        low, width = int(buckets.min()), int(np.ptp(buckets)) + 1
        cells = buckets - low + np.arange(len(rows))[:, None] * width
        is_timed = np.arange(_DURATIONS) < timed[:, None]
        counts = np.bincount(cells[is_timed], minlength=len(rows) * width).reshape(len(rows), width)
        some = counts.nonzero()
        numbers, filled = counts[some].tolist(), (some[1] + low).tolist()
        cuts = np.searchsorted(some[0], np.arange(len(rows) + 1)).tolist()
        return [
            dict(zip(filled[begin:end], numbers[begin:end], strict=True)) for begin, end in pairwise(cuts)
        ]

    def _classes(self, rows: Rows) -> list[list[int]] | None:
        """Return how many answers of each window were of each class; None if the gate does not look at it."""
        if Metric.OUTPUT_DRIFT not in self._metrics:
            return None
        drawn = self._rng.multinomial(rows["predictions"], [1.0 / _CLASSES] * _CLASSES)
        return [[*row, 0] for row in drawn.tolist()]
