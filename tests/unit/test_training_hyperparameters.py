"""Hyperparameters: typed, bounded, and refused with a remedy that names what is allowed."""

from __future__ import annotations

from typing import Any

import pytest

from fleet.protocol.errors import InvalidModel
from hub.training.estimators import ESTIMATORS, check_hyperparameters, hyperparameters_of


@pytest.mark.parametrize("estimator", list(ESTIMATORS))
def test_the_defaults_are_recorded_and_mean_the_same_when_given(estimator: str) -> None:
    settings = check_hyperparameters(estimator, {})
    assert check_hyperparameters(estimator, hyperparameters_of(settings)) == settings


def test_a_whole_number_does_for_a_share() -> None:
    assert check_hyperparameters("logistic", {"training_share": 1}).training_share == 1.0


@pytest.mark.parametrize(
    ("estimator", "hyperparameters"),
    [
        ("mlp", {"hidden": 0}),
        ("mlp", {"hidden": True}),
        ("mlp", {"hidden": 1.5}),
        ("mlp", {"layers": 5}),
        ("mlp", {"learning_rate": float("nan")}),
        ("mlp", {"regularization": float("inf")}),
        ("mlp", {"scaler": "robust"}),
        ("logistic", {"training_share": 1.01}),
        ("logistic", {"max_iterations": "many"}),
    ],
)
def test_the_remedy_for_a_bad_hyperparameter_names_the_range(
    estimator: str, hyperparameters: dict[str, Any]
) -> None:
    with pytest.raises(InvalidModel) as refused:
        check_hyperparameters(estimator, hyperparameters)
    assert f"{next(iter(hyperparameters))} (" in refused.value.remedy


def test_unknown_estimators_and_hyperparameters_are_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidModel, match="logistic, mlp"):
        check_hyperparameters("forest", {})
    with pytest.raises(InvalidModel, match="max_iterations"):
        check_hyperparameters("logistic", {"iterations": 3})
