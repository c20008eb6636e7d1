"""How good answers are: one number for each task, 1 at best.

The number is taken against the truth where the samples carry it (labels, targets; of a reconstruction the
input itself), and against the source's own answers where they do not. See `fleet.protocol.manifest.Metric`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.data.samples import Inputs, Samples
from fleet.protocol.errors import InvalidDataset
from fleet.protocol.manifest import Evaluation, Metric, Signature


def choices(task: str, answers: NDArray[Any]) -> NDArray[np.int64] | None:
    """Return the class or cluster that each answer names, shape (N,); None where the task names none.

    Args:
        task: See `fleet.protocol.manifest.Task`.
        answers: Shape (N, C).
    """
    if task == "classification":
        return np.asarray(answers.argmax(axis=1), dtype=np.int64)
    if task == "clustering":
        return np.asarray(answers.argmin(axis=1), dtype=np.int64)
    return None


def strangeness(task: str, answers: NDArray[Any], inputs: Inputs) -> NDArray[np.float64] | None:
    """Return how strange each sample is, shape (N,), greater being stranger; None for other tasks.

    Args:
        task: See `fleet.protocol.manifest.Task`.
        answers: Shape (N, …).
        inputs: What was answered; a reconstruction is compared with the first.
    """
    if task == "anomaly":
        return -answers.reshape(len(answers), -1)[:, 0].astype(np.float64)
    if task == "reconstruction":
        given = next(iter(inputs.values())).reshape(len(answers), -1).astype(np.float64)
        return np.asarray(np.square(given - answers.reshape(len(answers), -1)).mean(axis=1))
    return None


def evaluate(
    signature: Signature,
    answers: NDArray[Any],
    *,
    samples: Samples,
    inputs: Inputs,
    source_answers: NDArray[Any],
) -> Evaluation:
    """Judge answers.

    Args:
        signature: Says what the model is for.
        answers: Shape (N, …).
        samples: N samples, with what is known of the truth.
        inputs: The same samples as the model takes them.
        source_answers: What the source answers to them, the shape of ``answers``.

    Raises:
        InvalidDataset: The truth does not suit the model, or cannot tell good answers from bad ones.
    """
    metric, value = _measured(signature, answers, samples, inputs, source_answers)
    return Evaluation(metric=metric, value=value, samples=len(samples))


def _measured(
    signature: Signature,
    answers: NDArray[Any],
    samples: Samples,
    inputs: Inputs,
    source_answers: NDArray[Any],
) -> tuple[Metric, float]:
    task = signature.task
    chosen = choices(task, answers)
    if task == "classification" and samples.labels is not None:
        if samples.labels.max() >= answers.shape[1]:
            raise InvalidDataset(
                f"The dataset has label {samples.labels.max()}; the model knows {answers.shape[1]} classes."
            )
        return "accuracy", float(np.mean(chosen == samples.labels))
    if chosen is not None:
        return "agreement", float(np.mean(chosen == choices(task, source_answers)))
    strange = strangeness(task, answers, inputs)
    if strange is not None and samples.labels is not None:
        return "auroc", _auroc(strange, samples.labels)
    if task == "regression" and samples.targets is not None:
        return "r2", mean_r2(answers, samples.targets)
    if task == "reconstruction":
        return "r2", _pooled_r2(answers, next(iter(inputs.values())))
    return "r2", mean_r2(answers, source_answers)


def _auroc(strange: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Return the area by ranks: U / (n₁·n₀), ties counting half (Hanley and McNeil 1982).

    scikit-learn has it too, and takes longer to import than most conversions take.
    """
    if set(np.unique(labels)) != {0, 1}:
        raise InvalidDataset(
            "To judge anomalies, labels must be 0 (normal) and 1 (anomaly), and both must occur.",
            remedy="Leave the labels out to judge by the source's own answers.",
        )
    _, inverse, counts = np.unique(strange, return_inverse=True, return_counts=True)
    mean_ranks = np.cumsum(counts) - (counts - 1) / 2
    anomalies = labels == 1
    positive, negative = int(anomalies.sum()), int((~anomalies).sum())
    statistic = float(mean_ranks[inverse][anomalies].sum()) - positive * (positive + 1) / 2
    return statistic / (positive * negative)


def mean_r2(answers: NDArray[Any], truth: NDArray[Any]) -> float:
    """Return the coefficient of determination, the mean over the values of an answer that vary.

    Each value counts alike, so that one on a large scale does not hide what happens to one on a small scale.

    Args:
        answers: Shape (N, …).
        truth: As many values a sample.

    Raises:
        InvalidDataset: There are not as many, or none varies.
    """
    errors, spreads = _squares(answers, truth)
    varying = spreads > 0.0
    return float(np.mean(1.0 - errors[varying] / spreads[varying]))


def _pooled_r2(answers: NDArray[Any], truth: NDArray[Any]) -> float:
    """Return it over all elements at once: those of an image are of one kind, and some hardly vary."""
    errors, spreads = _squares(answers, truth)
    return 1.0 - float(errors.sum() / spreads.sum())


def _squares(answers: NDArray[Any], truth: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return, for each value, the sums of squares of its errors, and of the truth about its mean."""
    wanted = truth.reshape(len(truth), -1).astype(np.float64)
    given = answers.reshape(len(answers), -1).astype(np.float64)
    if wanted.shape != given.shape:
        raise InvalidDataset(
            f"The dataset has {wanted.shape[1]} targets a sample; the model gives {given.shape[1]} values."
        )
    spreads = np.square(wanted - wanted.mean(axis=0)).sum(axis=0)
    if not spreads.any():
        raise InvalidDataset(
            "All samples have the same truth, so they cannot tell good answers from bad ones."
        )
    return np.square(wanted - given).sum(axis=0), spreads
