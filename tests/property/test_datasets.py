"""Datasets under any input: reading gives a dataset or `InvalidDataset`, and nothing else ever."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from converters.data.dataset import Dataset, checked_dataset, read_dataset, split_stratified, write_dataset
from fleet.protocol.errors import InvalidDataset
from tests.support.thoroughness import examples

pytestmark = pytest.mark.thorough


def _valid_bytes() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "d.npz"
        np.savez_compressed(path, features=np.eye(12), labels=np.arange(12) % 2, classes=np.array(["a", "b"]))
        return path.read_bytes()


VALID = _valid_bytes()


def _read(data: bytes) -> Dataset | None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "d.npz"
        path.write_bytes(data)
        try:
            return read_dataset(path)
        except InvalidDataset:
            return None


@given(st.binary(max_size=300))
def test_bytes_are_refused(data: bytes) -> None:
    assert _read(data) is None


@settings(max_examples=examples(300))
@given(st.lists(st.tuples(st.integers(0, len(VALID) - 1), st.integers(0, 255)), min_size=1, max_size=6))
def test_a_damaged_file_is_refused_or_still_a_sound_dataset(damage: list[tuple[int, int]]) -> None:
    data = bytearray(VALID)
    for position, value in damage:
        data[position] = value
    dataset = _read(bytes(data))
    if dataset is not None:  # damage in a field that does not matter, such as a date
        np.testing.assert_array_equal(dataset.features, np.eye(12))
        np.testing.assert_array_equal(dataset.labels, np.arange(12) % 2)


@st.composite
def _datasets(draw: st.DrawFn) -> Dataset:
    classes = draw(st.lists(st.text("abcäß1 ", min_size=1, max_size=5), min_size=2, max_size=4, unique=True))
    repeats = draw(st.lists(st.integers(5, 9), min_size=len(classes), max_size=len(classes)))
    labels = np.repeat(np.arange(len(classes)), repeats)
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=3, max_side=4))
    finite = st.floats(-(2.0**100), 2.0**100, width=32)
    features = draw(hnp.arrays(np.float32, (len(labels), *shape), elements=finite, fill=st.just(0.0)))
    return checked_dataset(features, labels, tuple(classes))


@settings(max_examples=examples(50))
@given(_datasets())
def test_what_is_written_is_what_is_read(dataset: Dataset) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "d.npz"
        write_dataset(path, dataset)
        again = read_dataset(path)
        np.testing.assert_array_equal(again.features, dataset.features)
        np.testing.assert_array_equal(again.labels, dataset.labels)
        assert again.classes == dataset.classes
        write_dataset(Path(folder) / "again.npz", again)
        assert (Path(folder) / "again.npz").read_bytes() == path.read_bytes()


@given(_datasets(), st.floats(0.01, 0.99), st.integers(0, 2**32 - 1))
def test_a_split_loses_and_doubles_nothing(dataset: Dataset, share: float, seed: int) -> None:
    numbered = Dataset(
        np.arange(len(dataset), dtype=np.float32).reshape(-1, 1), dataset.labels, dataset.classes
    )
    split = split_stratified(numbered, share=share, seed=seed)
    both = np.concatenate([split.part.features, split.rest.features]).ravel()
    assert sorted(both.tolist()) == list(range(len(dataset)))
    for side in split:
        assert set(side.labels.tolist()) == set(range(len(dataset.classes)))
        np.testing.assert_array_equal(side.labels, dataset.labels[side.features.ravel().astype(int)])
