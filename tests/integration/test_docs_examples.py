"""The examples in the documentation run as they stand, block by block, in an empty folder."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from converters.report import Report
from tests.support.digits import fitted_model, flattened, training_and_held_out

GUIDE = Path(__file__).parents[2] / "docs" / "guide"
EXAMPLES = GUIDE / "examples"
HAS_TORCH = importlib.util.find_spec("torch") is not None


def _sections(page: str) -> list[str]:
    """Return a page's sections that can run here: those with PyTorch only where it is installed."""
    sections = (EXAMPLES / page).read_text().split("\n## ")
    return [section for section in sections if HAS_TORCH or "import torch" not in section]


def _run_blocks(section: str, folder: Path) -> int:
    """Run a section's blocks of Python and of shell commands; return how many there were."""
    blocks = re.findall(r"```(python|sh)\n(.*?)```", section, re.DOTALL)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("MUSTER_")},
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    for language, text in blocks:
        command = [sys.executable, "-c", text] if language == "python" else ["bash", "-euc", text]
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=100, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    return len(blocks)


def _report(folder: Path) -> Report:
    return msgspec.json.decode((folder / "report.json").read_bytes(), type=Report)


def _packed(folder: Path) -> set[str]:
    return {variant.name for variant in _report(folder).variants if variant.packed}


def test_every_example_is_run_here() -> None:
    pages = {path.name for path in EXAMPLES.glob("*.md")} - {"README.md"}
    assert pages == {"tabular.md", "vision.md", "anomaly.md"}


def test_tabular(tmp_path: Path) -> None:
    assert sum(_run_blocks(section, tmp_path) for section in _sections("tabular.md")) == 4
    assert _packed(tmp_path / "boosting") == {"onnx-fp32", "ort-fp32"}
    assert _packed(tmp_path / "mlp") == {"onnx-fp32", "onnx-int8"}


@pytest.mark.long
def test_vision(tmp_path: Path) -> None:
    blocks = sum(_run_blocks(section, tmp_path) for section in _sections("vision.md"))
    assert blocks == (4 if HAS_TORCH else 2)
    assert {"onnx-fp32", "onnx-int8", "tflite-fp32", "tflite-int8"} <= _packed(tmp_path / "mlp")
    if HAS_TORCH:
        assert _packed(tmp_path / "cnn") == {"onnx-int8", "tflite-int8"}
        assert len(_report(tmp_path / "cnn").layers) == 3


@pytest.mark.long
def test_anomaly(tmp_path: Path) -> None:
    blocks = sum(_run_blocks(section, tmp_path) for section in _sections("anomaly.md"))
    assert blocks == (3 if HAS_TORCH else 2)
    forest = _report(tmp_path / "forest")
    assert forest.source.task == "anomaly"
    assert forest.source.evaluation is not None
    assert forest.source.evaluation.metric == "auroc"
    assert forest.source.evaluation.value > 0.95
    if HAS_TORCH:
        assert _packed(tmp_path / "autoencoder") == {"onnx-fp32", "onnx-int8", "tflite-int8"}


def test_the_code_in_the_guide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the page leaves to the reader, a pipeline and its data, is defined here."""
    (block,) = re.findall(r"```python\n(.*?)```", (GUIDE / "convert.md").read_text(), re.DOTALL)
    training, held_out = (flattened(part) for part in training_and_held_out())
    given = {
        "pipeline": fitted_model(),
        "train_images": training.features,
        "test_images": held_out.features,
        "test_labels": held_out.labels,
    }
    monkeypatch.chdir(tmp_path)
    exec(block, given)  # as a reader would run it
    assert "onnx-int8" in _packed(tmp_path / "digits")
    assert (tmp_path / "digits.html").exists()


@pytest.mark.parametrize("page", ["README.md", "tabular.md", "vision.md", "anomaly.md"])
def test_every_block_says_what_it_is_written_in(page: str) -> None:
    openings = re.findall(r"^```(.*)$", (EXAMPLES / page).read_text(), re.MULTILINE)[::2]
    assert set(openings) <= {"python", "sh"}
