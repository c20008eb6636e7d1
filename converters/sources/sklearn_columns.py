"""Which columns of a table an estimator takes as numbers and as text, and in which values may be missing.

scikit-learn takes one table in which numbers and text stand side by side. A model in a bundle has at most two
inputs: ``input``, the columns of numbers, and ``categories``, the columns of text, each in the table's order.
What a column holds is seen from what was fitted on it: an encoder's categories, an imputer's fill value. All
others are numbers. Columns that no step takes are no inputs.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.data.samples import Inputs
from fleet.protocol.errors import ConversionFailed, InvalidModel

NUMBERS = "input"
TEXT = "categories"


@dataclass(frozen=True, eq=False)
class Columns:
    """The columns of the table that an estimator takes.

    Attributes:
        count: How many it was fitted on.
        names: Of all of them; empty where it was fitted on an array.
        numbers: Positions of the columns of ``input``, ascending.
        texts: Positions of the columns of ``categories``, ascending.
        missing: Positions of those in which values may be missing.
        encoded: For the positions that an encoder takes, a category that it knows.
    """

    count: int
    names: tuple[str, ...]
    numbers: tuple[int, ...]
    texts: tuple[int, ...]
    missing: frozenset[int]
    encoded: Mapping[int, Any]

    @property
    def unused(self) -> tuple[int, ...]:
        """Positions of the columns that no step takes."""
        return tuple(sorted(set(range(self.count)) - {*self.numbers, *self.texts}))

    def called(self, positions: Iterable[int]) -> str:
        """Return the names of columns, or their numbers, for a message."""
        return ", ".join(repr(self.names[i]) if self.names else str(i) for i in sorted(positions))

    def table(self, inputs: Inputs) -> NDArray[Any]:
        """Return the table that the estimator takes, (N, count): float64, or objects where there is text.

        Args:
            inputs: ``input``, float32 (N, …), and ``categories``, text (N, M), where there are such columns.
        """
        samples = len(next(iter(inputs.values())))
        table: NDArray[Any] = np.zeros((samples, self.count), dtype=object if self.texts else np.float64)
        if self.numbers:
            table[:, list(self.numbers)] = inputs[NUMBERS].reshape(samples, -1).astype(np.float64)
        if self.texts:
            table[:, list(self.texts)] = inputs[TEXT]
        return table

    def example(self) -> Inputs:
        """Return one sample that the estimator accepts: zeros, and categories that it knows."""
        inputs: Inputs = {}
        if self.numbers:
            row = [float(self.encoded.get(position, 0.0)) for position in self.numbers]
            inputs[NUMBERS] = np.array([row], dtype=np.float32)
        if self.texts:
            inputs[TEXT] = np.array(
                [[self.encoded.get(position, "") for position in self.texts]], dtype=object
            )
        return inputs


def columns_of(estimator: Any) -> Columns:
    """Return the columns that a fitted estimator takes.

    Args:
        estimator: Its ColumnTransformers select by position, as `by_position` leaves them.

    Raises:
        InvalidModel: It does not say how many columns it was fitted on.
        ConversionFailed: A column is text to one step and a number to another.
    """
    count = getattr(estimator, "n_features_in_", None)
    if count is None:
        raise InvalidModel(
            f"{type(estimator).__name__} does not say how many columns it takes.",
            remedy="Fit it, or the first step of the pipeline, on a table of shape (N, K).",
        )
    found = _Findings()
    _end(_follow(estimator, list(range(count)), found), found)
    names = tuple(str(name) for name in getattr(estimator, "feature_names_in_", ()))
    used = found.numbers | found.text
    columns = Columns(
        int(count),
        names,
        numbers=tuple(sorted(used - found.text)),
        texts=tuple(sorted(found.text)),
        missing=frozenset(found.filled - found.needed),
        encoded=found.encoded,
    )
    if both := found.text & found.numbers:
        raise ConversionFailed(
            f"Column {columns.called(both)} is text to one step of the model and a number to another.",
            remedy="Let every step that takes a column take it as the same.",
        )
    return columns


def by_position(estimator: Any) -> Any:
    """Return the estimator with every ColumnTransformer selecting its columns by position instead of by name.

    The estimator itself is left as it is; what is fitted is shared, not copied.
    """
    from sklearn.compose import ColumnTransformer
    from sklearn.model_selection._search import BaseSearchCV
    from sklearn.pipeline import FeatureUnion, Pipeline

    if isinstance(estimator, BaseSearchCV):
        return by_position(estimator.best_estimator_)
    changed = copy.copy(estimator)
    if isinstance(estimator, Pipeline):
        changed.steps = [(name, by_position(step)) for name, step in estimator.steps]
    elif isinstance(estimator, FeatureUnion):
        changed.transformer_list = [(name, by_position(step)) for name, step in estimator.transformer_list]
    elif isinstance(estimator, ColumnTransformer):
        positions = estimator._transformer_to_input_indices  # where fitting resolved the names
        changed.transformers_ = [
            (name, by_position(step), int(at[0]) if np.isscalar(columns) else [int(i) for i in at])
            for name, step, columns in estimator.transformers_
            for at in [positions[name]]
        ]
    return changed


def branches(transformer: Any) -> Iterator[tuple[str, Any, list[int]]]:
    """Yield name, step and columns of every branch of a ColumnTransformer that adds to its output."""
    for name, step, at in transformer.transformers_:
        columns = [at] if isinstance(at, int) else at
        if columns and not (isinstance(step, str) and step == "drop"):
            yield name, step, columns


def leaves(step: Any) -> Iterator[Any]:
    """Yield every step that computes something, in order."""
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import FeatureUnion, Pipeline

    inner: Iterable[Any]
    if isinstance(step, Pipeline):
        inner = [part for _, part in step.steps]
    elif isinstance(step, ColumnTransformer):
        inner = [part for _, part, _ in branches(step)]
    elif isinstance(step, FeatureUnion):
        inner = [part for _, part in step.transformer_list]
    else:
        if not (is_passthrough(step) or isinstance(step, str)):
            yield step
        return
    for part in inner:
        yield from leaves(part)


def is_passthrough(step: Any) -> bool:
    """Return whether a step of a pipeline hands on what it takes."""
    from sklearn.preprocessing import FunctionTransformer

    return (
        step is None or step == "passthrough" or (isinstance(step, FunctionTransformer) and step.func is None)
    )


def fills_missing(step: Any) -> bool:
    """Return whether a step is an imputer that fills values that are not there, rather than some that are."""
    from sklearn.impute import SimpleImputer

    return isinstance(step, SimpleImputer) and (
        step.missing_values is None or step.missing_values != step.missing_values
    )


Positions = list[int | None]
"""Of the columns that a step takes: where each is in the table; None for one that a step before computed."""


@dataclass(eq=False)
class _Findings:
    """What the steps say of the columns, by position."""

    numbers: set[int] = field(default_factory=set)
    text: set[int] = field(default_factory=set)
    filled: set[int] = field(default_factory=set)
    needed: set[int] = field(default_factory=set)
    encoded: dict[int, Any] = field(default_factory=dict)

    def take_numbers(self, at: Positions) -> None:
        """Note columns of numbers none of which may be missing."""
        self.numbers.update(_known(at))
        self.needed.update(_known(at))


def _known(at: Positions) -> list[int]:
    return [position for position in at if position is not None]


def _follow(step: Any, at: Positions | None, found: _Findings) -> Positions | None:
    """Follow columns into a step, and note what it says of them.

    Returns:
        The columns that it gives; None where it mixes them.
    """
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import FeatureUnion, Pipeline

    if at is None or is_passthrough(step):
        return at
    if isinstance(step, Pipeline):
        for _, inner in step.steps:
            at = _follow(inner, at, found)
        return at
    if isinstance(step, ColumnTransformer):
        for _, inner, taken in branches(step):
            _end(_follow(inner, [at[i] for i in taken], found), found)
        return None
    if isinstance(step, FeatureUnion):
        for _, inner in step.transformer_list:
            if not (isinstance(inner, str) and inner == "drop"):
                _end(_follow(inner, at, found), found)
        return None
    return _follow_leaf(step, at, found)


def _end(at: Positions | None, found: _Findings) -> None:
    """Note columns that left a branch as they came, or but scaled: what follows wants numbers."""
    found.take_numbers(at or [])


def _follow_leaf(step: Any, at: Positions, found: _Findings) -> Positions | None:
    from sklearn.base import OneToOneFeatureMixin
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.impute import SimpleImputer
    from sklearn.utils import get_tags

    if hasattr(step, "categories_"):
        for position, categories in zip(at, step.categories_, strict=True):
            if position is not None and len(categories):
                found.encoded[position] = categories[0]
                (found.text if isinstance(categories[0], str) else found.needed).add(position)
        found.take_numbers([position for position in at if position not in found.text])
        return None
    if isinstance(step, SimpleImputer):
        return _follow_imputer(step, at, found)
    if isinstance(step, HistGradientBoostingClassifier | HistGradientBoostingRegressor):
        found.numbers.update(_known(at))
        found.filled.update(_known(at))
        return None
    if isinstance(step, OneToOneFeatureMixin) and get_tags(step).input_tags.allow_nan:
        return at  # a scaler: what is missing stays missing
    found.take_numbers(at)
    return None


def _follow_imputer(step: Any, at: Positions, found: _Findings) -> Positions | None:
    given: Positions = []
    for position, value in zip(at, step.statistics_, strict=True):
        text = isinstance(value, str)
        given.append(position if text else None)
        if position is None:
            continue
        if text:
            found.text.add(position)
            found.encoded.setdefault(position, value)
        else:
            found.numbers.add(position)
            (found.filled if fills_missing(step) else found.needed).add(position)
    return None if step.add_indicator else given
