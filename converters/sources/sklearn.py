"""scikit-learn as a source: fitted estimators and pipelines, their preprocessing inside the graph.

What a bundle's first output is follows from what the estimator is (`fleet.protocol.manifest.Task`):

================================  ==============  ====================================================
estimator                         task            output
================================  ==============  ====================================================
classifier with probabilities     classification  ``probabilities`` (N, C), in the order of `classes_`
other classifier                  classification  ``scores`` (N, C): its decision function; of two
                                                  classes -d and d
regressor                         regression      ``values`` (N, T)
clusterer with centres            clustering      ``distances`` (N, K)
outlier detector                  anomaly         ``scores`` (N, 1): its decision function
transformer alone, such as a PCA  regression      ``values`` (N, T)
================================  ==============  ====================================================

The original answers in float64, the graph in float32. Where a tree stands behind a step that computes, such
as a scaler, a value within a rounding error of a threshold may go the other way: the two then differ by a
whole leaf, for about one in 10⁷ values. Behind nothing, and behind imputers and encoders,
trees answer alike: their thresholds are rounded down to float32, which changes no comparison with a
float32.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.data.samples import Inputs
from converters.graphs.tidy import tidy
from converters.source import Source
from converters.sources.sklearn_cautions import cautions
from converters.sources.sklearn_columns import NUMBERS, TEXT, Columns, by_position, columns_of
from converters.sources.sklearn_steps import export_steps
from fleet.protocol.errors import ConversionFailed, InvalidModel
from fleet.protocol.manifest import Signature, Task, Tensor

LIBRARIES = ("scikit-learn", "skl2onnx", "onnx")


def open_sklearn(
    estimator: Any,
    *,
    name: str = "",
    classes: tuple[str, ...] = (),
    sample_shape: tuple[int, ...] | None = None,
) -> Source:
    """Return a fitted scikit-learn estimator as a source.

    Args:
        estimator: An estimator or a Pipeline, with ColumnTransformers or not, fitted on a table of shape
            (N, K).
        name: For messages and provenance; empty for the estimator's class.
        classes: What the classes are called, in the order of ``classes_``; empty for their own names.
        sample_shape: Shape of one sample as devices see it, where that is not (K,): samples are flattened
            inside the graph.

    Raises:
        InvalidModel: It is no fitted estimator, or the classes or the shape do not suit it.
        ConversionFailed: A step has no counterpart in ONNX, or it cannot judge new samples at all.
    """
    _check_fitted(estimator)
    plain = by_position(estimator)
    columns = columns_of(plain)
    name = name or type(estimator).__name__
    task, output, method = _purpose(plain)
    answer = _answering(name, method, columns)
    width = answer(columns.example()).shape[1]
    names = _class_names(plain, classes, width) if task == "classification" else ()
    signature = Signature(
        inputs=_inputs(columns, sample_shape),
        outputs=(Tensor(output, "float32", (-1, width)),),
        classes=names,
        task=task,
    )
    exported, tensor = export_steps(plain, columns, signature.inputs)
    model = tidy(exported, signature, tensor)
    return Source(
        name=name,
        framework="scikit-learn",
        signature=signature,
        answer=answer,
        onnx=model.SerializeToString(deterministic=True),
        cautions=tuple(cautions(plain, columns, model)),
        libraries=LIBRARIES,
    )


def _check_fitted(estimator: Any) -> None:
    from sklearn.base import BaseEstimator
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    if not isinstance(estimator, BaseEstimator):
        raise InvalidModel(
            f"An object of type {type(estimator).__name__} is no scikit-learn estimator.",
            remedy="Give a fitted estimator or Pipeline.",
        )
    try:
        check_is_fitted(estimator)
    except (NotFittedError, TypeError) as error:
        raise InvalidModel(
            f"The {type(estimator).__name__} is not fitted.", remedy="Call its fit() before saving it."
        ) from error


def _purpose(estimator: Any) -> tuple[Task, str, Callable[[NDArray[Any]], Any]]:
    """Return an estimator's task, the name of its output, and its method that gives it."""
    from sklearn.base import is_classifier, is_clusterer, is_outlier_detector, is_regressor

    if is_outlier_detector(estimator) and hasattr(estimator, "decision_function"):
        return "anomaly", "scores", estimator.decision_function
    if is_classifier(estimator):
        if hasattr(estimator, "predict_proba"):
            return "classification", "probabilities", estimator.predict_proba
        if hasattr(estimator, "decision_function"):
            return (
                "classification",
                "scores",
                lambda table: _of_each_class(estimator.decision_function(table)),
            )
    elif is_regressor(estimator):
        return "regression", "values", estimator.predict
    elif is_clusterer(estimator):
        if hasattr(estimator, "transform"):
            return "clustering", "distances", estimator.transform
    elif hasattr(estimator, "transform"):
        return "regression", "values", estimator.transform
    remedy = "Choose an estimator that can."
    if hasattr(estimator, "novelty"):
        remedy = "Fit it with novelty=True."
    raise ConversionFailed(
        f"A {type(estimator).__name__} cannot judge samples that it was not fitted on.", remedy=remedy
    )


def _of_each_class(decisions: NDArray[Any]) -> NDArray[Any]:
    """Return a binary decision function d, shape (N,), as (N, 2): -d and d. Others stay as they are."""
    return decisions if decisions.ndim == 2 else np.stack([-decisions, decisions], axis=1)


def _answering(
    name: str, method: Callable[[NDArray[Any]], Any], columns: Columns
) -> Callable[[Inputs], NDArray[Any]]:
    def answer(inputs: Inputs) -> NDArray[Any]:
        try:
            with warnings.catch_warnings():
                # It was fitted on named columns and is given an array: the order is the same.
                warnings.filterwarnings("ignore", message="X does not have valid feature names")
                given = method(columns.table(inputs))
        except Exception as error:  # an estimator may be anyone's code
            reason = " ".join(str(error).split())
            raise ConversionFailed(f"{name} itself refuses the samples: {reason:.400}") from error
        dense = given.toarray() if hasattr(given, "toarray") else np.asarray(given)
        return np.ascontiguousarray(dense.reshape(len(dense), -1), dtype=np.float32)

    return answer


def _class_names(estimator: Any, classes: tuple[str, ...], width: int) -> tuple[str, ...]:
    if isinstance(estimator.classes_, list):
        raise ConversionFailed(
            f"The {type(estimator).__name__} gives several labels to each sample.",
            remedy="Fit one estimator for each label.",
        )
    own = tuple(str(label) for label in estimator.classes_)
    if width != len(own):
        raise ConversionFailed(
            f"The {type(estimator).__name__} gives {width} numbers for {len(own)} classes, not one for each.",
            remedy="Fit one that has one label for each sample, an SVC with decision_function_shape='ovr'.",
        )
    if classes and len(classes) != len(own):
        raise InvalidModel(
            f"{len(classes)} class names were given; the model has {len(own)}: {', '.join(own):.200}."
        )
    return classes or own


def _inputs(columns: Columns, sample_shape: tuple[int, ...] | None) -> tuple[Tensor, ...]:
    numbers, texts = columns.numbers, columns.texts
    if sample_shape is not None and math.prod(sample_shape) != len(numbers):
        raise InvalidModel(
            f"Samples of shape {sample_shape} have {math.prod(sample_shape)} values;"
            f" the model takes {len(numbers)} numbers."
        )
    shape = (len(numbers),) if sample_shape is None else sample_shape
    tensors = []
    if numbers:
        named = tuple(columns.names[i] for i in numbers) if columns.names and len(shape) == 1 else ()
        missing = not columns.missing.isdisjoint(numbers)
        tensors.append(Tensor(NUMBERS, "float32", (-1, *shape), named, missing))
    if texts:
        named = tuple(columns.names[i] for i in texts) if columns.names else ()
        tensors.append(Tensor(TEXT, "str", (-1, len(texts)), named))
    return tuple(tensors)
