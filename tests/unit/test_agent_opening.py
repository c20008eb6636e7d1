"""Bringing models into memory: within their budget, and with the best accelerator that passes."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from agent.life.opening import Budget, Opener, budget, needed_bytes, prepacks
from agent.life.slots import Slot
from agent.memory import Memory
from agent.settings import Settings
from fleet.protocol.errors import AcceleratorFailed, MemoryBudgetExceeded, MusterError, SelfTestFailed
from fleet.protocol.requirement import RuntimeRequirement, RuntimeVersion
from tests.support.agent_bundles import TFLITE_VARIANT, Bundle, build, load_bundle, unpack
from tests.support.compiler import need_compiler
from tests.support.onnx_models import model, value

ROOT = Path(__file__).parents[2]
SAMPLE = {"pixels": np.full((1, 4), 0.5, dtype=np.float32)}
PLENTY = Memory(2**40, 2**40)
sizes = st.integers(0, 2**40)


@given(sizes, sizes, sizes, sizes, sizes)
def test_a_version_fits_exactly_if_every_limit_holds(
    single: int, total: int, free: int, needed: int, held: int
) -> None:
    limits = Budget(single, total, free)
    fits = needed <= single and held + needed <= total and needed <= free
    if fits or needed == 0:
        limits.check(needed, held)
    else:
        with pytest.raises(MemoryBudgetExceeded, match=str(needed)):
            limits.check(needed, held)


@pytest.mark.parametrize(
    ("settings", "model_bytes", "total_bytes"),
    [
        (Settings(), 500, 500),
        (Settings(model_memory_limit_bytes=100), 100, 500),
        (Settings(models_memory_limit_bytes=900), 900, 900),
        (Settings(model_memory_limit_bytes=800, models_memory_limit_bytes=300), 300, 300),
    ],
)
def test_limits_that_are_not_set_follow_from_the_memory_there_is(
    settings: Settings, model_bytes: int, total_bytes: int
) -> None:
    assert budget(settings, Memory(1000, 700)) == (model_bytes, total_bytes, 700)


def _slot(bundle: Bundle, folder: Path) -> Slot:
    folder.mkdir(exist_ok=True)
    return unpack(bundle, folder)


def _opener(told: list[MusterError], memory: Memory = PLENTY, **settings: object) -> Opener:
    return Opener(Settings(**settings), told.append, lambda: memory)  # type: ignore[arg-type]


def test_a_model_counts_as_long_as_it_is_in_memory(tmp_path: Path) -> None:
    one, two = (_slot(build(version), tmp_path / str(version)) for version in (1, 2))
    needed = needed_bytes(one.variant.requirement)
    opener = _opener([], models_memory_limit_bytes=2 * needed - 1)
    first = opener.open(one, "onnxruntime")
    assert opener.held_bytes == needed
    assert not opener.fits(two.variant.requirement)
    with pytest.raises(MemoryBudgetExceeded, match=f"need {needed} of it"):
        opener.open(two, "onnxruntime")
    assert opener.open(two, "onnxruntime", must_fit=False).infer(SAMPLE)  # as a committed version is
    del first
    assert opener.held_bytes == 0
    opener.check(two.variant.requirement)


def test_a_model_that_waits_to_be_collected_does_not_stand_in_the_way(tmp_path: Path) -> None:
    slot = _slot(build(1), tmp_path)
    opener = _opener([], models_memory_limit_bytes=needed_bytes(slot.variant.requirement))
    gc.disable()
    try:
        cycle: list[object] = [opener.open(slot, "onnxruntime")]
        cycle.append(cycle)
        del cycle
        assert opener.held_bytes > 0
        opener.open(slot, "onnxruntime")
    finally:
        gc.enable()


def test_a_model_that_cannot_be_opened_counts_no_more(tmp_path: Path) -> None:
    slot = _slot(build(1), tmp_path)
    slot.model_path.write_bytes(b"not a model")
    opener = _opener([])
    with pytest.raises(MusterError):
        opener.open(slot, "onnxruntime")
    assert opener.held_bytes == 0


def test_an_accelerator_that_is_not_here_is_passed_over_and_told(tmp_path: Path) -> None:
    told: list[MusterError] = []
    slot = _slot(build(1), tmp_path)
    opened = _opener(told, execution_providers=("cuda", "openvino:GPU")).open(slot, "onnxruntime")
    assert opened.accelerator == "cpu"
    assert [type(error) for error in told] == [AcceleratorFailed] * 2
    plain = asyncio.run(load_bundle(build(1), tmp_path)).compute(SAMPLE)
    np.testing.assert_array_equal(opened.infer(SAMPLE)["probabilities"], plain["probabilities"])


@pytest.mark.parametrize(
    ("setting", "room_bytes", "expected"),
    [("auto", 120, True), ("auto", 119, False), ("always", 0, True), ("never", 2**40, False)],
)
def test_weights_are_copied_if_a_second_copy_fits(setting: str, room_bytes: int, expected: bool) -> None:
    requirement = RuntimeRequirement((RuntimeVersion("onnxruntime", "1.16"),), 20, 80)
    assert prepacks(setting, requirement, room_bytes) is expected


OWN_MEMORY = """
import sys
from pathlib import Path
from agent.life.footprint import measure_footprint
from agent.runtimes.onnx import OnnxRuntime
from agent.runtimes.options import RuntimeOptions
from fleet.protocol.manifest import Signature, Tensor
signature = Signature(
    (Tensor("pixels", "float32", (-1, 2048)),), (Tensor("probabilities", "float32", (-1, 2048)),)
)
before = measure_footprint().own_bytes
model = OnnxRuntime(RuntimeOptions(prepacks=sys.argv[2] == "True")).load(Path(sys.argv[1]), signature)
print(measure_footprint().own_bytes - before)
"""


def test_a_copy_of_the_weights_is_what_prepacking_takes(tmp_path: Path) -> None:
    weights = np.ones((2048, 2048), dtype=np.float32)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.add_session_config_entry("session.save_model_format", "ORT")
    options.optimized_model_filepath = str(tmp_path / "model.ort")
    given, answered = value("pixels", ["n", 2048]), value("probabilities", ["n", 2048])
    node = helper.make_node("MatMul", ["pixels", "weights"], ["probabilities"])
    graph = model([node], [given], [answered], {"weights": weights}).SerializeToString()
    onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def own_bytes(prepacked: bool) -> int:
        command = [sys.executable, "-c", OWN_MEMORY, str(tmp_path / "model.ort"), str(prepacked)]
        return int(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)

    assert own_bytes(prepacked=True) - own_bytes(prepacked=False) > 0.9 * weights.nbytes


DELEGATE = """
#include <stddef.h>
/* The head of TfLiteDelegate of TensorFlow Lite's C API; it takes no node, so all stay where they were. */
typedef struct { void* data; int (*prepare)(void*, void*); void* others[3]; long long flags; void* builder; }
  Delegate;
static int prepare(void* context, void* delegate) { (void)context; (void)delegate; return STATUS; }
static Delegate made = { NULL, prepare, { NULL }, 0, NULL };
void* tflite_plugin_create_delegate(char** keys, char** values, size_t n, void (*report)(const char*)) {
  (void)keys; (void)values; (void)n; (void)report; return &made;
}
void tflite_plugin_destroy_delegate(void* delegate) { (void)delegate; }
"""


def _delegate(folder: Path, status: int = 0) -> Path:
    """Build a real external delegate."""
    path = folder / f"lib{status}.so"
    command = [need_compiler(), "-shared", "-fPIC", f"-DSTATUS={status}", "-x", "c", "-", "-o", str(path)]
    subprocess.run(command, input=DELEGATE.encode(), check=True)
    path.chmod(0o755)
    return path


def test_a_delegate_is_used_once_it_passed_the_golden_inputs(tmp_path: Path) -> None:
    told: list[MusterError] = []
    library = _delegate(tmp_path)
    slot = _slot(build(1).ordering(TFLITE_VARIANT), tmp_path / "1")
    opened = _opener(told, litert_delegate=str(library)).open(slot, "litert")
    assert (opened.accelerator, told) == ("delegate:lib0.so", [])
    wrong = _slot(build(1, golden_error=0.5).ordering(TFLITE_VARIANT), tmp_path / "2")
    assert _opener(told, litert_delegate=str(library)).open(wrong, "litert").accelerator == "cpu"
    assert "golden inputs differ" in str(told[0])


@pytest.mark.parametrize(
    "fault", ["fails", "no delegate", "no library", "absent", "writable", "writable folder"]
)
def test_a_delegate_that_must_not_or_cannot_be_loaded_is_passed_over(tmp_path: Path, fault: str) -> None:
    folder = tmp_path / "lib"
    folder.mkdir(mode=0o755)
    library = _delegate(folder, status=1 if fault == "fails" else 0)
    if fault == "no delegate":
        subprocess.run([need_compiler(), "-shared", "-x", "c", "/dev/null", "-o", str(library)], check=True)
    elif fault == "no library":
        library.write_bytes(b"\\x7fELF")
    elif fault == "absent":
        library.unlink()
    elif fault == "writable":
        library.chmod(0o757)
    elif fault == "writable folder":
        folder.chmod(0o777)
    told: list[MusterError] = []
    slot = _slot(build(1).ordering(TFLITE_VARIANT), tmp_path / "1")
    opened = _opener(told, litert_delegate=str(library)).open(slot, "litert")
    assert opened.accelerator == "cpu"
    assert opened.infer(SAMPLE)["probabilities"].shape == (1, 3)
    assert [error.code for error in told] == ["accelerator_failed"]


def test_the_last_accelerator_is_not_tested_here_but_before_the_trial(tmp_path: Path) -> None:
    bundle = build(1, golden_error=0.5)
    assert _opener([]).open(_slot(bundle, tmp_path / "1"), "onnxruntime").accelerator == "cpu"
    hosted = asyncio.run(load_bundle(bundle, tmp_path))
    with pytest.raises(SelfTestFailed):
        asyncio.run(hosted.self_test())
