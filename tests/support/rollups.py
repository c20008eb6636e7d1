"""Roll-ups for tests: windows added up plainly, and put into a store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np

from fleet.distinct import NOBODY, heard_of
from fleet.drift.profile import (
    FeatureReference,
    Profile,
    ReferenceProfile,
    categorical_reference,
    count,
    numeric_reference,
)
from fleet.protocol.latency import count_durations
from fleet.protocol.messages import encode
from fleet.protocol.records import TelemetryWindow, packed
from fleet.protocol.windows import merge_windows
from hub.store.protocols import TelemetryStore
from hub.store.telemetry_rows import (
    COHORT_RESOLUTIONS_S,
    DEVICE_RESOLUTIONS_S,
    EVERY_DEVICE,
    ONE_DEVICE,
    RollupKey,
    SealedRollup,
    TelemetryStep,
)


class DeviceWindow(NamedTuple):
    """A window with the device that sent it and the cohorts that the device is in."""

    device_id: str
    cohorts: Mapping[str, str]
    window: TelemetryWindow


def save_rollups(store: TelemetryStore, rollups: Iterable[SealedRollup]) -> None:
    """Store sums in place of those with the same keys, as a step of the telemetry pass does."""
    position = store.telemetry_position()
    store.save_telemetry(TelemetryStep(position, position, rollups=list(rollups)))


def keep_windows(store: TelemetryStore, sent: Iterable[DeviceWindow]) -> None:
    """Add windows up over every subject and resolution, and store the sums."""
    found: dict[RollupKey, TelemetryWindow] = {}
    heard: dict[RollupKey, set[str]] = {}
    counted: dict[RollupKey, int] = {}
    for device_id, cohorts, window in sent:
        subjects = [(EVERY_DEVICE, ""), (ONE_DEVICE, device_id), *cohorts.items()]
        for key, value in subjects:
            for duration_s in DEVICE_RESOLUTIONS_S if key == ONE_DEVICE else COHORT_RESOLUTIONS_S:
                start_s = int(window.ended_at_s // duration_s) * duration_s
                which = RollupKey(key, value, window.model, window.version, duration_s, start_s)
                found[which] = merge_windows(found[which], window) if which in found else window
                heard.setdefault(which, set()).add(device_id)
                counted[which] = counted.get(which, 0) + 1
    save_rollups(
        store,
        (
            SealedRollup(
                which,
                counted[which],
                NOBODY if which.key == ONE_DEVICE else heard_of(sorted(heard[which])),
                encode(packed(window)),
            )
            for which, window in found.items()
        ),
    )


def reference(seed: int = 0) -> ReferenceProfile:
    """Return a reference of two features: ``input.mean``, normal, and ``output.class``, three classes."""
    rng = np.random.default_rng(seed)
    mean = numeric_reference("input.mean", rng.normal(size=5000), bins=32)
    return ReferenceProfile((mean, categorical_reference("output.class", rng.integers(0, 3, 3000), 3)))


def values_window(
    profile: ReferenceProfile,
    ended_at_s: float,
    *,
    rng: np.random.Generator,
    shift: float = 0.0,
    values: int = 400,
    version: int = 1,
    errors: int = 0,
    latency_us: float = 500.0,
) -> TelemetryWindow:
    """Return a window of random values, numeric ones shifted by some standard deviations."""
    counts: Profile = {}
    for feature in profile.features:
        counts[feature.name] = count(feature, _values(feature, rng, shift, values))
    return TelemetryWindow(
        started_at_s=ended_at_s - 10.0,
        ended_at_s=ended_at_s,
        model="digits",
        version=version,
        manifest_sha256=f"{version:02d}" * 32,
        variant="onnx-fp32",
        predictions=values,
        errors=errors,
        labelled=values // 2,
        correct=values // 4,
        latency=count_durations(rng.lognormal(np.log(latency_us), 0.2, values)),
        profile=counts,
    )


def _values(
    feature: FeatureReference, rng: np.random.Generator, shift: float, values: int
) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    """Draw values as the reference's are distributed."""
    cells = np.array(feature.cells, dtype=np.float64)
    if feature.edges is None:
        return rng.choice(len(cells) - 1, values, p=cells[:-1] / cells[:-1].sum())
    bins = rng.choice(len(cells) - 2, values, p=cells[1:-1] / cells[1:-1].sum())
    edges = np.array(feature.edges)
    return np.asarray(rng.uniform(edges[bins], edges[bins + 1]) + shift * (feature.deviation or 0.0))
