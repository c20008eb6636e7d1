"""The parts of a choice of variants: the bounded measurement, what is remembered of it, the hardware."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from agent.capabilities import MAX_HARDWARE_LENGTH, hardware, measure
from agent.life.measurements import MAX_ENTRIES, Entry, Measurements
from agent.runtimes.benchmark import RUNS, TIME_S, WARM_UP_RUNS, WARM_UP_S, Timing, sample_of
from agent.runtimes.benchmark import measure as measure_model
from agent.runtimes.protocol import Tensors
from agent.settings import Settings
from fleet.protocol.errors import NoSpace
from fleet.variants import class_of
from tests.support.agent_bundles import build, build_tabular, unpack
from tests.support.measurements import DIGEST, candidate
from tests.support.small_disk import on_small_disk, small_disk
from tests.support.stores import CAPABILITIES


class Paced:
    """A model that takes a stated time by a clock of its own: the clock stands still but for it.

    Args:
        durations_us: How long each inference takes; the last one for all that follow.
    """

    platform = "paced"
    accelerator = "none"

    def __init__(self, *durations_us: int) -> None:
        self._durations_us = durations_us
        self.runs = 0
        self.now_ns = 0

    def infer(self, inputs: Tensors) -> dict[str, NDArray[Any]]:
        """Let the time pass."""
        self.now_ns += 1000 * self._durations_us[min(self.runs, len(self._durations_us) - 1)]
        self.runs += 1
        return dict(inputs)


INPUTS = {"pixels": np.zeros((1, 4), np.float32)}


def timed(model: Paced) -> Timing:
    return measure_model(model, INPUTS, clock=lambda: model.now_ns, cpu_clock=lambda: 2 * model.now_ns)


def test_a_fast_model_is_run_a_stated_number_of_times_and_its_warm_up_does_not_count() -> None:
    model = Paced(*[1000] * WARM_UP_RUNS, *[10] * (RUNS // 2), *[30] * RUNS)
    assert timed(model) == Timing(20.0, 30.0, 40.0)
    assert model.runs == WARM_UP_RUNS + RUNS


def test_a_slow_model_is_stopped_by_the_time_and_one_that_is_slower_still_runs_once_each() -> None:
    slow = Paced(10_000)
    assert timed(slow).median_us == 10_000
    assert slow.now_ns <= 1e9 * (WARM_UP_S + TIME_S) + 2 * 10_000_000
    endless = Paced(10_000_000)
    assert timed(endless) == Timing(1e7, 1e7, 2e7)
    assert endless.runs == 2


def test_of_two_measurements_the_lower_counts() -> None:
    assert Timing(5.0, 9.0, 4.0).better(Timing(4.0, 10.0, 4.5)) == Timing(4.0, 9.0, 4.0)


def test_one_golden_input_is_measured_or_a_whole_batch_where_the_model_takes_nothing_less(
    tmp_path: Path,
) -> None:
    for bundle, rows in ((build(1), 1), (build(1, batch=4), 4), (build_tabular(), 1)):
        slot = unpack(bundle, tmp_path)
        sample = sample_of(slot.manifest, slot.folder)
        assert {len(values) for values in sample.values()} == {rows}
        assert sample.keys() == {tensor.name for tensor in slot.manifest.signature.inputs}


SETTINGS = Settings()
ENTRY = Entry(DIGEST, class_of(CAPABILITIES), ";;auto", "d-1").with_candidate(candidate("onnx-fp32", 5.0))


def test_what_was_measured_outlives_the_process_and_is_of_this_device_alone(tmp_path: Path) -> None:
    path = tmp_path / "variants.json"
    Measurements(path, SETTINGS).keep(ENTRY)
    assert Measurements(path, SETTINGS).find(DIGEST, CAPABILITIES) == ENTRY
    for changes in (
        {"hardware": "Board 5"},
        {"runtimes": {"onnxruntime": "1.32"}},
        {"architecture": "armv7l"},
    ):
        other = msgspec.structs.replace(CAPABILITIES, **changes)
        assert Measurements(path, SETTINGS).find(DIGEST, other) is None
    fuller = msgspec.structs.replace(CAPABILITIES, free_bytes=1)
    assert Measurements(path, SETTINGS).find(DIGEST, fuller) == ENTRY
    assert Measurements(path, SETTINGS).find("cd" * 32, CAPABILITIES) is None
    processor = msgspec.structs.replace(SETTINGS, execution_providers=("CPUExecutionProvider",))
    assert Measurements(path, processor).find(DIGEST, CAPABILITIES) is None


def test_the_latest_entries_are_kept_each_once(tmp_path: Path) -> None:
    kept = Measurements(tmp_path / "variants.json", SETTINGS)
    digests = [f"{number:064x}" for number in range(MAX_ENTRIES + 2)]
    for digest in digests:
        kept.keep(msgspec.structs.replace(ENTRY, manifest_sha256=digest))
        kept.keep(msgspec.structs.replace(ENTRY, manifest_sha256=digest, complete=True))
    found = [kept.find(digest, CAPABILITIES) for digest in digests]
    assert found[:2] == [None, None]
    assert all(entry is not None and entry.complete for entry in found[2:])
    last = found[-1]
    assert last is not None
    kept.forget(last)
    assert kept.find(digests[-1], CAPABILITIES) is None


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"{}", b'[{"manifest_sha256": "x"}]', b"[" * 10**5])
def test_a_damaged_file_is_as_if_it_were_empty(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "variants.json"
    path.write_bytes(data)
    kept = Measurements(path, SETTINGS)
    assert kept.find(DIGEST, CAPABILITIES) is None
    kept.keep(ENTRY)
    assert Measurements(path, SETTINGS).find(DIGEST, CAPABILITIES) == ENTRY


@on_small_disk
def test_what_cannot_be_written_is_not_remembered(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 2**16) as disk:
        kept = Measurements(disk.folder / "variants.json", SETTINGS)
        kept.keep(ENTRY)
        disk.fill()
        with pytest.raises(NoSpace):
            kept.keep(msgspec.structs.replace(ENTRY, under_test="onnx-int8"))
        assert kept.find(DIGEST, CAPABILITIES) == ENTRY


_numbers = count(1)


@pytest.mark.parametrize(
    ("device_tree", "cpuinfo", "name"),
    [
        (b"Raspberry Pi 4 Model B Rev 1.5\0", b"model name\t: ARMv7\n", "Raspberry Pi 4 Model B Rev 1.5"),
        (None, b"processor\t: 0\nmodel name\t:  Fast CPU @ 3 GHz \nmodel name\t: x\n", "Fast CPU @ 3 GHz"),
        (None, b"Hardware\t: Generic Board\n", "Generic Board"),
        (b"\0", b"model name\t: \n", None),
        (None, None, None),
        (b"x\x1b[31m\xff" + b"y" * 1000, None, "x[31m\N{REPLACEMENT CHARACTER}" + "y" * 122),
    ],
)
def test_hardware_is_the_board_or_the_processor_or_the_architecture(
    tmp_path: Path, device_tree: bytes | None, cpuinfo: bytes | None, name: str | None
) -> None:
    paths = []
    for data in (device_tree, cpuinfo):
        paths.append(tmp_path / f"file-{next(_numbers)}")
        if data is not None:
            paths[-1].write_bytes(data)
    found = hardware(*paths)
    assert found == (measure(tmp_path).architecture if name is None else name)
    assert len(found) <= MAX_HARDWARE_LENGTH


def test_this_device_says_what_it_is(tmp_path: Path) -> None:
    assert measure(tmp_path).hardware
