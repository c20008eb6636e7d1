"""One training: from a registered dataset to a bundle in a folder.

The held-out part is drawn first and used for nothing but judging: accuracy, golden inputs and the reference
profile. The rest is the training part: ``training_share`` of it trains the estimator, and all of it
calibrates the quantization.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from importlib.metadata import version as version_of
from pathlib import Path

from converters.bundle import BUILD_STEPS, build_bundle
from converters.dataset import read_dataset, split_stratified
from converters.folder import write_bundle
from converters.gate import AccuracyGate
from converters.sklearn_source import export_pipeline
from fleet.protocol.manifest import Provenance
from hub.training.estimators import Settings, check_hyperparameters, fitted_pipeline, hyperparameters_of
from hub.training.job import Progress, TrainingJob, TrainingResult

STEPS = ("read", "train", "export", *BUILD_STEPS, "write")
LIBRARIES = ("numpy", "onnx", "onnxruntime", "scikit-learn", "skl2onnx")
"""The libraries that shape the result; their versions are part of the provenance."""


def train(job: TrainingJob, on_progress: Callable[[Progress], None]) -> TrainingResult:
    """Carry out a job.

    Args:
        job: What to train.
        on_progress: Called when a step begins.

    Raises:
        InvalidModel: The estimator or its hyperparameters cannot be used, or training diverged.
        NotFound: There is no dataset file.
        DigestMismatch: The dataset file is not the registered one.
        InvalidDataset: It is not a dataset.
        AccuracyTooLow: The model does not reach the demanded accuracy.
        ConversionFailed: The model cannot be exported or tested.
        Conflict: The output folder has contents.
        StorageError: The bundle cannot be written.
    """
    started_s = time.monotonic()

    def begin(step: str) -> None:
        on_progress(Progress(step, STEPS.index(step), len(STEPS)))

    begin("read")
    settings = check_hyperparameters(job.estimator, job.hyperparameters)
    dataset = read_dataset(Path(job.dataset_path), sha256=job.dataset_sha256)
    held_out, rest = split_stratified(dataset, share=job.held_out_share, seed=job.seed)
    training = rest
    if settings.training_share < 1.0:
        training = split_stratified(rest, share=settings.training_share, seed=job.seed).part

    begin("train")
    pipeline = fitted_pipeline(job.estimator, settings, training, job.seed)
    begin("export")
    fp32 = export_pipeline(pipeline, dataset.sample_shape, len(dataset.classes))
    build = build_bundle(
        fp32,
        model=job.model,
        version=job.version,
        held_out=held_out,
        calibration=rest.features,
        gate=AccuracyGate(job.minimum_accuracy, job.maximum_int8_drop),
        provenance=_provenance(job, settings),
        on_step=begin,
    )
    begin("write")
    write_bundle(Path(job.output_folder), build.bundle)
    return TrainingResult(
        manifest_sha256=build.bundle.sha256,
        variants=build.variants,
        training_samples=len(training),
        held_out_samples=len(held_out),
        duration_s=time.monotonic() - started_s,
    )


def _provenance(job: TrainingJob, settings: Settings) -> Provenance:
    return Provenance(
        dataset=job.dataset,
        dataset_sha256=job.dataset_sha256,
        estimator=job.estimator,
        hyperparameters={**hyperparameters_of(settings), "held_out_share": job.held_out_share},
        seed=job.seed,
        libraries={name: version_of(name) for name in LIBRARIES},
    )
