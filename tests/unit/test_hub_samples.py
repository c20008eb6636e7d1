"""Taking samples in: what was ordered is kept, and whatever else a device may send is refused."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from converters.data.samples import read_samples
from fleet.protocol.assignment import CLOCK_TOLERANCE_S
from fleet.protocol.capture import CapturePolicy
from fleet.protocol.errors import Conflict, InvalidMessage, MusterError, NotFound
from fleet.protocol.manifest import Manifest
from fleet.protocol.samples import Reason, Sample, SampleMessage, table_bytes, tensors_of
from hub.sample_export import MAX_TEXT_BYTES, export
from hub.samples import DAY_S, GRACE_S, Samples
from hub.store.protocols import Store
from hub.store.sample_rows import SampleFilter, SampleRow
from hub.store.sqlite import SqliteStore
from tests.support.agent_bundles import build
from tests.support.stores import CAPABILITIES, STREAM, add_device, greeting, say

BUNDLE = build(1)
POLICY = CapturePolicy(2**40, bytes_per_day=100, sample_bytes=64, drifted=True)


class Taking:
    """A store with two devices, one of which may capture, and samples on it."""

    def __init__(self, folder: Path) -> None:
        self.store: Store = SqliteStore(folder / "hub.db")
        for device_id in ("cam-1", "cam-2"):
            add_device(self.store, device_id)
        able = msgspec.structs.replace(CAPABILITIES, captures_samples=True)
        say(self.store, "cam-1", 1.0, hello=greeting(able))
        self.told = 0
        self.samples = Samples(
            self.store,
            manifest=self.manifest,
            on_orders=self.tell,
            budget_bytes=10**6,
            retention_s=10 * DAY_S,
        )
        self.number = 0

    def tell(self) -> None:
        self.told += 1

    def manifest(self, model: str, version: int) -> tuple[str, Manifest]:
        if (model, version) != ("digits", 1):
            raise NotFound(f"There is no version {version} of model {model}.")
        return BUNDLE.sha256, BUNDLE.manifest

    def order(self, policy: CapturePolicy | None = POLICY, *device_ids: str) -> Any:
        devices = [self.store.device(device_id) for device_id in device_ids or ("cam-1",)]
        return self.samples.order("digits", devices, policy, by="ana")

    def take(self, sample: Sample, *, device_id: str = "cam-1", now_s: float = 1000.0) -> None:
        self.number += 1
        self.samples.take(device_id, SampleMessage(STREAM, self.number, sample), now_s)

    def count(self) -> int:
        return len(self.store.samples(SampleFilter()))


@pytest.fixture
def taking(tmp_path: Path) -> Iterator[Taking]:
    made = Taking(tmp_path)
    yield made
    made.store.close()


def sample(**changes: Any) -> Sample:
    inputs = tensors_of({"pixels": np.array([[1, 2, 3, 4]], dtype=np.float32)})
    made = Sample(10.0, "digits", 1, BUNDLE.sha256, Reason.DRIFTED, inputs, feature="input.0")
    return msgspec.structs.replace(made, **changes)


def test_what_was_ordered_is_kept(taking: Taking) -> None:
    assert taking.order().changed == ["cam-1"]
    assert taking.told == 1
    taking.take(sample())
    ((row, found),) = taking.samples.read(taking.store.samples(SampleFilter()), by="bo")
    assert (row.device_id, found) == ("cam-1", sample())
    assert taking.store.actions("cam-1")[0].text == "1 captured sample(s) downloaded."


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"feature": "=cmd()"}, InvalidMessage),
        ({"model": "doors"}, InvalidMessage),
        ({"version": 2}, NotFound),
        ({"manifest_sha256": "ab" * 32}, InvalidMessage),
        ({"inputs": tensors_of({"pixels": np.zeros((1, 17), np.float32)})}, InvalidMessage),
        ({"inputs": tensors_of({"pixels": np.zeros((1, 5), np.float32)})}, InvalidMessage),
    ],
    ids=["no feature", "another model", "no such version", "another bundle", "too large", "another shape"],
)
def test_what_was_not_ordered_or_is_no_input_is_refused(
    taking: Taking, changes: dict[str, Any], error: type[MusterError]
) -> None:
    taking.order()
    with pytest.raises(error):
        taking.take(sample(**changes))
    assert taking.count() == 0


def test_a_device_without_a_policy_and_one_whose_policy_was_taken_back_are_refused(taking: Taking) -> None:
    taking.order()
    with pytest.raises(InvalidMessage):
        taking.take(sample(), device_id="cam-2")
    taking.order(None)
    with pytest.raises(InvalidMessage):
        taking.take(sample())
    assert taking.count() == 0


@pytest.mark.parametrize(
    ("captured_s", "now_s", "is_taken"),
    [
        (5000.0, 5000.0 + GRACE_S, True),  # it was away
        (5000.0, 5001.0 + GRACE_S, False),
        (5000.0 + CLOCK_TOLERANCE_S, 5100.0, True),
        (5001.0 + CLOCK_TOLERANCE_S, 5100.0, False),
        (10.0, 5001.0 + GRACE_S, False),  # a clock that was set back
    ],
)
def test_what_was_captured_after_the_policy_ended_or_comes_too_late_is_refused(
    taking: Taking, captured_s: float, now_s: float, is_taken: bool
) -> None:
    taking.order(msgspec.structs.replace(POLICY, expires_at_s=5000))
    with nullcontext() if is_taken else pytest.raises(InvalidMessage, match="had ended"):
        taking.take(sample(at_s=captured_s), now_s=now_s)
    assert taking.count() == int(is_taken)


def test_a_redaction_that_is_required_must_be_named(taking: Taking) -> None:
    taking.order(msgspec.structs.replace(POLICY, redaction="faces"))
    for named in (None, "other"):
        with pytest.raises(InvalidMessage):
            taking.take(sample(redaction=named))
    taking.take(sample(redaction="faces"))


def test_a_flood_of_samples_ends_at_two_days_worth(taking: Taking) -> None:
    taking.order()
    for _ in range(12):
        taking.take(sample())  # 16 bytes each, of 2 times 100
    with pytest.raises(InvalidMessage):
        taking.take(sample())
    taking.take(sample(), now_s=1000.0 + DAY_S + 1.0)


def test_a_device_whose_owner_does_not_allow_it_is_left_out_and_named(taking: Taking) -> None:
    done = taking.order(POLICY, "cam-1", "cam-2")
    assert (done.changed, list(done.refused)) == (["cam-1"], ["cam-2"])
    with pytest.raises(Conflict):
        taking.order(POLICY, "cam-2")
    assert taking.order(None, "cam-1", "cam-2").changed == ["cam-1"]


def test_samples_grow_old_and_are_not_deleted_all_by_a_slip(taking: Taking) -> None:
    taking.order()
    taking.take(sample(), now_s=1000.0)
    taking.take(sample(), now_s=1000.0 + 9 * DAY_S)
    assert taking.samples.forget_old(1000.0 + 10.5 * DAY_S) == 1
    with pytest.raises(Conflict):
        taking.samples.delete(SampleFilter(), by="ana")
    assert taking.samples.delete(SampleFilter(device_id="cam-1"), by="ana") == 1


def test_of_what_was_deleted_nothing_stays_on_the_disk(taking: Taking, tmp_path: Path) -> None:
    numbers = np.random.default_rng(5).random((1, 4)).astype(np.float32)

    def on_disk() -> bool:
        return any(numbers.tobytes() in file.read_bytes() for file in tmp_path.glob("hub.db*"))

    taking.order()
    taking.take(sample(inputs=tensors_of({"pixels": numbers})))
    assert on_disk()
    assert taking.samples.delete(SampleFilter(model="digits"), by="ana") == 1
    assert not on_disk()


def test_an_export_ends_before_one_long_text_makes_it_huge(tmp_path: Path) -> None:
    def row(number: int) -> SampleRow:
        return SampleRow(number, "cam-1", "cities", 1, 10.0, 20.0, Reason.RANDOM, 16)

    def texts(longest: int) -> Sample:
        column = np.array([["x" * longest] + ["y"] * 1023], dtype=object)
        return sample(inputs=tensors_of({"city": column}))

    # Each takes 40 kB; beside a text of 1,000 characters, 4 MB.
    samples = [(row(number), texts(10)) for number in range(30)] + [(row(30), texts(1000))] * 30
    assert table_bytes(samples[0][1].inputs[0]) == 4 * 1024 * 10
    with zipfile.ZipFile(io.BytesIO(export(samples))) as archive:
        (tmp_path / "one.npz").write_bytes(archive.read("samples-1.npz"))
        lines = archive.read("samples.csv").decode().splitlines()[1:]
    with np.load(tmp_path / "one.npz") as arrays:
        assert arrays["categories"].nbytes <= MAX_TEXT_BYTES
        assert len(arrays["categories"]) == len(lines) == 32


def test_an_export_has_a_file_for_each_form_and_a_line_for_each_sample(tmp_path: Path) -> None:
    def row(number: int, **changes: Any) -> SampleRow:
        made = SampleRow(number, "cam-1", "digits", 1, 10.0, 20.0, Reason.RANDOM, 16)
        return msgspec.structs.replace(made, **changes)

    text = np.array([['a,\n"b"']], dtype=object)
    number = np.array([[np.nan, 1.0]], dtype=np.float32)
    mixed = tensors_of({"city": text, "numbers": number})
    packed = export(
        [
            (row(3), sample()),
            (row(5, category=2, confidence=0.25, at_s=2.0**40), sample(inputs=mixed)),
            (row(9), sample()),
        ]
    )
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        archive.extractall(tmp_path)
    images = read_samples(tmp_path / "samples-1.npz")
    assert images.arrays["features"].tolist() == [[1, 2, 3, 4], [1, 2, 3, 4]]
    with np.load(tmp_path / "samples-2.npz") as arrays:
        assert arrays["categories"].tolist() == [['a,\n"b"']]
        assert np.array_equal(arrays["features"], number, equal_nan=True)
    lines = list(csv.DictReader((tmp_path / "samples.csv").read_text().splitlines()))
    assert [(line["file"], line["row"], line["sample"]) for line in lines] == [
        ("samples-1.npz", "0", "3"),
        ("samples-1.npz", "1", "9"),
        ("samples-2.npz", "0", "5"),
    ]
    assert (lines[2]["predicted"], lines[2]["confidence"], lines[2]["label"]) == ("2", "0.25", "")
