"""Damaged model files: whatever is cut off or flipped, reading ends in a source or in one of our errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from converters.source import Source
from converters.sources.onnx_file import open_onnx
from converters.sources.tflite_file import open_tflite
from converters.tflite.emit import emit_tflite
from fleet.protocol.errors import MusterError
from tests.support.onnx_models import cnn
from tests.support.thoroughness import examples

pytestmark = pytest.mark.thorough

ONNX = cnn(batch=1, reshape=(1, -1), opset=13).SerializeToString()
TFLITE = emit_tflite(cnn())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damaged")


def damaged(path: Path, data: bytes, cut: int, flips: list[tuple[int, int]]) -> Path:
    """Write the beginning of a file, with some bits turned; return its path."""
    changed = bytearray(data)
    for at, bit in flips:
        changed[at] ^= 1 << bit
    path.write_bytes(changed[:cut])
    return path


def read_or_refused(read: Callable[[Path], Source], path: Path) -> None:
    try:
        assert isinstance(read(path), Source)
    except MusterError as error:
        assert str(error)


@settings(
    max_examples=examples(150), deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
@given(
    cut=st.integers(0, len(ONNX)) | st.just(len(ONNX)),
    flips=st.lists(st.tuples(st.integers(0, len(ONNX) - 1), st.integers(0, 7)), max_size=4),
)
@example(cut=len(ONNX), flips=[(40, 7)])  # an operator whose name is not text
def test_damaged_onnx_files_are_read_or_refused(folder: Path, cut: int, flips: list[tuple[int, int]]) -> None:
    read_or_refused(open_onnx, damaged(folder / "m.onnx", ONNX, cut, flips))


@settings(max_examples=examples(25), deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    cut=st.just(len(TFLITE)) | st.integers(0, len(TFLITE)),
    flips=st.lists(st.tuples(st.integers(0, len(TFLITE) - 1), st.integers(0, 7)), max_size=3),
)
def test_damaged_tflite_files_are_read_or_refused(
    folder: Path, cut: int, flips: list[tuple[int, int]]
) -> None:
    read_or_refused(open_tflite, damaged(folder / "m.tflite", TFLITE, cut, flips))
