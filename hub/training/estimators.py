"""The estimators that can be trained, by name, each with typed and bounded hyperparameters.

============  =======================================  ==================================================
name          scikit-learn class                       good for
============  =======================================  ==================================================
``logistic``  ``linear_model.LogisticRegression``      a small, quick baseline
``mlp``       ``neural_network.MLPClassifier`` (Adam)  images and sensor features on small devices
============  =======================================  ==================================================

Before each stands a scaler, which becomes part of the exported model. Training stops at ``max_iterations`` if
it has not converged before. That is a setting like any other, so scikit-learn's ConvergenceWarning is turned
off: what counts is the accuracy on held-out samples, and the accuracy gate judges that.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import msgspec

from fleet.protocol.errors import InvalidModel

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

    from converters.data.dataset import Dataset

Hyperparameter = int | float | str | bool
Iterations = Annotated[int, msgspec.Meta(ge=1, le=10_000)]
TrainingShare = Annotated[float, msgspec.Meta(gt=0.0, le=1.0)]
Scaler = Literal["minmax", "standard"]


class LogisticSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Hyperparameters of ``logistic``.

    Attributes:
        max_iterations: Of the L-BFGS solver.
        regularization: Strength of the L2 penalty; scikit-learn's ``1 / C``.
        training_share: Share of the training samples to use, from every class alike.
        scaler: Map features to 0…1, or to mean 0 and standard deviation 1.
    """

    max_iterations: Iterations = 200
    regularization: Annotated[float, msgspec.Meta(ge=1e-6, le=1e6)] = 1.0
    training_share: TrainingShare = 1.0
    scaler: Scaler = "minmax"


class MlpSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Hyperparameters of ``mlp``.

    Attributes:
        hidden: Units of each hidden layer.
        layers: Number of hidden layers.
        max_iterations: Passes over the training samples.
        learning_rate: Step size of Adam.
        regularization: Strength of the L2 penalty; scikit-learn's ``alpha``.
        training_share: Share of the training samples to use, from every class alike.
        scaler: Map features to 0…1, or to mean 0 and standard deviation 1.
    """

    hidden: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 64
    layers: Annotated[int, msgspec.Meta(ge=1, le=4)] = 1
    max_iterations: Iterations = 80
    learning_rate: Annotated[float, msgspec.Meta(ge=1e-6, le=1.0)] = 1e-3
    regularization: Annotated[float, msgspec.Meta(ge=0.0, le=10.0)] = 1e-4
    training_share: TrainingShare = 1.0
    scaler: Scaler = "minmax"


Settings = LogisticSettings | MlpSettings


class Estimator(NamedTuple):
    """What can be trained.

    Attributes:
        settings: The type of its hyperparameters.
        classifier: Makes the unfitted classifier from settings and seed.
    """

    settings: type[Settings]
    classifier: Callable[[Any, int], Any]


def check_hyperparameters(estimator: str, hyperparameters: Mapping[str, Hyperparameter]) -> Settings:
    """Return the estimator's settings, with defaults where nothing is said.

    Args:
        estimator: Its name.
        hyperparameters: By name.

    Raises:
        InvalidModel: There is no such estimator or hyperparameter, or a value is out of its range.
    """
    if estimator not in ESTIMATORS:
        raise InvalidModel(
            f"There is no estimator {estimator!r:.80}.", remedy=f"Use one of: {', '.join(ESTIMATORS)}."
        )
    kind = ESTIMATORS[estimator].settings
    try:
        return msgspec.convert(dict(hyperparameters), type=kind)
    except msgspec.ValidationError as error:
        raise InvalidModel(
            f"The hyperparameters of {estimator} cannot be used: {error}.",
            remedy=f"It takes: {_described(kind)}.",
        ) from error


def hyperparameters_of(settings: Settings) -> dict[str, Hyperparameter]:
    """Return every hyperparameter by name, for the record."""
    return dict(msgspec.structs.asdict(settings))


def fitted_pipeline(estimator: str, settings: Settings, training: Dataset, seed: int) -> Pipeline:
    """Train.

    Args:
        estimator: Its name.
        settings: As `check_hyperparameters` returned them for this estimator.
        training: The samples, all of which are used; the caller has applied ``training_share``.
        seed: 0 to 2^32 - 1.

    Raises:
        InvalidModel: Training diverged.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import MinMaxScaler, StandardScaler

    scaler = MinMaxScaler() if settings.scaler == "minmax" else StandardScaler()
    classifier = ESTIMATORS[estimator].classifier(settings, seed)
    pipeline = Pipeline([("scaler", scaler), ("classifier", classifier)])
    flat = training.features.reshape(len(training), -1)
    try:
        with warnings.catch_warnings():
            # Stopping at max_iterations is what the settings ask for, see the head of this file.
            warnings.simplefilter("ignore", ConvergenceWarning)
            pipeline.fit(flat, training.labels)
    except (ValueError, FloatingPointError) as error:
        raise InvalidModel(
            f"Training {estimator} failed: {error}.",
            remedy="Lower the learning rate or raise the regularization.",
        ) from error
    return pipeline


def _described(kind: type[Settings]) -> str:
    """Return the hyperparameters with their ranges, for people."""
    info = msgspec.inspect.type_info(kind)
    assert isinstance(info, msgspec.inspect.StructType)
    return ", ".join(f"{field.name} ({_range(field.type)})" for field in info.fields)


def _range(kind: msgspec.inspect.Type) -> str:
    if isinstance(kind, msgspec.inspect.LiteralType):
        return " or ".join(map(str, kind.values))
    assert isinstance(kind, msgspec.inspect.IntType | msgspec.inspect.FloatType)
    least = f"over {kind.gt:g}" if kind.gt is not None else f"{kind.ge:g}"
    return f"{least} to {kind.le:g}"


def _logistic(settings: LogisticSettings, seed: int) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(
        C=1.0 / settings.regularization, max_iter=settings.max_iterations, random_state=seed
    )


def _mlp(settings: MlpSettings, seed: int) -> Any:
    from sklearn.neural_network import MLPClassifier

    return MLPClassifier(
        hidden_layer_sizes=(settings.hidden,) * settings.layers,
        max_iter=settings.max_iterations,
        learning_rate_init=settings.learning_rate,
        alpha=settings.regularization,
        random_state=seed,
    )


ESTIMATORS = {
    "logistic": Estimator(LogisticSettings, _logistic),
    "mlp": Estimator(MlpSettings, _mlp),
}
