"""One training: from a registered dataset to a bundle in a folder.

The held-out part is drawn first and used for nothing but judging: accuracy, golden inputs and the reference
profile. The rest is the training part: ``training_share`` of it trains the estimator, and all of it
calibrates the quantization.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from converters.bundles.bundle import Bundle, Identity
from converters.bundles.folder import write_bundle
from converters.convert import Conversion, conversion_steps, convert
from converters.data.dataset import read_dataset, split_stratified
from converters.data.samples import samples_of
from converters.judging.gate import Gate
from converters.report import libraries_of
from converters.sources.sklearn import open_sklearn
from fleet.protocol.errors import ConversionFailed
from fleet.protocol.manifest import Provenance
from hub.jobs.lines import Progress
from hub.training.estimators import Settings, check_hyperparameters, fitted_pipeline, hyperparameters_of
from hub.training.job import TrainingJob, TrainingResult

TARGETS = ("onnx-fp32", "onnx-int8", "tflite-fp32", "tflite-int8")
"""What devices of every runtime can run; the smallest that a device runs is sent to it."""

STEPS = ("read", "train", "export", *conversion_steps(TARGETS), "write")


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
        InvalidInput: There is no such layer as its embedding.
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
    source = open_sklearn(
        pipeline, name=job.model, classes=dataset.classes, sample_shape=dataset.sample_shape
    )
    conversion = convert(
        source,
        targets=TARGETS,
        samples=samples_of(rest),
        held_out=samples_of(held_out),
        gate=Gate(job.maximum_drop, job.minimum_accuracy),
        seed=job.seed,
        embedding=job.embedding,
        identity=Identity(job.model, job.version, _provenance(job, settings, libraries_of(source))),
        on_step=lambda step, _done, _of: begin(step),
    )
    bundle = _bundle(conversion)
    begin("write")
    write_bundle(Path(job.output_folder), bundle)
    return TrainingResult(
        manifest_sha256=bundle.sha256,
        variants=conversion.report.variants,
        training_samples=len(training),
        held_out_samples=len(held_out),
        duration_s=time.monotonic() - started_s,
    )


def _bundle(conversion: Conversion) -> Bundle:
    if conversion.bundle is None:
        reasons = " ".join(f"{each.name}: {each.reason}" for each in conversion.report.variants)
        raise ConversionFailed(f"No variant of the model is sound. {reasons}")
    return conversion.bundle


def _provenance(job: TrainingJob, settings: Settings, libraries: dict[str, str]) -> Provenance:
    return Provenance(
        dataset=job.dataset,
        dataset_sha256=job.dataset_sha256,
        estimator=job.estimator,
        hyperparameters={**hyperparameters_of(settings), "held_out_share": job.held_out_share},
        seed=job.seed,
        libraries=libraries,
    )
