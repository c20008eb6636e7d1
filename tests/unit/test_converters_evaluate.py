"""The metric of each task: what it is taken against, and what it gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from converters.data.samples import FEATURES, Samples
from converters.judging.evaluate import evaluate
from fleet.protocol.errors import InvalidDataset
from fleet.protocol.manifest import Evaluation, Signature, Task, Tensor

INPUTS = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 2.0], [3.0, 5.0]], dtype=np.float32)
SCORES = np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.7, 0.3]], dtype=np.float32)


def _evaluated(
    task: Task, answers: NDArray[Any], source: NDArray[Any] | None = None, **truth: Any
) -> Evaluation:
    width = answers.shape[1]
    signature = Signature(
        (Tensor("x", "float32", (-1, 2)),), (Tensor("y", "float32", (-1, width)),), task=task
    )
    return evaluate(
        signature,
        answers,
        samples=Samples({FEATURES: INPUTS}, **truth),
        inputs={"x": INPUTS},
        source_answers=answers if source is None else source,
    )


def test_a_classification_is_judged_by_its_labels() -> None:
    evaluation = _evaluated("classification", SCORES, labels=np.array([0, 1, 0, 0]))
    assert evaluation == Evaluation("accuracy", 0.75, 4)


def test_without_labels_it_is_judged_by_the_source() -> None:
    swapped = SCORES[:, ::-1].copy()
    swapped[0] = SCORES[0]
    assert _evaluated("classification", swapped, SCORES) == Evaluation("agreement", 0.25, 4)


def test_the_least_distance_names_the_cluster() -> None:
    one = np.array([[1.0, 2.0], [2.0, 1.0], [1.0, 2.0], [1.0, 2.0]])
    other = np.array([[9.0, 9.5], [9.0, 9.5], [9.0, 9.5], [9.5, 9.0]])
    assert _evaluated("clustering", one, other) == Evaluation("agreement", 0.5, 4)


def test_a_regression_is_judged_by_its_targets_or_by_the_source() -> None:
    targets = np.array([[1.0], [2.0], [3.0], [4.0]], dtype=np.float32)
    answers = targets + np.array([[0.5], [-0.5], [0.5], [-0.5]], dtype=np.float32)
    assert _evaluated("regression", answers, targets=targets).value == pytest.approx(1 - 1.0 / 5.0)
    assert _evaluated("regression", answers) == Evaluation("r2", 1.0, 4)
    assert _evaluated("regression", answers, source=targets).value == pytest.approx(0.8)


def test_a_target_on_a_large_scale_does_not_hide_one_on_a_small_scale() -> None:
    targets = np.array([[1000.0, 0.1], [2000.0, 0.2], [3000.0, 0.3], [4000.0, 0.4]], dtype=np.float32)
    answers = targets.copy()
    answers[:, 1] = [0.4, 0.1, 0.3, 0.2]
    column = 1 - np.square(answers[:, 1] - targets[:, 1]).sum() / np.square(targets[:, 1] - 0.25).sum()
    assert _evaluated("regression", answers, targets=targets).value == pytest.approx(
        (1 + column) / 2, abs=1e-5
    )
    targets[:, 1] = 0.5  # a value that never varies tells nothing
    assert _evaluated("regression", answers, targets=targets).value == 1.0


def test_low_scores_are_strange() -> None:
    scores = np.array([[0.1], [0.2], [-0.5], [0.15]])
    perfect = _evaluated("anomaly", scores, labels=np.array([0, 0, 1, 0]))
    assert perfect == Evaluation("auroc", 1.0, 4)
    assert _evaluated("anomaly", -scores, labels=np.array([0, 0, 1, 0])).value == 0.0


@pytest.mark.parametrize("seed", range(5))
def test_the_area_is_that_of_scikit_learn_with_ties_and_without(seed: int) -> None:
    random = np.random.RandomState(seed)
    labels = random.permutation([0, 1] * 2)
    for scores in (random.normal(size=(4, 1)), random.randint(0, 2, size=(4, 1)).astype(float)):
        expected = roc_auc_score(labels, -scores[:, 0])
        assert _evaluated("anomaly", scores, labels=labels).value == pytest.approx(expected)


def test_a_reconstruction_is_judged_by_its_error_or_by_the_input() -> None:
    answers = INPUTS.copy()
    answers[2] += 1.0
    assert _evaluated("reconstruction", answers, labels=np.array([0, 0, 1, 0])).value == 1.0
    spread = np.square(INPUTS - INPUTS.mean(axis=0)).sum()
    assert _evaluated("reconstruction", answers).value == pytest.approx(1 - 2.0 / spread)


@pytest.mark.parametrize(
    ("task", "answers", "truth"),
    [
        ("classification", SCORES, {"labels": np.array([0, 1, 2, 0])}),
        ("anomaly", SCORES[:, :1], {"labels": np.array([0, 0, 0, 0])}),
        ("anomaly", SCORES[:, :1], {"labels": np.array([0, 1, 2, 0])}),
        ("regression", SCORES, {"targets": np.zeros((4, 1), dtype=np.float32)}),
        ("regression", SCORES[:, :1], {"targets": np.ones((4, 1), dtype=np.float32)}),
    ],
)
def test_truth_that_cannot_judge_is_refused(task: Task, answers: NDArray[Any], truth: dict[str, Any]) -> None:
    with pytest.raises(InvalidDataset):
        _evaluated(task, answers, **truth)
