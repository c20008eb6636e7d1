"""A fitted scikit-learn pipeline as one graph, step by step.

skl2onnx converts whole pipelines, but picks columns wrongly where a ColumnTransformer takes all of them in
another order, says not which step failed, and wants an input for each column of text. So pipelines are
walked here: every step is converted alone, and what it takes is gathered from the two inputs or from what
the step before it gave. Each step is written with core operators where skl2onnx can, as those quantize and
run everywhere, and with operators of ``ai.onnx.ml`` where it cannot.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from converters.graphs.tidy import value_info
from converters.graphs.versions import OPSET
from converters.sources.sklearn_columns import TEXT, Columns, branches, fills_missing, is_passthrough
from converters.sources.sklearn_formulas import formula_of
from fleet.protocol.errors import ConversionFailed
from fleet.protocol.manifest import Tensor

if TYPE_CHECKING:
    import onnx

BLACK_OPERATORS = {"Scaler", "LinearClassifier", "LinearRegressor", "Normalizer", "Imputer"}
ML_OPSET = 3
"""Of ``ai.onnx.ml``; ONNX Runtime has it since 1.11."""

Block = tuple[tuple[str, int], ...]
"""Columns side by side, each the name of a tensor and a column of it."""

_UNUSED = ("", 0)


def export_steps(estimator: Any, columns: Columns, inputs: Sequence[Tensor]) -> tuple[onnx.ModelProto, str]:
    """Return a fitted estimator as a graph, and the name of its output.

    Args:
        estimator: As `by_position` leaves it.
        columns: What it takes.
        inputs: The same as tensors; samples with several dimensions are flattened inside the graph.

    Returns:
        The graph, and the name of the tensor of probabilities, scores, distances or values, float32 (N, T).

    Raises:
        ConversionFailed: A step has no counterpart in ONNX; the message names it.
    """
    from onnx import TensorProto, helper

    assembly = Assembly()
    origin: dict[int, tuple[str, int]] = {}
    for tensor in inputs:
        at = columns.texts if tensor.name == TEXT else columns.numbers
        flat = assembly.node("Flatten", [tensor.name], axis=1) if len(tensor.shape) > 2 else tensor.name
        block = assembly.block(flat, len(at))
        origin.update(zip(at, block, strict=True))
    table = tuple(origin.get(position, _UNUSED) for position in range(columns.count))
    output = assembly.tensor(_Walk(assembly).step(estimator, table, ()))
    graph = helper.make_graph(
        assembly.nodes,
        "steps",
        [value_info(tensor) for tensor in inputs],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
        assembly.constants,
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
    return helper.make_model(graph, opset_imports=opsets), output


class Assembly:
    """A graph that is being written.

    Attributes:
        nodes: In topological order.
        constants: That they take.
        widths: Columns of each tensor that a step gave.
        text: Names of the tensors of text.
    """

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.widths: dict[str, int] = {}
        self.text = {TEXT}

    def node(self, operator: str, inputs: list[str], *, domain: str = "", **attributes: Any) -> str:
        """Add a node and return the name of its output."""
        from onnx import helper

        name = f"node{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], domain=domain, **attributes))
        return name

    def constant(self, values: NDArray[Any]) -> str:
        """Add a constant and return its name."""
        from onnx import numpy_helper

        name = f"constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(values, name))
        return name

    def tensor(self, block: Block) -> str:
        """Return the name of a tensor that has these columns, and only these, in this order."""
        parts = []
        for name, run in groupby(block, key=lambda column: column[0]):
            at = [column for _, column in run]
            if at == list(range(self.widths[name])):
                parts.append(name)
                continue
            picked = self.node("Gather", [name, self.constant(np.array(at, dtype=np.int64))], axis=1)
            self.text |= {picked} if name in self.text else set()
            parts.append(picked)
        return parts[0] if len(parts) == 1 else self.node("Concat", parts, axis=1)

    def embed(self, model: onnx.ModelProto, inputs: list[str]) -> Block:
        """Add all of a model and return the columns of its last output: not of the label before it."""
        from onnx import TensorProto
        from onnx.compose import add_prefix

        model = add_prefix(model, f"step{len(self.nodes)}/")
        for value, name in zip(model.graph.input, inputs, strict=True):
            self.node("Identity", [name])
            self.nodes[-1].output[0] = value.name
        self.nodes.extend(model.graph.node)
        self.constants.extend(model.graph.initializer)
        output = model.graph.output[-1]
        name, kind = output.name, output.type.tensor_type
        for node in model.graph.node:
            if node.op_type == "ZipMap" and name in node.output:
                name = node.input[0]
        if kind.elem_type == TensorProto.STRING:
            self.text.add(name)
        else:
            name = self.node("Cast", [name], to=TensorProto.FLOAT)
        return self.block(name, kind.shape.dim[1].dim_value if len(kind.shape.dim) > 1 else 1)

    def block(self, name: str, width: int) -> Block:
        """Return all columns of a tensor that a step gave."""
        self.widths[name] = width
        return tuple((name, column) for column in range(width))


class _Walk:
    """The way through the steps of a pipeline."""

    def __init__(self, assembly: Assembly) -> None:
        self.assembly = assembly

    def step(self, step: Any, block: Block, path: tuple[str, ...]) -> Block:
        """Add a step that takes these columns, and return the columns that it gives."""
        from sklearn.compose import ColumnTransformer
        from sklearn.pipeline import FeatureUnion, Pipeline

        if is_passthrough(step):
            return block
        if isinstance(step, Pipeline):
            for name, inner in step.steps:
                block = self.step(inner, block, (*path, name))
            return block
        if isinstance(step, ColumnTransformer):
            weights = step.transformer_weights or {}
            parts = [
                self._weighted(
                    self.step(inner, tuple(block[i] for i in at), (*path, name)), weights.get(name)
                )
                for name, inner, at in branches(step)
            ]
            return tuple(column for part in parts for column in part)
        if isinstance(step, FeatureUnion):
            weights = step.transformer_weights or {}
            parts = [
                self._weighted(self.step(inner, block, (*path, name)), weights.get(name))
                for name, inner in step.transformer_list
                if not (isinstance(inner, str) and inner == "drop")
            ]
            return tuple(column for part in parts for column in part)
        return self._leaf(step, block, path)

    def _weighted(self, block: Block, weight: float | None) -> Block:
        if weight is None:
            return block
        factor = self.assembly.constant(np.array([weight], dtype=np.float32))
        return self.assembly.block(
            self.assembly.node("Mul", [self.assembly.tensor(block), factor]), len(block)
        )

    def _leaf(self, step: Any, block: Block, path: tuple[str, ...]) -> Block:
        _refuse_silent_failures(step, path)
        text = [name in self.assembly.text for name, _ in block]
        if any(text) and fills_missing(step):
            return block  # text is never missing: nothing to fill
        if hasattr(step, "categories_"):  # an encoder: an input for each column lets it mix text and numbers
            tensors = [self.assembly.tensor((column,)) for column in block]
            return self.assembly.embed(_exported(step, [(is_text, 1) for is_text in text], path), tensors)
        if any(text) and not all(text):
            raise ConversionFailed(
                f"{_called(step, path)} takes text and numbers at once.",
                remedy="Give text and numbers to two steps of a ColumnTransformer.",
            )
        if any(text) and not hasattr(step, "statistics_"):
            raise ConversionFailed(
                f"{_called(step, path)} takes text, which only encoders can.",
                remedy="Put a OneHotEncoder or OrdinalEncoder before it.",
            )
        tensor = self.assembly.tensor(block)
        if formula := formula_of(step):
            return self.assembly.block(*formula(self.assembly, step, tensor))
        return self.assembly.embed(_exported(step, [(all(text), len(block))], path), [tensor])


def _refuse_silent_failures(step: Any, path: tuple[str, ...]) -> None:
    """Refuse what skl2onnx converts without a word to something else.

    Raises:
        ConversionFailed: The step is set up so.
    """
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.ensemble import HistGradientBoostingRegressor

    reason, remedy = "", ""
    if getattr(step, "add_indicator", False):
        reason, remedy = "adds columns that say what was missing", "Fit it with add_indicator=False."
    elif any(isinstance(value, float) and math.isnan(value) for value in getattr(step, "statistics_", ())):
        reason, remedy = "drops columns that had no value", "Remove these columns from the training data."
    elif getattr(step, "handle_unknown", "") in {"infrequent_if_exist", "warn"}:
        reason, remedy = (
            "counts unknown categories as infrequent ones",
            "Fit it with handle_unknown='ignore'.",
        )
    elif np.any(getattr(step, "is_categorical_", False)):
        reason, remedy = "splits by sets of categories", "Encode categories by an OrdinalEncoder before it."
    elif isinstance(step, HistGradientBoostingRegressor) and step.loss in {"poisson", "gamma"}:
        reason, remedy = "answers by the exponential of its trees", "Fit it with another loss."
    elif isinstance(step, LinearDiscriminantAnalysis) and len(step.classes_) == 2:
        reason, remedy = "gives the probabilities of two classes", "Fit a LogisticRegression."
    if reason:
        raise ConversionFailed(
            f"{_called(step, path)} {reason}, which skl2onnx converts to something else.", remedy=remedy
        )


def _exported(step: Any, inputs: list[tuple[bool, int]], path: tuple[str, ...]) -> onnx.ModelProto:
    """Convert one step by skl2onnx.

    Args:
        step: The step.
        inputs: For each of its inputs whether it is text, and the number of its columns.
        path: Names of the pipelines' steps that lead to it.
    """
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType

    if getattr(step, "flatten_transform", False):  # of VotingClassifier.transform(), not exported
        step = copy.copy(step)
        step.flatten_transform = False
    types = [
        (f"x{number}", (StringTensorType if text else FloatTensorType)([None, width]))
        for number, (text, width) in enumerate(inputs)
    ]
    failure: Exception | None = None
    for options, black in _ways(step):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of NumPy and scikit-learn, about skl2onnx's own code
                exported: onnx.ModelProto = to_onnx(
                    step,
                    initial_types=types,
                    options={id(step): options} if options else None,
                    target_opset={"": OPSET, "ai.onnx.ml": ML_OPSET},
                    black_op=black,
                )
                return exported
        except Exception as error:  # skl2onnx's errors have no root of their own
            failure = failure if isinstance(error, NameError) and failure else error
    reason = " ".join(str(failure).split())
    raise ConversionFailed(
        f"{_called(step, path)} cannot be exported to ONNX: {reason:.400}",
        remedy="Put another step in its place, or export the model by other means and give the .onnx file.",
    ) from failure


def _ways(step: Any) -> Iterator[tuple[dict[str, bool], set[str] | None]]:
    """Yield options and forbidden operators to try in turn; an option unknown to a converter is an error."""
    from sklearn.base import is_classifier

    options: list[dict[str, bool]] = [{}]
    if is_classifier(step):
        options = [{"zipmap": False}, {}]
        if not hasattr(step, "predict_proba"):
            options = [{"zipmap": False, "raw_scores": True}, {"raw_scores": True}, *options]
    for chosen in options:
        for black in (BLACK_OPERATORS, None):
            yield chosen, black


def _called(step: Any, path: tuple[str, ...]) -> str:
    kind = type(step).__name__
    return f"Step {' → '.join(path)!r} of the pipeline ({kind})" if path else kind
