"""Datasets: what is read, what is refused and why, what is written, and how they are split."""

from __future__ import annotations

import hashlib
import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from converters.data.dataset import (
    Dataset,
    checked_dataset,
    file_sha256,
    read_dataset,
    split_stratified,
    write_dataset,
)
from converters.data.samples import read_samples, samples_of
from fleet.protocol.errors import DigestMismatch, InvalidDataset, NotFound, StorageError
from tests.support.digits import digits

FEATURES = np.arange(40, dtype=np.float64).reshape(10, 2, 2)
LABELS = np.array([0, 1] * 5)
CLASSES = np.array(["no", "yes"])


def _arrays(**changes: Any) -> dict[str, Any]:
    return {"features": FEATURES, "labels": LABELS, "classes": CLASSES, **changes}


def _save(path: Path, **changes: Any) -> Path:
    arrays = {name: value for name, value in _arrays(**changes).items() if value is not None}
    np.savez(path, **arrays)
    return path


def _refused(path: Path) -> str:
    with pytest.raises(InvalidDataset) as refusal:
        read_dataset(path)
    return str(refusal.value)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "f2", "u1", "i8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_files_of_numpy_are_read(tmp_path: Path, save: Any, dtype: str, order: Any) -> None:
    save(tmp_path / "d.npz", **_arrays(features=FEATURES.astype(dtype, order=order)))
    dataset = read_dataset(tmp_path / "d.npz")
    assert dataset.features.dtype == np.float32
    assert dataset.labels.dtype == np.int64
    np.testing.assert_array_equal(dataset.features, FEATURES)
    np.testing.assert_array_equal(dataset.labels, LABELS)
    assert dataset.classes == ("no", "yes")
    assert dataset.sample_shape == (2, 2)


def test_what_is_written_is_read_by_numpy_and_by_us(tmp_path: Path) -> None:
    write_dataset(tmp_path / "d.npz", digits())
    with np.load(tmp_path / "d.npz", allow_pickle=False) as loaded:
        np.testing.assert_array_equal(loaded["features"], digits().features)
        np.testing.assert_array_equal(loaded["labels"], digits().labels)
        assert tuple(loaded["classes"]) == digits().classes
    again = read_dataset(tmp_path / "d.npz")
    np.testing.assert_array_equal(again.features, digits().features)
    assert [file.name for file in tmp_path.iterdir()] == ["d.npz"]


def test_writing_is_deterministic_down_to_the_byte(tmp_path: Path) -> None:
    write_dataset(tmp_path / "d.npz", checked_dataset(FEATURES, LABELS, ("no", "yes")))
    digest = file_sha256(tmp_path / "d.npz")
    assert digest == hashlib.sha256((tmp_path / "d.npz").read_bytes()).hexdigest()
    assert digest == "9fe95a671c33a5586b7c79882266b5c154b3b830aa7829a247ed21f06b764cd1"


def test_a_dataset_that_could_not_be_read_is_not_written(tmp_path: Path) -> None:
    write_dataset(tmp_path / "d.npz", checked_dataset(FEATURES, LABELS, ("no", "yes")))
    before = (tmp_path / "d.npz").read_bytes()
    broken = Dataset(np.full((10, 2), np.nan, np.float32), LABELS, ("no", "yes"))
    with pytest.raises(InvalidDataset):
        write_dataset(tmp_path / "d.npz", broken)
    assert (tmp_path / "d.npz").read_bytes() == before


def test_a_folder_that_is_missing_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        write_dataset(tmp_path / "no" / "d.npz", checked_dataset(FEATURES, LABELS, ("no", "yes")))


def test_the_digest_is_checked_before_anything_is_parsed(tmp_path: Path) -> None:
    path = _save(tmp_path / "d.npz")
    assert len(read_dataset(path, sha256=file_sha256(path))) == 10
    path.write_bytes(b"not even an archive")
    with pytest.raises(DigestMismatch):
        read_dataset(path, sha256="0" * 64)


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    for action in (read_dataset, file_sha256):
        with pytest.raises(NotFound):
            action(tmp_path / "absent.npz")
    assert "cannot be opened" in _refused(tmp_path)  # a folder


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"labels": None}, "labels"),
        ({"classes": None}, "classes"),
        ({"extra": LABELS}, "extra"),
        ({"features": FEATURES[0, 0]}, "shape (2,)"),
        ({"features": np.arange(10.0)}, "shape (10,)"),
        ({"features": np.zeros((10, 0))}, "shape (10, 0)"),
        ({"features": np.zeros((10, 1, 1, 1, 1))}, "shape"),
        ({"features": FEATURES > 3}, "dtype"),
        ({"features": FEATURES + 1j}, "dtype"),
        ({"features": np.where(FEATURES == 8, np.nan, FEATURES)}, "number 2"),
        ({"features": np.where(FEATURES == 8, np.inf, FEATURES)}, "number 2"),
        ({"features": np.where(FEATURES == 8, 1e300, FEATURES)}, "number 2"),
        ({"features": FEATURES.astype(object)}, "Python objects"),
        ({"features": np.zeros(10, dtype=[("a", "<f4")])}, "plain array"),
        ({"features": np.array([["a", "b"]] * 10)}, "dtype"),
        ({"labels": LABELS[:9]}, "10 integers"),
        ({"labels": LABELS.reshape(10, 1)}, "10 integers"),
        ({"labels": LABELS.astype(float)}, "integers"),
        ({"labels": LABELS.astype(bool)}, "dtype"),
        ({"labels": np.where(LABELS == 0, -1, 1)}, "outside"),
        ({"labels": LABELS + 1}, "outside"),
        ({"labels": LABELS.astype(np.uint64) + np.uint64(2**63)}, "outside"),
        ({"labels": np.array([0] * 6 + [1] * 4)}, "'yes' has 4 samples"),
        ({"labels": np.zeros(10, int)}, "'yes' has 0 samples"),
        ({"classes": np.array(["only"])}, "1 names"),
        ({"classes": np.array(["same", "same"])}, "twice"),
        ({"classes": np.array(["no", ""])}, "class name"),
        ({"classes": np.array(["no", "a\x1b[2J"])}, "class name"),
        ({"classes": np.array(["no", "x" * 65])}, "class name"),
        ({"classes": np.array([0, 1])}, "list of names"),
        ({"classes": np.array([["no"], ["yes"]])}, "list of names"),
        ({"classes": np.array([b"no", b"yes"])}, "dtype"),
        ({"classes": np.array(["no", "yes"], dtype=object)}, "Python objects"),
        ({"classes": np.array([str(i) for i in range(1001)])}, "1001 names"),
        ({"layout": np.array("NHWC")}, "cannot be 'NHWC'"),
        ({"layout": np.array("HW")}, "cannot be 'HW'"),
        ({"layout": np.array(["NHW", "NTC"])}, "one text"),
        ({"layout": np.array(3)}, "one text"),
    ],
)
def test_arrays_that_are_no_dataset_are_refused(tmp_path: Path, changes: dict[str, Any], why: str) -> None:
    assert why in _refused(_save(tmp_path / "d.npz", **changes))


@pytest.mark.parametrize("layout", [np.array("NHW"), np.array(["NHW"])], ids=["one text", "a list of one"])
def test_a_dataset_may_declare_what_its_axes_are(tmp_path: Path, layout: np.ndarray[Any, Any]) -> None:
    dataset = read_dataset(_save(tmp_path / "d.npz", layout=layout))
    assert dataset.layout == dataset.take(np.arange(3)).layout == "NHW"
    write_dataset(tmp_path / "again.npz", dataset)
    assert read_dataset(tmp_path / "again.npz").layout == "NHW"
    assert samples_of(dataset).layout == "NHW"
    assert read_samples(tmp_path / "d.npz").layout == "NHW"
    assert set(read_samples(tmp_path / "d.npz").arrays) == {"features"}
    assert read_dataset(_save(tmp_path / "plain.npz")).layout == ""


@pytest.mark.parametrize("data", [b"", b"PK", b"x" * 1000, b"PK\x05\x06" + b"\0" * 18])
def test_files_that_are_no_archive_are_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "d.npz").write_bytes(data)
    _refused(tmp_path / "d.npz")


def test_truncated_files_are_refused_wherever_they_are_cut(tmp_path: Path) -> None:
    whole = _save(tmp_path / "d.npz").read_bytes()
    for size in range(0, len(whole), 7):
        (tmp_path / "cut.npz").write_bytes(whole[:size])
        _refused(tmp_path / "cut.npz")


def _npy(header: str, data: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + data


def _archive(path: Path, features: bytes, compression: int = zipfile.ZIP_DEFLATED) -> Path:
    rest = {}
    for name in ("labels", "classes"):
        buffer = io.BytesIO()
        np.save(buffer, _arrays()[name])
        rest[name] = buffer.getvalue()
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in {"features": features, **rest}.items():
            archive.writestr(f"{name}.npy", data)
    return path


HUGE = "{'descr': '<f8', 'fortran_order': False, 'shape': (100000000, 1000), }\n"


def test_a_header_that_declares_more_than_the_file_holds_is_refused_before_allocation(tmp_path: Path) -> None:
    assert "declares 800000000000 bytes" in _refused(_archive(tmp_path / "d.npz", _npy(HUGE)))


def test_a_zip_bomb_is_refused_before_it_unpacks(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("labels", "classes"):
            archive.writestr(f"{name}.npy", b"")
        with archive.open("features.npy", "w", force_zip64=True) as member:
            for _ in range(513):
                member.write(bytes(1024**2))
    assert path.stat().st_size < 1024**2
    assert "unpacks to 537919488 bytes" in _refused(path)


def test_a_member_that_unpacks_to_more_than_it_declares_is_cut_off_there(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    real = _npy("{'descr': '<f8', 'fortran_order': False, 'shape': (10, 4), }\n", bytes(320))
    _archive(path, real + bytes(10_000_000))
    declared, said = struct.pack("<I", len(real) + 10_000_000), struct.pack("<I", len(real))
    lying = path.read_bytes().replace(declared, said)
    assert lying != path.read_bytes()
    path.write_bytes(lying)
    assert "damaged" in _refused(path)  # its checksum is that of the whole


def test_headers_are_never_evaluated(tmp_path: Path) -> None:
    nested = "{'descr': '<f8', 'fortran_order': False, 'shape': " + "(" * 2000 + ")" * 2000 + ", }\n"
    call = "{'descr': '<f8', 'fortran_order': False, 'shape': (__import__('os').getpid(),), }\n"
    for header in (nested, call, "", "x" * 5000):
        _refused(_archive(tmp_path / "d.npz", _npy(header)))


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_unusual_compression_is_refused(tmp_path: Path, compression: int) -> None:
    data = _npy("{'descr': '<f8', 'fortran_order': False, 'shape': (10, 4), }\n", bytes(320))
    assert "compression" in _refused(_archive(tmp_path / "d.npz", data, compression))


def test_an_archive_of_very_many_entries_is_refused_before_they_are_listed(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        for number in range(2000):
            archive.writestr(str(number), b"")
    assert "2000 entries" in _refused(tmp_path / "d.npz")


def test_a_flipped_byte_of_data_is_noticed(tmp_path: Path) -> None:
    write_dataset(tmp_path / "d.npz", checked_dataset(FEATURES, LABELS, ("no", "yes")))
    data = bytearray((tmp_path / "d.npz").read_bytes())
    data[data.index(np.float32(7.0).tobytes())] ^= 1
    (tmp_path / "d.npz").write_bytes(bytes(data))
    assert "CRC" in _refused(tmp_path / "d.npz")


def _identities(dataset: Dataset) -> NDArray[np.float32]:
    return dataset.features[:, 0, 0]


def _numbered() -> Dataset:
    labels = np.arange(100) % 3
    return checked_dataset(np.arange(100.0).reshape(100, 1, 1), labels, ("a", "b", "c"))


def test_a_split_is_stratified_and_loses_nothing() -> None:
    split = split_stratified(_numbered(), share=0.25, seed=1)
    assert np.bincount(split.part.labels).tolist() == [8, 8, 8]
    assert np.bincount(split.rest.labels).tolist() == [26, 25, 25]
    together = np.concatenate([_identities(split.part), _identities(split.rest)])
    assert sorted(together.tolist()) == list(range(100))


def test_a_seed_names_the_same_split_for_ever() -> None:
    split = split_stratified(_numbered(), share=0.05, seed=42)
    assert _identities(split.part).tolist() == [2.0, 8.0, 22.0, 31.0, 45.0, 57.0]
    other = split_stratified(_numbered(), share=0.05, seed=43)
    assert _identities(other.part).tolist() != _identities(split.part).tolist()


@pytest.mark.parametrize("share", [1e-9, 1 - 1e-9])
def test_every_class_is_on_both_sides_of_a_split(share: float) -> None:
    split = split_stratified(_numbered(), share=share, seed=0)
    assert set(split.part.labels.tolist()) == set(split.rest.labels.tolist()) == {0, 1, 2}


def test_a_class_of_one_sample_cannot_be_split() -> None:
    with pytest.raises(InvalidDataset):
        split_stratified(_numbered().take(np.array([0, 1, 2, 3])), share=0.5, seed=0)
