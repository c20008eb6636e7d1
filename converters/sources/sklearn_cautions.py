"""What a person should know before trusting the conversion of a scikit-learn pipeline, in whole sentences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from converters.sources.sklearn_columns import Columns, fills_missing, leaves

if TYPE_CHECKING:
    import onnx

_EXACT = frozenset({
    "ArrayFeatureExtractor", "Cast", "Concat", "Flatten", "Gather", "Imputer", "IsNaN", "LabelEncoder",
    "OneHotEncoder", "Reshape", "Where",
})  # fmt: skip
"""Operators that give, in float32, what scikit-learn gives to a tree, which rounds to float32 itself."""


def cautions(estimator: Any, columns: Columns, model: onnx.ModelProto) -> Iterator[str]:
    """Yield what to know of an estimator and the graph that it became.

    Args:
        estimator: Fitted.
        columns: What it takes.
        model: Its graph, tidied.
    """
    from sklearn.preprocessing import OneHotEncoder

    if columns.unused:
        yield f"No step takes columns {columns.called(columns.unused)}: they are no inputs."
    if columns.missing and columns.missing != set(columns.numbers):
        yield f"Only columns {columns.called(columns.missing)} may have missing values (NaN)."
    steps = list(leaves(estimator))
    for step in steps:
        if hasattr(step, "categories_") and getattr(step, "handle_unknown", "") == "error":
            yield (
                f"{type(step).__name__} was fitted with handle_unknown='error': scikit-learn refuses"
                " categories that it does not know, the graph may not."
            )
        if isinstance(step, OneHotEncoder) and any(not isinstance(word, str) for word in _first(step)):
            yield "OneHotEncoder of numbers: the graph cuts them to whole numbers before it compares."
        if hasattr(step, "_fit_X"):
            yield f"{type(step).__name__} keeps its training samples: they travel to every device."
        if fills_missing(step) and any(isinstance(value, str) for value in step.statistics_):
            yield "Text cannot be missing on devices: the SimpleImputer of text fills nothing in the graph."
    if steps and getattr(steps[-1], "probability", None) is True:
        yield (
            "The class is that of the greatest probability; the SVC's own predict() may say otherwise near"
            " the border, as it does not use its probabilities (Platt scaling)."
        )
    if _trees_behind_arithmetic(model):
        yield (
            "Trees stand behind a step that computes in float32 where scikit-learn computes in float64:"
            " a value within a rounding error of a threshold may take the other branch."
        )


def _first(encoder: Any) -> list[Any]:
    return [categories[0] for categories in encoder.categories_ if len(categories)]


def _trees_behind_arithmetic(model: onnx.ModelProto) -> bool:
    computed: set[str] = set()
    for node in model.graph.node:
        tainted = not computed.isdisjoint(node.input)
        if tainted and node.op_type.startswith("TreeEnsemble"):
            return True
        if tainted or node.op_type not in _EXACT:
            computed.update(node.output)
    return False
