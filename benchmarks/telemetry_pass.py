"""Windows a CPU second through the telemetry pass, by features: decoded, checked, added up, stored.

Real parts: windows as devices send them, in an SQLite store on disk, in the form and order in which ingest
stores them; the whole pass, with its transactions. Two fleets: in one each device has sent an hour of windows
(a device that comes back, or a hub that catches up), in the other each has sent one (a large fleet, as time
goes by), which is the worst case: nothing is added up before it is stored.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import msgspec
import numpy as np

from fleet.drift.batch import decode_profiles
from fleet.drift.encoding import decode_profile, encode_profile
from fleet.drift.matrix import Layout
from fleet.drift.profile import Profile, ReferenceProfile, count, numeric_reference
from fleet.protocol.heads import read_head
from fleet.protocol.messages import Capabilities, Record, encode
from fleet.protocol.records import TelemetryWindow, packed
from hub.store.rows import IncomingRecord, NewDevice
from hub.store.sqlite import SqliteStore
from hub.telemetry.counting import Telemetry

FEATURES = (2, 4, 16)
WINDOWS = 12_000
PREDICTIONS = 300
NOW_S = 1_700_000_000.0
MODEL, DIGEST = "digits", "ab" * 32
VARIETY = 64
"""Different profiles; each window has one of them."""


class PassRate(NamedTuple):
    """One row of the table.

    Attributes:
        features: Numeric features of 64 bins in each window.
        fleet: What the devices sent.
        windows_per_cpu_s: Through the whole pass.
        decoding: How many times faster counts are decoded together than one by one.
    """

    features: int
    fleet: str
    windows_per_cpu_s: float
    decoding: float


def telemetry_rates(windows: int = WINDOWS) -> Iterator[PassRate]:
    """Measure each number of features, for both fleets.

    Args:
        windows: How many go through the pass, for each.
    """
    for features in FEATURES:
        reference = _reference(features)
        profiles = _profiles(reference)
        decoding = _decoding_ratio(reference, [encode_profile(profile) for profile in profiles])
        for fleet, per_device in (("60 windows of each device", 60), ("one window of each device", 1)):
            rate = _pass_rate(reference, profiles, windows, per_device)
            yield PassRate(features, fleet, rate, decoding)


def _reference(features: int) -> ReferenceProfile:
    rng = np.random.default_rng(features)
    return ReferenceProfile(
        tuple(numeric_reference(f"input.f{number}", rng.normal(size=5000)) for number in range(features))
    )


def _profiles(reference: ReferenceProfile) -> list[Profile]:
    rng = np.random.default_rng(1)
    return [
        {feature.name: count(feature, rng.normal(size=PREDICTIONS)) for feature in reference.features}
        for _ in range(VARIETY)
    ]


def _decoding_ratio(reference: ReferenceProfile, encoded: list[bytes]) -> float:
    layout, many = Layout.of(reference), encoded * 16
    together_s = _cpu_s(lambda: decode_profiles(many, layout)) / len(many)
    alone_s = _cpu_s(lambda: [decode_profile(data) for data in encoded]) / len(encoded)
    return alone_s / together_s


def _cpu_s(work: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(3):
        begun_s = time.process_time()
        work()
        best = min(best, time.process_time() - begun_s)
    return best


def _pass_rate(reference: ReferenceProfile, profiles: list[Profile], windows: int, per_device: int) -> float:
    with TemporaryDirectory(prefix="muster-telemetry-") as folder:
        store = SqliteStore(Path(folder) / "hub.db")
        try:
            _fill(store, profiles, windows, per_device)
            telemetry = Telemetry(
                store,
                reference=lambda *_: (DIGEST, reference),
                block_predictions=2**50,  # looks are another benchmark's: make bench-drift
                group_by=("site", "hardware"),
            )
            begun_s = time.process_time()
            telemetry.advance()
            took_s = time.process_time() - begun_s
            counted = sum(total.totals.predictions for total in store.totals())
            assert counted == windows * PREDICTIONS, "every window is counted once"
        finally:
            store.close()
    return windows / took_s


def _fill(store: SqliteStore, profiles: list[Profile], windows: int, per_device: int) -> None:
    """Store windows of devices at ten sites, of three kinds of hardware."""
    devices = windows // per_device
    for number in range(devices):
        name, token = f"cam-{number:05}", f"token {number}"
        capabilities = Capabilities("1.0.0", "aarch64", {}, 2**30, 2**33, hardware=f"board-{number % 3}")
        store.add_enrolment_token(token, created_at_s=0.0, expires_at_s=100.0)
        device = NewDevice(name, "hash", {"site": f"site-{number % 10}"}, capabilities)
        store.enrol(device, token_sha256=token, now_s=50.0)
    batch: list[IncomingRecord] = []
    for number in range(windows):
        index = number // devices if per_device > 1 else 0
        data = _record(profiles[number % VARIETY], NOW_S - 60.0 * index, number)
        batch.append(IncomingRecord(f"cam-{number % devices:05}", NOW_S, read_head(data), data))
        if len(batch) == 512:
            store.add_records(batch)
            batch.clear()
    store.add_records(batch)


def _record(profile: Profile, ended_at_s: float, number: int) -> bytes:
    window = TelemetryWindow(
        ended_at_s - 60.0,
        ended_at_s,
        MODEL,
        1,
        DIGEST,
        "onnx-int8",
        predictions=PREDICTIONS,
        latency={20 + bucket: PREDICTIONS // 10 for bucket in range(10)},
        profile=profile,
    )
    return encode(Record("0123456789abcdef", number, packed(window)))


if __name__ == "__main__":
    for rate in telemetry_rates():
        print(msgspec.json.encode(rate._asdict()).decode())  # noqa: T201 - a benchmark's output
