"""From a fitted scikit-learn pipeline to one ONNX file, preprocessing included.

The export goes through skl2onnx. Its shortcuts ``Scaler`` and ``LinearClassifier`` are operators of the
``ai.onnx.ml`` domain, which neither quantizes nor runs everywhere: `BLACK_OPERATORS` forbids them, so that it
writes the same arithmetic with core operators.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.graph import INPUT, OPSET, tidy
from fleet.protocol.errors import ConversionFailed

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

BLACK_OPERATORS = {"Scaler", "LinearClassifier", "LinearRegressor", "Normalizer", "Imputer"}


def export_pipeline(pipeline: Pipeline, sample_shape: tuple[int, ...], classes: int) -> bytes:
    """Return a fitted pipeline as an fp32 ONNX model.

    Args:
        pipeline: Ends in a classifier that was fitted on flattened samples, shape (N, K), with the labels
            0 to ``classes`` - 1, all of which occurred.
        sample_shape: Shape of one sample as devices see it.
        classes: Number of classes.

    Returns:
        A model from ``input``, float32 (N, *sample_shape), to ``probabilities``, float32 (N, classes).

    Raises:
        ConversionFailed: The pipeline has a step that cannot be exported, or was fitted on other classes.
    """
    classifier = pipeline[-1]
    if not np.array_equal(classifier.classes_, np.arange(classes)):
        raise ConversionFailed(
            f"The classifier was trained on the classes {list(classifier.classes_)}, not on all {classes}."
        )
    exported = _exported(pipeline, math.prod(sample_shape))
    return bytes(tidy(exported, sample_shape, classes).SerializeToString())


def _exported(pipeline: Pipeline, features: int) -> Any:
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType

    try:
        return to_onnx(
            pipeline,
            initial_types=[(INPUT, FloatTensorType([None, features]))],
            options={id(pipeline[-1]): {"zipmap": False}},
            target_opset=OPSET,
            black_op=BLACK_OPERATORS,
        )
    except Exception as error:  # skl2onnx's errors have no root of their own
        raise ConversionFailed(f"The pipeline cannot be exported to ONNX: {error}.") from error
