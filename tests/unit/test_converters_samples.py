"""Samples: what a dataset file may hold for a conversion, how it meets the inputs of a model; its split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.data.samples import Samples, bind, checked_samples, evenly_spaced, read_samples, split
from fleet.protocol.errors import DigestMismatch, InvalidDataset, NotFound
from fleet.protocol.manifest import Signature, Tensor

OUTPUT = (Tensor("y", "float32", (-1, 1)),)
NUMBERS = Tensor("input", "float32", (-1, 4))
TEXT = Tensor("categories", "str", (-1, 2))


def _numbers(count: int = 6) -> np.ndarray[Any, Any]:
    return np.arange(count * 4, dtype=np.float64).reshape(count, 4)


def test_a_file_of_numbers_text_and_labels(tmp_path: Path) -> None:
    path = tmp_path / "samples.npz"
    text = np.array([["a", "b"], ["ü", ""], ["c", "d"]])
    np.savez(
        path, features=_numbers(3), categories=text, labels=np.array([0, 1, 0]), classes=np.array(["n", "y"])
    )
    samples = read_samples(path)
    assert len(samples) == 3
    assert samples.classes == ("n", "y")
    assert samples.labels is not None
    inputs = bind(samples, Signature((NUMBERS, TEXT), OUTPUT))
    assert inputs["input"].dtype == np.float32
    assert inputs["categories"].tolist() == text.tolist()
    assert read_samples(path, sha256=samples.sha256).sha256 == samples.sha256
    with pytest.raises(DigestMismatch):
        read_samples(path, sha256="0" * 64)
    with pytest.raises(NotFound):
        read_samples(tmp_path / "other.npz")


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"labels": np.array([0, 1])},
        {"features": _numbers(3), "labels": np.array([0, 1])},
        {"features": _numbers(0)},
        {"features": np.float64(3.0)},
        {"features": np.array([[1e300, 0.0]])},
        {"features": np.array([[np.inf, 0.0]])},
        {"features": _numbers(2), "labels": np.array([0.5, 1.0])},
        {"features": _numbers(2), "labels": np.array([0, 2]), "classes": np.array(["a", "b"])},
        {"features": _numbers(2), "labels": np.array([-1, 0])},
        {"features": _numbers(2), "targets": np.array([np.nan, 1.0])},
        {"features": _numbers(2), "targets": np.array(["a", "b"])},
        {"features": np.array([[1, "a"], [2, "b"]], dtype=object)},
        {"features": np.array([[1 + 2j]])},
        {"features": _numbers(2), "labels": np.array([2**63 + 1, 0], dtype=np.uint64)},
        {"categories": np.array([["a"], ["\ud800"]])},
    ],
)
def test_what_makes_no_samples_is_refused(arrays: dict[str, Any]) -> None:
    with pytest.raises(InvalidDataset):
        checked_samples(arrays)


def test_images_kept_as_rows_take_the_shape_of_the_model() -> None:
    signature = Signature((Tensor("image", "float32", (-1, 1, 2, 2)),), OUTPUT)
    for shape in ((6, 4), (6, 2, 2), (6, 2, 2, 1)):
        samples = checked_samples({"features": _numbers().reshape(shape)})
        assert bind(samples, signature)["image"].shape == (6, 1, 2, 2)
    images = checked_samples({"features": _numbers().reshape(6, 2, 2)})
    assert bind(images, Signature((NUMBERS,), OUTPUT))["input"].shape == (6, 4)


def test_axes_in_another_order_are_refused_not_mixed_up() -> None:
    signature = Signature((Tensor("image", "float32", (-1, 2, 3, 4)),), OUTPUT)
    samples = checked_samples({"features": np.zeros((5, 3, 4, 2))})
    with pytest.raises(InvalidDataset, match="transpose"):
        bind(samples, signature)


def test_several_inputs_have_arrays_of_their_names() -> None:
    signature = Signature((Tensor("left", "float32", (-1, 4)), Tensor("right", "int64", (-1, 4))), OUTPUT)
    inputs = bind(checked_samples({"left": _numbers(), "right": _numbers().astype(np.int64)}), signature)
    assert [inputs[name].dtype.name for name in ("left", "right")] == ["float32", "int64"]
    with pytest.raises(InvalidDataset, match="'left'"):
        bind(checked_samples({"features": _numbers()}), signature)


@pytest.mark.parametrize(
    ("arrays", "tensor", "words"),
    [
        ({"features": _numbers()}, Tensor("input", "float32", (-1, 5)), "shape"),
        ({"features": _numbers()}, Tensor("input", "float32", (-1, 2, 3)), "shape"),
        ({"categories": np.array([["a"]])}, NUMBERS, "no array"),
        ({"input": np.array([["a"] * 4])}, NUMBERS, "takes float32"),
        ({"features": np.full((2, 4), 0.5)}, Tensor("input", "int64", (-1, 4)), r"Sample 0 .*\(int64\)"),
        ({"features": np.array([[0], [300]])}, Tensor("input", "uint8", (-1, 1)), r"Sample 1 .*\(uint8\)"),
        ({"input": np.array([[0], [-1]])}, Tensor("input", "uint64", (-1, 1)), r"Sample 1 .*\(uint64\)"),
        ({"features": np.array([[1.0], [2.0]])}, Tensor("input", "bool", (-1, 1)), r"Sample 1 .*\(bool\)"),
        ({"features": np.array([[1e6]])}, Tensor("input", "float16", (-1, 1)), r"Sample 0 .*\(float16\)"),
        (
            {"features": np.array([[np.nan]])},
            Tensor("input", "int32", (-1, 1), missing=True),
            r"Sample 0 .*\(int32\)",
        ),
    ],
)
def test_samples_that_a_model_does_not_take_are_refused(
    arrays: dict[str, Any], tensor: Tensor, words: str
) -> None:
    with pytest.raises(InvalidDataset, match=words):
        bind(checked_samples(arrays), Signature((tensor,), OUTPUT))


def test_whole_numbers_stay_exact() -> None:
    numbers = np.array([[2**24 + 1], [2**53 + 1]])
    inputs = bind(
        checked_samples({"features": numbers}), Signature((Tensor("input", "int64", (-1, 1)),), OUTPUT)
    )
    assert inputs["input"].tolist() == numbers.tolist()


def test_classes_have_the_numbers_that_they_have_in_the_model() -> None:
    samples = checked_samples(
        {"features": _numbers(2), "labels": np.array([0, 1]), "classes": np.array(["cat", "dog"])}
    )
    for known in ((), ("cat", "dog"), ("cat", "dog", "fox"), ("0", "1")):
        bind(samples, Signature((NUMBERS,), OUTPUT, known))
    for other in (("dog", "cat"), ("bird", "cat", "dog")):
        with pytest.raises(InvalidDataset, match=r"class 0 .*'cat'"):
            bind(samples, Signature((NUMBERS,), OUTPUT, other))


@pytest.mark.parametrize("code_point", [b"\xff\xff\xff\xff", b"\x00\xd8\x00\x00"])
@pytest.mark.parametrize("name", ["categories", "classes"])
def test_text_that_is_not_unicode_is_refused(tmp_path: Path, name: str, code_point: bytes) -> None:
    text = np.frombuffer(code_point * 2, dtype="<U1")
    arrays: dict[str, Any] = {"features": _numbers(2), "labels": np.array([0, 1]), name: text}
    np.savez(tmp_path / "samples.npz", **arrays)
    with pytest.raises(InvalidDataset, match=f"{name} .*Unicode"):
        read_samples(tmp_path / "samples.npz")


def test_a_file_that_does_not_suit_is_named(tmp_path: Path) -> None:
    (tmp_path / "junk.npz").write_bytes(b"junk")
    with pytest.raises(InvalidDataset, match=r"junk\.npz: .*numpy\.savez"):
        read_samples(tmp_path / "junk.npz")
    np.savez(tmp_path / "narrow.npz", features=_numbers()[:, :3])
    with pytest.raises(InvalidDataset, match=r"narrow\.npz: .*shape"):
        bind(read_samples(tmp_path / "narrow.npz"), Signature((NUMBERS,), OUTPUT))


def test_missing_values_need_a_model_that_fills_them_in() -> None:
    values = _numbers()
    values[2, 1] = np.nan
    samples = checked_samples({"features": values})
    with pytest.raises(InvalidDataset, match="Sample 2"):
        bind(samples, Signature((NUMBERS,), OUTPUT))
    filled = Tensor("input", "float32", (-1, 4), missing=True)
    assert np.isnan(bind(samples, Signature((filled,), OUTPUT))["input"]).sum() == 1


def test_a_split_is_stratified_and_named_by_its_seed() -> None:
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    samples = Samples({"features": np.arange(100, dtype=np.float32)[:, None]}, labels)
    left, right = split(samples, share=0.5, seed=3)
    assert left.labels is not None
    assert np.bincount(left.labels).tolist() == [30, 15, 5]
    together = np.concatenate([left.arrays["features"], right.arrays["features"]])
    assert sorted(together.ravel().tolist()) == list(range(100))
    again, _ = split(samples, share=0.5, seed=3)
    np.testing.assert_array_equal(again.arrays["features"], left.arrays["features"])
    other, _ = split(samples, share=0.5, seed=4)
    assert other.arrays["features"].tolist() != left.arrays["features"].tolist()


def test_each_part_of_a_split_has_a_sample() -> None:
    two = Samples({"features": np.zeros((2, 1), dtype=np.float32)}, np.array([0, 1]))
    assert [len(part) for part in split(two, share=0.1, seed=0)] == [1, 1]
    with pytest.raises(InvalidDataset):
        split(two.take(np.array([0])), share=0.5, seed=0)


def test_evenly_spaced_samples_reach_both_ends() -> None:
    inputs = {"x": np.arange(100)[:, None]}
    assert evenly_spaced(inputs, 3)["x"].ravel().tolist() == [0, 49, 99]
    assert len(evenly_spaced(inputs, 500)["x"]) == 100
