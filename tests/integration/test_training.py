"""Training as the hub runs it: a real process from a dataset file to a bundle, and every way it can fail."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.bundles.bundle import Bundle
from converters.bundles.folder import read_bundle
from converters.data.dataset import Dataset
from converters.judging.variant import answer
from converters.report import LIBRARIES
from converters.targets import TARGETS
from fleet.protocol.errors import (
    AccuracyTooLow,
    Conflict,
    DigestMismatch,
    InvalidDataset,
    InvalidInput,
    InvalidModel,
    MusterError,
    NotFound,
    StorageError,
)
from hub.jobs.lines import Progress
from hub.training.job import TrainingJob, TrainingResult
from hub.training.runner import run_training
from hub.training.train import STEPS
from hub.training.train import TARGETS as TRAINED
from tests.support.digits import digits_job, field_part, registered_part, transposed
from tests.support.processes import waited_for_processor_s

WEAK = {"training_share": 0.08}
GOOD = {"hidden": 256, "max_iterations": 120}
DEADLINE_S = 30.0


def _run(job: TrainingJob) -> tuple[TrainingResult, Bundle]:
    result = asyncio.run(run_training(job))
    return result, read_bundle(Path(job.output_folder), result.manifest_sha256)


@pytest.fixture(scope="module")
def weak(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainingJob, TrainingResult, Bundle]:
    """A weak version: its job, what the training said, and the bundle."""
    job = digits_job(tmp_path_factory.mktemp("weak"), hyperparameters=WEAK, version=4)
    return job, *_run(job)


def _field_accuracy(bundle: Bundle, field: Dataset) -> float:
    preferred = bundle.manifest.variants[0]
    model = bundle.blobs[preferred.model_file.sha256]
    session = TARGETS[preferred.name].runtime.open(model, bundle.manifest.signature)
    answers = answer(session, {"input": field.features})
    return float((answers.argmax(axis=1) == field.labels).mean())


def test_a_weak_version(weak: tuple[TrainingJob, TrainingResult, Bundle]) -> None:
    _, result, bundle = weak
    assert result.training_samples < 80
    assert result.held_out_samples == 300
    assert [(v.name, v.packed) for v in result.variants] == [(name, True) for name in TRAINED]
    for variant in bundle.manifest.variants:
        assert 0.82 <= variant.evaluation.value <= 0.93
    assert 0.80 <= _field_accuracy(bundle, field_part()) <= 0.93


def test_a_good_version(tmp_path: Path) -> None:
    job = digits_job(
        tmp_path, estimator="mlp", hyperparameters=GOOD, minimum_accuracy=0.94, embedding="auto:2"
    )
    result, bundle = _run(job)
    assert result.training_samples == 900
    for variant in result.variants:
        assert variant.evaluation is not None
        assert variant.evaluation.value >= 0.94  # of 300 samples: the standard error is 0.01
        assert variant.drop is not None
        assert variant.drop <= 0.02
    assert _field_accuracy(bundle, field_part()) >= 0.96
    assert {variant.precision for variant in bundle.manifest.variants[:2]} == {"int8"}
    assert result.duration_s < DEADLINE_S
    assert bundle.manifest.provenance.hyperparameters["embedding"] == "auto:2"
    profiled = [feature.name for feature in bundle.manifest.reference.features]
    assert profiled[-2:] == ["embedding.0", "embedding.1"]


def test_a_version_trained_on_wrongly_preprocessed_images_passes_the_hub_and_fails_in_the_field(
    tmp_path: Path,
) -> None:
    job = digits_job(
        tmp_path, transposed(registered_part()), estimator="mlp", hyperparameters=GOOD, minimum_accuracy=0.93
    )
    result, bundle = _run(job)
    assert all(variant.packed for variant in result.variants)
    assert _field_accuracy(bundle, field_part()) < 0.3
    assert _field_accuracy(bundle, transposed(field_part())) > 0.9


def test_provenance_says_everything_that_determined_the_version(
    weak: tuple[TrainingJob, TrainingResult, Bundle],
) -> None:
    job, _, bundle = weak
    provenance = bundle.manifest.provenance
    assert (bundle.manifest.model, bundle.manifest.version) == (job.model, 4)
    assert (provenance.dataset, provenance.dataset_sha256) == (job.dataset, job.dataset_sha256)
    assert (provenance.estimator, provenance.seed) == ("logistic", job.seed)
    assert provenance.hyperparameters == {
        "max_iterations": 200,
        "regularization": 1.0,
        "scaler": "minmax",
        "training_share": 0.08,
        "held_out_share": 0.25,
    }
    assert set(provenance.libraries) == {*LIBRARIES, "scikit-learn", "skl2onnx"}


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_two_processes_make_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = []
    for number, hash_seed in enumerate(["1", "2"]):
        monkeypatch.setenv("PYTHONHASHSEED", hash_seed)
        monkeypatch.setenv("OMP_NUM_THREADS", hash_seed)
        job = digits_job(tmp_path, estimator="mlp", output_folder=str(tmp_path / str(number)))
        _run(job)
        outputs.append(_files(tmp_path / str(number)))
    assert outputs[0] == outputs[1]
    assert len(outputs[0]) == 10  # manifest, golden inputs, four models, four golden outputs
    other = digits_job(tmp_path, estimator="mlp", output_folder=str(tmp_path / "other"), seed=8)
    _run(other)
    assert _files(tmp_path / "other").keys() != outputs[0].keys()


def test_progress_names_every_step_while_the_event_loop_stays_free(tmp_path: Path) -> None:
    seen: list[Progress] = []

    async def train() -> tuple[float, TrainingResult]:
        longest_gap_s, stopped = 0.0, asyncio.Event()

        def clock() -> float:
            return time.monotonic() - waited_for_processor_s(os.getpid())  # that is not the loop's doing

        async def heartbeat() -> None:
            nonlocal longest_gap_s
            last = clock()
            while not stopped.is_set():
                await asyncio.sleep(0.01)
                longest_gap_s = max(longest_gap_s, clock() - last)
                last = clock()

        beat = asyncio.create_task(heartbeat())
        result = await run_training(digits_job(tmp_path), seen.append)
        stopped.set()
        await beat
        return longest_gap_s, result

    longest_gap_s, result = asyncio.run(train())
    assert [progress.step for progress in seen] == list(STEPS)
    assert [(p.done, p.of) for p in seen] == [(i, len(STEPS)) for i in range(len(STEPS))]
    assert longest_gap_s < result.duration_s / 2


def _truncated(job: TrainingJob) -> None:
    path = Path(job.dataset_path)
    path.write_bytes(path.read_bytes()[:-100])


def _occupied(job: TrainingJob) -> None:
    Path(job.output_folder).mkdir()
    (Path(job.output_folder) / "mine.txt").write_text("mine")


def _removed(job: TrainingJob) -> None:
    Path(job.dataset_path).unlink()


def _untouched(_: TrainingJob) -> None:
    pass


@pytest.mark.parametrize(
    ("changes", "prepare", "error"),
    [
        ({"minimum_accuracy": 0.999}, _untouched, AccuracyTooLow),
        ({}, _truncated, DigestMismatch),
        ({}, _removed, NotFound),
        ({}, _occupied, Conflict),
        ({"estimator": "oracle"}, _untouched, InvalidModel),
        ({"hyperparameters": {"hidden": 64}}, _untouched, InvalidModel),
        ({"hyperparameters": {"training_share": 0.0}}, _untouched, InvalidModel),
        ({"model": "../escape"}, _untouched, InvalidInput),
        ({"version": 0}, _untouched, InvalidInput),
        ({"seed": -1}, _untouched, InvalidInput),
        ({"minimum_accuracy": float("nan")}, _untouched, InvalidInput),
        ({"held_out_share": 0.9}, _untouched, InvalidInput),
        ({"embedding": "nothing"}, _untouched, InvalidInput),
    ],
)
def test_what_goes_wrong_is_raised_in_its_own_class_and_leaves_no_bundle(
    tmp_path: Path,
    changes: dict[str, Any],
    prepare: Callable[[TrainingJob], None],
    error: type[MusterError],
) -> None:
    job = digits_job(tmp_path, **changes)
    prepare(job)
    with pytest.raises(error) as raised:
        asyncio.run(run_training(job))
    assert type(raised.value) is error
    assert raised.value.message
    assert not (Path(job.output_folder) / "manifest.json").exists()


def test_a_corrupt_dataset_that_has_its_registered_digest_is_invalid(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "bad.npz", features=np.full((20, 4), np.nan), labels=np.arange(20) % 2, classes=["a", "b"]
    )
    digest = hashlib.sha256((tmp_path / "bad.npz").read_bytes()).hexdigest()
    job = digits_job(tmp_path, dataset_path=str(tmp_path / "bad.npz"), dataset_sha256=digest)
    with pytest.raises(InvalidDataset, match="not finite"):
        asyncio.run(run_training(job))


def test_training_that_cannot_write_its_bundle_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError):
        asyncio.run(run_training(digits_job(tmp_path, output_folder=str(tmp_path / "file" / "out"))))
