"""Classifiers and inputs that get harder by degrees, for the benchmark of quality.

==============  ==========================================================================================
task            inputs get harder by
==============  ==========================================================================================
Gaussians       more of them near where classes meet; what is right for an input stays as it was
digits, noise   random noise on each pixel
digits, veil    the demo's film of dirt on the lens, mixed in by degrees
==============  ==========================================================================================

The first is what estimates without labels are made for (covariate shift); in the others, confidence means
something else once inputs are unlike any before, as it happens in the field.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hub.demo.images import WHITE, load_digits, through_dirty_lens

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
Generator = np.random.Generator

GRADES = (0.0, 0.25, 0.5, 0.75, 1.0)
HELD_OUT = 400
CURRENT = 600
_TRAINING = 600
_CENTRES = np.array([[0.0, 1.2], [1.1, -0.6], [-1.1, -0.6]])
_NEARER = 3.0


class Case(NamedTuple):
    """One classifier of one seed, and its answers at every grade.

    Attributes:
        task: See the head of this file.
        model: What was trained.
        inputs: Of the held-out samples, shape (N, …).
        answers: To them, shape (N, C).
        labels: Of them, shape (N,).
        current: For each of `GRADES` the answers to current inputs, shape (M, C), and what was right.
    """

    task: str
    model: str
    inputs: Floats
    answers: Floats
    labels: Labels
    current: tuple[tuple[Floats, Labels], ...]


def cases(seeds: int) -> Iterator[Case]:
    """Yield every case of so many seeds."""
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        yield _gaussians(rng)
        yield from _digits(rng, seed)


def _gaussians(rng: Generator) -> Case:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression().fit(*_drawn(rng, _TRAINING))
    inputs, labels = _drawn(rng, HELD_OUT)
    current = []
    for grade in GRADES:
        many, truth = _drawn(rng, 20 * CURRENT)
        ordered = np.sort(_chances(many), axis=1)
        weight = np.exp(-_NEARER * grade * (ordered[:, -1] - ordered[:, -2]))
        chosen = rng.choice(len(many), CURRENT, replace=False, p=weight / weight.sum())
        current.append((model.predict_proba(many[chosen]), truth[chosen]))
    return Case("Gaussians", "logistic", inputs, model.predict_proba(inputs), labels, tuple(current))


def _drawn(rng: Generator, number: int) -> tuple[Floats, Labels]:
    labels = rng.integers(0, len(_CENTRES), number)
    return _CENTRES[labels] + rng.normal(size=(number, 2)), labels


def _chances(inputs: Floats) -> Floats:
    """Return the true chance of each class, shape (N, C)."""
    logits = -0.5 * np.square(inputs[:, None, :] - _CENTRES[None]).sum(axis=2)
    likelihood = np.exp(logits - logits.max(axis=1, keepdims=True))
    chances: Floats = likelihood / likelihood.sum(axis=1, keepdims=True)
    return chances


def _digits(rng: Generator, seed: int) -> Iterator[Case]:
    from sklearn.exceptions import ConvergenceWarning

    digits = load_digits(seed)
    everything = np.concatenate([digits.registered.features, digits.field.features]).astype(np.float64)
    truth = np.concatenate([digits.registered.labels, digits.field.labels])
    mixed = rng.permutation(len(truth))
    training, held_out, field = np.split(mixed, [_TRAINING, _TRAINING + HELD_OUT])
    field = field[:CURRENT]
    inputs, labels = everything[held_out], truth[held_out]
    for name, model in _models(seed):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # stopping early is what is asked for
            model.fit(everything[training] / WHITE, truth[training])
        answers = model.predict_proba(inputs / WHITE)
        for task, harder in (("digits, noise", _noisy), ("digits, veil", _veiled)):
            current = tuple(
                (model.predict_proba(harder(rng, everything[field], grade) / WHITE), truth[field])
                for grade in GRADES
            )
            yield Case(task, name, inputs, answers, labels, current)


def _models(seed: int) -> Iterator[tuple[str, Any]]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier

    yield "logistic", LogisticRegression(max_iter=300)
    yield "MLP", MLPClassifier((64,), max_iter=150, random_state=seed)


def _noisy(rng: Generator, images: Floats, grade: float) -> Floats:
    noisy: Floats = np.clip(images + rng.normal(0.0, 0.4 * WHITE * grade, images.shape), 0.0, WHITE)
    return noisy


def _veiled(_: Generator, images: Floats, grade: float) -> Floats:
    dirty = through_dirty_lens(images.astype(np.float32)).astype(np.float64)
    veiled: Floats = (1.0 - 0.7 * grade) * images + 0.7 * grade * dirty
    return veiled
