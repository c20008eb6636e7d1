"""The output folder of a conversion: complete, or not there."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from converters.bundles.folder import read_bundle
from converters.bundles.output import check_output, write_conversion
from converters.report import Report
from fleet.protocol.errors import Conflict, MusterError, StorageError
from tests.support.reports import sound_conversion, unsampled_conversion


def test_everything_that_passed_is_in_the_folder(tmp_path: Path) -> None:
    conversion = sound_conversion()
    out = tmp_path / "new" / "out"
    names = write_conversion(out, conversion)
    assert names == (
        "onnx-fp32.onnx", "ort-fp32.ort", "onnx-int8.onnx", "tflite-int8.tflite", "report.json", "bundle",
    )  # fmt: skip
    assert {path.name for path in out.iterdir()} == set(names)
    for variant, model in conversion.models.items():
        suffix = Path(conversion.file_names[variant]).suffix
        assert (out / f"{variant}{suffix}").read_bytes() == model
    report = msgspec.json.decode((out / "report.json").read_bytes(), type=Report)
    assert report == conversion.report
    assert conversion.bundle is not None
    assert read_bundle(out / "bundle", conversion.bundle.sha256) == conversion.bundle
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    assert out.stat().st_mode & 0o777 == out.parent.stat().st_mode & 0o777


def test_without_a_bundle_there_is_none(tmp_path: Path) -> None:
    names = write_conversion(tmp_path / "out", unsampled_conversion())
    assert names == ("onnx-fp32.onnx", "report.json")
    assert not (tmp_path / "out" / "bundle").exists()


def test_an_empty_folder_is_filled_also_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    write_conversion(tmp_path / "link", unsampled_conversion())
    assert (tmp_path / "empty" / "report.json").exists()
    assert (tmp_path / "link").is_symlink()


def test_what_is_in_use_is_refused_and_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "model").write_text("mine")
    for name in ("file", "full"):
        with pytest.raises(Conflict):
            write_conversion(tmp_path / name, unsampled_conversion())
    assert (tmp_path / "full" / "model").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "full"]
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for unreplaceable in (Path(), Path("/")):
        with pytest.raises(Conflict):
            check_output(unreplaceable)
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    with pytest.raises(MusterError):
        write_conversion(tmp_path / "circle", unsampled_conversion())


def test_below_a_file_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StorageError):
        write_conversion(tmp_path / "file" / "out", unsampled_conversion())


def test_a_failure_half_way_leaves_nothing(tmp_path: Path) -> None:
    """The limit on the size of files lets the small ones through and stops at a large one."""
    conversion = replace(
        unsampled_conversion(),
        models={"a": b"small", "b": bytes(1_000_000)},
        file_names={"a": "model.onnx", "b": "model.onnx"},
    )
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, hard))
    try:
        with pytest.raises(MusterError):
            write_conversion(tmp_path / "out", conversion)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert list(tmp_path.iterdir()) == []


_SLOW_WRITER = """
import sys
from dataclasses import replace
from pathlib import Path
from converters.convert import Conversion
from converters.bundles.output import write_conversion
from converters.report import Report, SourceReport

report = Report(SourceReport("a", "ONNX", "", "regression", 1, None), ())
class Large(dict):
    def items(self):
        yield "a", b"small"
        print("half way", flush=True)
        sys.stdin.read()
        yield "b", b"rest"
write_conversion(Path(sys.argv[1]), Conversion(report, Large(), {"a": "a.onnx", "b": "b.onnx"}, None))
"""


def test_an_interrupt_half_way_leaves_nothing(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _SLOW_WRITER, str(tmp_path / "out")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"half way\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) != 0
    assert list(tmp_path.iterdir()) == []
