"""The real UCI handwritten digits, as a dataset and as a file: what converters and training are tested on."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.pipeline import Pipeline

from converters.convert import Conversion, convert
from converters.data.dataset import Dataset, checked_dataset, file_sha256, split_stratified, write_dataset
from converters.data.samples import samples_of
from converters.judging.gate import Gate
from converters.source import Source
from converters.sources.sklearn import open_sklearn
from converters.target import Work
from hub.training.estimators import check_hyperparameters, fitted_pipeline
from hub.training.job import TrainingJob

CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@cache
def digits() -> Dataset:
    """Return all 1,797 images, shape (8, 8), in an order that mixes writers."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.RandomState(0).permutation(len(labels))
    return checked_dataset(images.reshape(-1, 8, 8)[order], labels[order], CLASSES)


def registered_part() -> Dataset:
    """Return the 1,200 images that the hub may see."""
    return digits().take(np.arange(1200))


def field_part() -> Dataset:
    """Return the 597 images that only devices see."""
    return digits().take(np.arange(1200, 1797))


def flattened(dataset: Dataset) -> Dataset:
    """Return the dataset with each image as one row of numbers, as the cameras send them."""
    flat = np.ascontiguousarray(dataset.features.reshape(len(dataset), -1))
    return Dataset(flat, dataset.labels, dataset.classes)


def transposed(dataset: Dataset) -> Dataset:
    """Return the dataset with a fault that its own held-out part shares: all images are transposed."""
    return checked_dataset(dataset.features.transpose(0, 2, 1), dataset.labels, dataset.classes)


@cache
def training_and_held_out() -> tuple[Dataset, Dataset]:
    """Return the registered part in two, 900 and 300 images."""
    split = split_stratified(registered_part(), share=0.25, seed=0)
    return split.rest, split.part


@cache
def fitted_model(estimator: str = "mlp", scaler: str = "minmax", seed: int = 0) -> Pipeline:
    """Return a pipeline fitted on the training images, each as a row."""
    training, _ = training_and_held_out()
    settings = check_hyperparameters(estimator, {"scaler": scaler})
    return fitted_pipeline(estimator, settings, training, seed)


@cache
def digits_source(estimator: str = "mlp", scaler: str = "minmax", seed: int = 0) -> Source:
    """Return such a pipeline as a source, taking images of shape (8, 8)."""
    pipeline = fitted_model(estimator, scaler, seed)
    return open_sklearn(pipeline, name="digits", classes=CLASSES, sample_shape=(8, 8))


@cache
def digits_work(estimator: str = "mlp", scaler: str = "minmax", seed: int = 0) -> Work:
    """Return what targets build from: such a source, and the training images for calibration."""
    source = digits_source(estimator, scaler, seed)
    assert source.onnx is not None
    return Work(source.onnx, source.signature, {"input": training_and_held_out()[0].features})


def digits_conversion(source: Source | None = None, **changes: Any) -> Conversion:
    """Convert such a source as a training does.

    Args:
        source: The usual one if None.
        changes: Arguments of `convert` that are to differ.
    """
    training, held_out = training_and_held_out()
    arguments: dict[str, Any] = {
        "targets": ("onnx-fp32", "onnx-int8", "tflite-int8"),
        "samples": samples_of(training),
        "held_out": samples_of(held_out),
        "gate": Gate(maximum_drop=0.02, minimum=0.8),
    }
    return convert(source or digits_source(), **{**arguments, **changes})


def digits_job(folder: Path, dataset: Dataset | None = None, **changes: object) -> TrainingJob:
    """Write a dataset into the folder and return a job on it.

    Args:
        folder: Also holds the output.
        dataset: The digits of `registered_part` if None.
        changes: Fields of the job that are to differ.
    """
    path = folder / "digits.npz"
    write_dataset(path, dataset or registered_part())
    fields: dict[str, Any] = {
        "dataset_path": str(path),
        "dataset": "digits",
        "dataset_sha256": file_sha256(path),
        "model": "meter-digits",
        "version": 1,
        "estimator": "logistic",
        "hyperparameters": {},
        "seed": 7,
        "minimum_accuracy": 0.8,
        "maximum_drop": 0.02,
        "output_folder": str(folder / "bundle"),
    }
    return TrainingJob(**{**fields, **changes})
