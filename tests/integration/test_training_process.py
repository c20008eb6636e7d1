"""The training process: how it speaks, and that it neither outlives its hub nor takes it along."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from converters.data.dataset import Dataset
from fleet.protocol.errors import ModelError, Unavailable, all_errors
from hub import children
from hub.jobs.runner import rebuilt
from hub.training import runner
from hub.training.job import TrainingJob, TrainingResult
from hub.training.runner import run_training
from hub.training.train import STEPS
from tests.support.digits import digits_job
from tests.support.processes import children as children_of
from tests.support.processes import is_alive
from tests.support.waiting import eventually

DEADLINE_S = 30.0


def _worker(stdin: bytes) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        children.command(runner.WORKER),
        input=stdin,
        capture_output=True,
        env=children.environment(),
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    "stdin", [b"", b"{}", b"nonsense", b"\xff\xfe", b"[" * 100_000, b'{"dataset_path": 1}', b" " * 1_048_577]
)
def test_a_job_that_cannot_be_understood_is_one_error_line_and_no_traceback(stdin: bytes) -> None:
    done = _worker(stdin)
    assert done.returncode == 1
    assert done.stderr == b""
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["error"]["code"] == "invalid_input"


def test_the_worker_speaks_json_lines(tmp_path: Path) -> None:
    done = _worker(msgspec.json.encode(digits_job(tmp_path)))
    assert done.returncode == 0
    *progress, last = map(json.loads, done.stdout.splitlines())
    assert [line["step"] for line in progress] == list(STEPS)
    assert set(last) == {"result"}


def test_the_worker_loads_no_numpy_before_it_has_set_its_threads() -> None:
    code = "import sys, hub.training.worker; sys.exit('numpy' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], env=children.environment(), check=True, timeout=60)


def _long_job(folder: Path) -> TrainingJob:
    """Return a job that takes minutes."""
    rng = np.random.RandomState(0)
    labels = np.arange(20_000) % 10
    noise = Dataset(
        rng.uniform(size=(20_000, 64)).astype(np.float32), labels, tuple(f"c{i}" for i in range(10))
    )
    return digits_job(
        folder,
        noise,
        estimator="mlp",
        hyperparameters={"hidden": 2048, "layers": 4, "max_iterations": 10_000},
        minimum_accuracy=0.0,
    )


async def _training_started(job: TrainingJob) -> tuple[asyncio.Task[TrainingResult], int]:
    """Start a training and wait until it trains; return its task and process id."""
    training, before = asyncio.Event(), children_of(os.getpid())
    task = asyncio.create_task(run_training(job, lambda p: training.set() if p.step == "train" else None))
    await asyncio.wait_for(training.wait(), DEADLINE_S)
    (process_id,) = children_of(os.getpid()) - before
    return task, process_id


def test_cancelling_kills_the_training_process(tmp_path: Path) -> None:
    async def cancel() -> int:
        task, process_id = await _training_started(_long_job(tmp_path))
        assert is_alive(process_id)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return process_id

    assert not is_alive(asyncio.run(cancel()))


def test_a_training_process_that_is_killed_is_a_typed_error(tmp_path: Path) -> None:
    async def kill() -> None:
        task, process_id = await _training_started(_long_job(tmp_path))
        os.kill(process_id, signal.SIGKILL)
        with pytest.raises(ModelError, match="SIGKILL"):
            await task

    asyncio.run(kill())
    assert not (tmp_path / "bundle").exists()


def test_a_training_process_ends_when_its_hub_is_killed(tmp_path: Path) -> None:
    job = _long_job(tmp_path)
    (tmp_path / "job.json").write_bytes(msgspec.json.encode(job))
    code = (
        "import asyncio, pathlib, sys, msgspec\n"
        "from hub.training.job import TrainingJob\n"
        "from hub.training.runner import run_training\n"
        "data = pathlib.Path(sys.argv[1]).read_bytes()\n"
        "job = msgspec.json.decode(data, type=TrainingJob)\n"
        "asyncio.run(run_training(job, lambda p: print(p.step, flush=True)))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "job.json")],
        stdout=subprocess.PIPE,
        env=children.environment(),
    ) as hub:
        assert hub.stdout is not None
        while hub.stdout.readline().strip() != b"train":
            assert hub.poll() is None
        (process_id,) = children_of(hub.pid)
        hub.kill()
    eventually(lambda: not is_alive(process_id), "the training has ended with its hub")


def test_every_error_of_the_tree_survives_the_way_back() -> None:
    for error in all_errors():
        again = rebuilt(error("It broke.", remedy="Mend it.").cause())
        assert type(again) is error
        assert str(again) == "It broke. Mend it."


def test_a_process_that_cannot_be_started_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    with pytest.raises(Unavailable):
        asyncio.run(run_training(digits_job(tmp_path)))


def test_a_process_that_is_no_worker_is_a_typed_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("this", "hub.training.job", "hub.no_such_module"):  # speaks verse, says nothing, fails
        monkeypatch.setattr(runner, "WORKER", module)
        with pytest.raises(ModelError):
            asyncio.run(run_training(digits_job(tmp_path)))
