"""``muster model convert`` as people meet it, without a hub: what it prints, writes and refuses."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import joblib
import msgspec
import numpy as np
import pytest

from converters.bundles.folder import read_bundle
from converters.report import Report
from fleet.protocol.manifest import manifest_sha256
from tests.support.command_line import muster_here
from tests.support.digits import digits_source, fitted_model, training_and_held_out

TARGETS = ("--target", "onnx-fp32", "--target", "onnx-int8")
SIDE = 8
"""Of an image of a digit."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model as ONNX and as a pickle, datasets, and one of blank images."""
    folder = tmp_path_factory.mktemp("files")
    training, held_out = training_and_held_out()
    (folder / "digits.onnx").write_bytes(digits_source().onnx or b"")
    joblib.dump(fitted_model(), folder / "digits.joblib")
    for name, part in (("training", training), ("held-out", held_out)):
        np.savez(
            folder / f"{name}.npz", features=part.features, labels=part.labels, classes=np.array(part.classes)
        )
    np.savez(folder / "blank.npz", features=np.zeros_like(training.features))
    return folder


def _start(*arguments: str | Path, **environment: str) -> subprocess.Popen[str]:
    """Start the command in a process of its own."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("MUSTER_")}
    return subprocess.Popen(
        [sys.executable, "-m", "hub", "model", "convert", *map(str, arguments)],
        env={**clean, "COLUMNS": "80", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _process(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    with _start(*arguments, **environment) as process:
        out, err = process.communicate(timeout=100)
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def _convert(*arguments: str | Path, columns: int | None = 80) -> subprocess.CompletedProcess[str]:
    """Run the command in this process."""
    width = "" if columns is None else str(columns)
    return muster_here("model", "convert", *map(str, arguments), COLUMNS=width)


def _refused(*arguments: str | Path) -> str:
    """Run the command, which must refuse and print one line alone; return that line."""
    done = _convert(*arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1, done.stderr
    return done.stderr


def _samples(files: Path) -> tuple[str | Path, ...]:
    return ("--calibrate", files / "training.npz", "--held-out", files / "held-out.npz")


def test_a_conversion_ends_with_a_table_and_the_files(files: Path, tmp_path: Path) -> None:
    out, html = tmp_path / "out", tmp_path / "report.html"
    done = _convert(
        files / "digits.onnx", "--out", out, *TARGETS, *_samples(files), "--html", html, "--name", "meter"
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    head = next(line for line in lines if line.lstrip().startswith("variant"))
    assert head.split() == ["variant", "bytes", "ratio", "accuracy", "drop", "p50", "here", "verdict"]
    rows = [line.split() for line in lines if line.lstrip().startswith("onnx-") and ":" not in line]
    assert [(row[0], row[-1]) for row in rows] == [("onnx-fp32", "packed"), ("onnx-int8", "packed")]
    for row in rows:
        assert int(row[1].replace(",", "")) == (out / f"{row[0]}.onnx").stat().st_size
    report = msgspec.json.decode((out / "report.json").read_bytes(), type=Report)
    assert all(variant.packed for variant in report.variants)
    sha256 = manifest_sha256((out / "bundle" / "manifest.json").read_bytes())
    manifest = read_bundle(out / "bundle", sha256).manifest
    assert (manifest.model, manifest.version) == ("meter", 1)
    assert sha256 in done.stdout
    assert html.read_text().startswith("<!doctype html>")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "report.html"]


def test_json_is_the_report_and_nothing_else(files: Path, tmp_path: Path) -> None:
    done = _convert(
        files / "digits.joblib", "--trust-pickle", "--out", tmp_path / "out", *TARGETS, *_samples(files),
        "--sensitivity", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = msgspec.convert(json.loads(done.stdout), Report)
    assert [variant.name for variant in report.variants] == ["onnx-fp32", "onnx-int8"]
    assert len(report.layers) == 2
    assert report == msgspec.json.decode((tmp_path / "out" / "report.json").read_bytes(), type=Report)


def test_where_nothing_passes_the_report_is_shown_and_nothing_is_written(files: Path, tmp_path: Path) -> None:
    out, html = tmp_path / "out", tmp_path / "report.html"
    done = _convert(
        files / "digits.onnx", "--out", out, "--html", html, "--target", "onnx-int8",
        "--calibrate", files / "blank.npz", "--held-out", files / "held-out.npz",
    )  # fmt: skip
    assert done.returncode == 1
    assert "onnx-int8 was refused: The accuracy falls by" in done.stdout
    assert "--keep-float auto" in done.stdout
    assert re.fullmatch(r"error: No variant of digits\.onnx passed.*\[conversion_failed\]\n", done.stderr)
    assert not out.exists()
    assert html.exists()


def test_a_terminal_without_the_letters_gets_others(files: Path, tmp_path: Path) -> None:
    arguments = (files / "digits.onnx", "--out", tmp_path / "out", "--target", "onnx-fp32", *_samples(files))
    done = _process(*arguments, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "packed" in done.stdout


def test_a_file_gets_the_table_however_wide_it_is(files: Path, tmp_path: Path) -> None:
    """There, no width is given."""
    done = _convert(files / "digits.onnx", "--out", tmp_path / "out", columns=None)
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith(" onnx-int8 ")]
    assert [row.split()[-2:] for row in rows] == [["not", "built"]]


def test_what_is_true_of_several_variants_is_said_once(files: Path, tmp_path: Path) -> None:
    done = _convert(
        files / "digits.onnx", "--out", tmp_path / "out", "--target", "onnx-int8, tflite-int8,onnx-fp32"
    )
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stdout.splitlines() if "not built:" in line]
    assert [line.partition(":")[0] for line in said] == ["onnx-int8, tflite-int8 were not built"]


def test_libraries_do_not_write_for_information_into_the_terminal(files: Path, tmp_path: Path) -> None:
    done = _process(files / "digits.onnx", "--out", tmp_path / "out", "--target", "tflite-fp32")
    assert (done.returncode, done.stderr) == (0, "")


def test_images_of_a_model_that_takes_rows(files: Path, tmp_path: Path) -> None:
    source = (files / "digits.joblib", "--trust-pickle", "--target", "onnx-fp32", *_samples(files))
    done = _convert(*source, "--out", tmp_path / "out", "--sample-shape", f"{SIDE},{SIDE}")
    assert done.returncode == 0, done.stderr
    assert read_bundle(tmp_path / "out" / "bundle").manifest.signature.inputs[0].shape == (-1, SIDE, SIDE)
    for shape in ("8x8", "8,", "0,64", "-1,64", "9" * 5000):
        said = _refused(*source, "--out", tmp_path / "other", "--sample-shape", shape)
        assert said.endswith("[invalid_input]\n")


def test_an_option_without_effect_is_told(files: Path, tmp_path: Path) -> None:
    done = _convert(
        files / "digits.onnx",
        "--out",
        tmp_path / "out",
        "--target",
        "onnx-fp32",
        *_samples(files),
        "--sensitivity",
    )
    assert done.returncode == 0, done.stderr
    assert "No layer was measured" in done.stdout


def test_layers_that_are_named_stay_float(files: Path, tmp_path: Path) -> None:
    arguments = [files / "digits.onnx", "--target", "onnx-int8", *_samples(files), "--json"]
    first = _convert(*arguments, "--out", tmp_path / "all", "--sensitivity")
    layers = [layer.name for layer in msgspec.convert(json.loads(first.stdout), Report).layers]
    done = _convert(*arguments, "--out", tmp_path / "mixed", "--keep-float", f" {layers[0]}, ")
    variant = msgspec.convert(json.loads(done.stdout), Report).variant("onnx-int8")
    assert variant.kept_float == (layers[0],)
    whole = (tmp_path / "all" / "onnx-int8.onnx").stat().st_size
    assert (tmp_path / "mixed" / "onnx-int8.onnx").stat().st_size > whole


def test_without_samples_float_variants_are_written_without_a_bundle(files: Path, tmp_path: Path) -> None:
    done = _convert(files / "digits.onnx", "--out", tmp_path / "out", "--target", "onnx-fp32")
    assert done.returncode == 0, done.stderr
    assert "There is no bundle" in done.stdout
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"onnx-fp32.onnx", "report.json"}


def test_a_narrow_terminal_gets_whole_numbers(files: Path, tmp_path: Path) -> None:
    arguments = (files / "digits.onnx", "--out", tmp_path / "out", "--target", "onnx-fp32", *_samples(files))
    done = _convert(*arguments, columns=40)
    assert done.returncode == 0, done.stderr
    size = (tmp_path / "out" / "onnx-fp32.onnx").stat().st_size
    assert f"bytes {size:,}\n" in done.stdout
    assert "verdict packed\n" in done.stdout
    assert "…" not in done.stdout


def test_what_cannot_be_done_is_one_clear_line(files: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "model").write_text("mine")
    (tmp_path / "not-a-model.onnx").write_text("hello")
    model, out = files / "digits.onnx", ("--out", tmp_path / "out")
    for code, arguments in {
        "conflict": (model, "--out", tmp_path / "full"),
        "not_found": (tmp_path / "none.onnx", *out),
        "invalid_name": (model, *out, "--name", "Not A Name"),
        "invalid_model": (tmp_path / "not-a-model.onnx", *out),
        "invalid_input": (model, *out, "--target", "onnx-int9"),
        "invalid_dataset": (model, *out, "--minimum", "0.5"),
        "accuracy_too_low": (model, *out, *_samples(files), "--minimum", "0.999"),
    }.items():
        assert _refused(*arguments).endswith(f"[{code}]\n")
    assert {path.name for path in tmp_path.iterdir()} == {"full", "not-a-model.onnx"}


def test_a_pickle_is_not_read_unless_it_is_trusted(files: Path, tmp_path: Path) -> None:
    assert _refused(files / "digits.joblib", "--out", tmp_path / "out").endswith("[invalid_model]\n")


def test_an_interrupt_leaves_nothing(files: Path, tmp_path: Path) -> None:
    """The dataset is a pipe: its end can be opened here once the process waits for it, at work."""
    os.mkfifo(tmp_path / "pipe")
    with _start(
        files / "digits.onnx", "--out", tmp_path / "out", "--calibrate", tmp_path / "pipe"
    ) as process:
        with (tmp_path / "pipe").open("wb"):
            process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
    assert {path.name for path in tmp_path.iterdir()} == {"pipe"}
