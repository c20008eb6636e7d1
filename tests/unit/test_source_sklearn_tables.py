"""Tables of numbers and text as sources: columns, categories, missing values, and always the same bytes."""

from __future__ import annotations

import hashlib
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
)
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler

from converters.data.samples import Inputs, bind, checked_samples
from converters.sources.sklearn import open_sklearn
from fleet.protocol.errors import ConversionFailed, InvalidDataset, InvalidModel
from tests.support.sources import assert_parity, run

COLOURS = np.array(["red", "green", "blue"], dtype=object)
SIZES = np.array(["s", "m", "l", "xl"], dtype=object)
NAMES = ["age", "colour", "weight", "size", "rooms"]


def _table(samples: int, seed: int) -> tuple[NDArray[np.float32], NDArray[Any], NDArray[Any]]:
    """Return numbers (age, weight, rooms), text (colour, size), and the table of both, ordered as `NAMES`."""
    random = np.random.RandomState(seed)
    numbers = random.standard_normal((samples, 3)).astype(np.float32)
    numbers[:, 2] = random.randint(0, 4, size=samples)
    text = np.stack(
        [COLOURS[random.randint(3, size=samples)], SIZES[random.randint(4, size=samples)]], axis=1
    )
    table = np.empty((samples, 5), dtype=object)
    table[:, [0, 2, 4]] = numbers.astype(np.float64)
    table[:, [1, 3]] = text
    return numbers, text, table


def _labels(table: NDArray[Any]) -> NDArray[np.int64]:
    score = table[:, 0].astype(np.float64) + (table[:, 1] == "red") - (table[:, 3] == "s")
    labels: NDArray[np.int64] = (score > 0).astype(np.int64)
    return labels


def _fitted(*branches: Any, then: Any = None, remainder: Any = "drop", weights: Any = None) -> Pipeline:
    _, _, table = _table(300, seed=0)
    transformer = ColumnTransformer(list(branches), remainder=remainder, transformer_weights=weights)
    last = LogisticRegression() if then is None else then
    return make_pipeline(transformer, last).fit(table, _labels(table))


def _held_out() -> Inputs:
    numbers, text, _ = _table(100, seed=1)
    return {"input": numbers, "categories": text}


NO_RED = SimpleImputer(missing_values="red", strategy="constant", fill_value="blue")
IGNORING = OneHotEncoder(handle_unknown="ignore")

PIPELINES = {
    "one-hot": _fitted(("n", StandardScaler(), [0, 2, 4]), ("c", IGNORING, [1, 3])),
    "other order": _fitted(("c", IGNORING, [3, 1]), ("n", StandardScaler(), [4, 0, 2])),
    "text and numbers in one encoder": _fitted(("c", IGNORING, [4, 3, 1]), ("n", "passthrough", [0, 2])),
    "ordinal": _fitted(
        ("c", OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), [3, 1]),
        then=RandomForestClassifier(10, random_state=0),
        remainder="passthrough",
    ),
    "drop first": _fitted(("c", OneHotEncoder(drop="first"), [3, 1]), remainder="passthrough", then=Ridge()),
    "grouped": _fitted(
        ("c", OneHotEncoder(min_frequency=90, handle_unknown="ignore"), [1, 3]), remainder=StandardScaler()
    ),
    "imputer of text": _fitted(
        ("c", make_pipeline(SimpleImputer(strategy="most_frequent"), IGNORING), [1, 3]),
        ("n", SimpleImputer(strategy="median"), [0, 2, 4]),
        then=GradientBoostingClassifier(n_estimators=5, random_state=0),
    ),
    "imputer of words": _fitted(("c", make_pipeline(NO_RED, IGNORING), [1, 3]), remainder="passthrough"),
    "weighted union": _fitted(
        (
            "n",
            FeatureUnion([("p", PCA(2)), ("s", StandardScaler())], transformer_weights={"p": 2.0}),
            [4, 0, 2],
        ),
        ("c", IGNORING, [3, 1]),
        weights={"c": 0.5},
    ),
}


@pytest.mark.parametrize("name", PIPELINES)
def test_tables_answer_alike(name: str) -> None:
    source = open_sklearn(PIPELINES[name])
    assert [(tensor.name, tensor.dtype, tensor.shape) for tensor in source.signature.inputs] == [
        ("input", "float32", (-1, 3)),
        ("categories", "str", (-1, 2)),
    ]
    assert_parity(source, _held_out())


def test_an_unknown_category_counts_as_none_where_the_encoder_says_so() -> None:
    inputs = _held_out()
    inputs["categories"][::3, 0] = "violet"
    for name in ("one-hot", "ordinal", "grouped"):
        assert_parity(open_sklearn(PIPELINES[name]), inputs)


def test_an_unknown_category_is_refused_where_the_encoder_refuses_it() -> None:
    source = open_sklearn(PIPELINES["drop first"])
    inputs = _held_out()
    inputs["categories"][0, 0] = "violet"
    with pytest.raises(ConversionFailed, match="refuses the samples"):
        source.answer(inputs)
    assert any("handle_unknown='error'" in caution for caution in source.cautions)


def test_text_alone_is_one_input() -> None:
    _, text, table = _table(300, seed=0)
    source = open_sklearn(make_pipeline(OneHotEncoder(), LogisticRegression()).fit(text, _labels(table)))
    assert [tensor.name for tensor in source.signature.inputs] == ["categories"]
    assert_parity(source, {"categories": _held_out()["categories"]})


def test_all_columns_in_another_order_are_not_taken_in_the_tables() -> None:
    """skl2onnx takes them as they come when a branch takes as many columns as the input has."""
    samples = np.random.RandomState(0).standard_normal((50, 3)) * [1, 10, 100]
    source = open_sklearn(ColumnTransformer([("n", StandardScaler(), [2, 0, 1])]).fit(samples))
    assert_parity(source, {"input": samples.astype(np.float32)})


def test_missing_values_are_filled_inside_the_graph() -> None:
    samples = np.random.RandomState(0).standard_normal((200, 4)).astype(np.float32).astype(np.float64)
    samples[np.random.RandomState(1).rand(200, 4) < 0.2] = np.nan
    labels = (np.nan_to_num(samples).sum(axis=1) > 0).astype(int)
    for first in (
        SimpleImputer(),
        SimpleImputer(strategy="median"),
        SimpleImputer(strategy="constant", fill_value=3.0),
    ):
        source = open_sklearn(
            make_pipeline(first, StandardScaler(), LogisticRegression()).fit(samples, labels)
        )
        assert source.signature.inputs[0].missing
        assert_parity(source, {"input": samples.astype(np.float32)})
    after = open_sklearn(
        make_pipeline(StandardScaler(), SimpleImputer(), LogisticRegression()).fit(samples, labels)
    )
    assert after.signature.inputs[0].missing
    assert_parity(after, {"input": samples.astype(np.float32)})
    boosted = open_sklearn(HistGradientBoostingRegressor(max_iter=20).fit(samples, labels))
    assert boosted.signature.inputs[0].missing
    assert_parity(boosted, {"input": samples.astype(np.float32)})


def test_where_some_columns_may_be_missing_a_caution_names_them() -> None:
    source = open_sklearn(_fitted(("i", SimpleImputer(), [0, 4]), ("n", StandardScaler(), [2])))
    assert source.signature.inputs[0].missing
    assert any("columns 0, 4 may have missing" in caution for caution in source.cautions)


def test_a_model_without_imputer_takes_no_missing_values() -> None:
    source = open_sklearn(PIPELINES["one-hot"])
    numbers = np.full((2, 3), np.nan, dtype=np.float32)
    samples = checked_samples({"features": numbers, "categories": _held_out()["categories"][:2]})
    with pytest.raises(InvalidDataset, match="missing values"):
        bind(samples, source.signature)


def test_columns_that_no_step_takes_are_no_inputs() -> None:
    source = open_sklearn(_fitted(("n", StandardScaler(), [2]), ("c", IGNORING, [3])))
    assert [tensor.shape for tensor in source.signature.inputs] == [(-1, 1), (-1, 1)]
    assert any("columns 0, 1, 4" in caution for caution in source.cautions)


def named(pipeline: Pipeline, names: list[str]) -> Pipeline:
    """Put a fitted pipeline into the state that fitting on a table with named columns leaves it in."""
    transformer = pipeline[0]
    transformer.feature_names_in_ = np.array(names, dtype=object)
    transformer.transformers_ = [
        (name, step, [names[at] for at in columns]) for name, step, columns in transformer.transformers_
    ]
    for _, step, columns in transformer.transformers_:
        if not isinstance(step, str):
            step.feature_names_in_ = np.array(columns, dtype=object)
    return pipeline


def test_columns_selected_by_name_keep_their_names() -> None:
    pipeline = named(_fitted(("c", OneHotEncoder(), [3, 1]), ("n", StandardScaler(), [4, 0, 2])), NAMES)
    source = open_sklearn(pipeline)
    assert [tensor.columns for tensor in source.signature.inputs] == [
        ("age", "weight", "rooms"),
        ("colour", "size"),
    ]
    assert_parity(source, _held_out())
    assert pipeline[0].transformers_[0][2] == ["size", "colour"]  # the estimator is as it was


def test_a_step_that_cannot_be_converted_is_named() -> None:
    with pytest.raises(
        ConversionFailed, match=r"'columntransformer → n → log' of the pipeline \(FunctionTransformer\)"
    ):
        inner = Pipeline([("shift", StandardScaler()), ("log", FunctionTransformer(np.arctan))])
        open_sklearn(_fitted(("n", inner, [0, 2]), ("c", IGNORING, [1])))
    _, text, table = _table(300, seed=0)
    with pytest.raises((ConversionFailed, InvalidModel)):
        words = make_pipeline(CountVectorizer(), LogisticRegression()).fit(
            text[:, 1] + " word", _labels(table)
        )
        open_sklearn(words)


def test_what_would_be_converted_wrongly_without_a_word_is_refused() -> None:
    samples = np.random.RandomState(0).standard_normal((100, 3))
    samples[::4, 1] = np.nan
    labels = np.arange(100) % 2
    with pytest.raises(ConversionFailed, match="add_indicator=False"):
        open_sklearn(
            make_pipeline(SimpleImputer(add_indicator=True), LogisticRegression()).fit(samples, labels)
        )
    whole = np.abs(np.round(np.nan_to_num(samples)))
    refused = {
        "sets of categories": HistGradientBoostingClassifier(max_iter=5, categorical_features=[0]),
        "exponential": HistGradientBoostingRegressor(max_iter=5, loss="poisson"),
        "two classes": LinearDiscriminantAnalysis(),
        "several labels": RandomForestClassifier(3),
    }
    for message, estimator in refused.items():
        given = np.stack([labels, 1 - labels], axis=1) if message == "several labels" else labels
        with pytest.raises(ConversionFailed, match=message):
            open_sklearn(estimator.fit(whole, given))
    encoder = OneHotEncoder(min_frequency=90, handle_unknown="infrequent_if_exist")
    with pytest.raises(ConversionFailed, match="handle_unknown='ignore'"):
        open_sklearn(_fitted(("c", encoder, [1, 3])))


def test_a_column_that_is_text_here_and_a_number_there_is_refused() -> None:
    pipeline = _fitted(("c", IGNORING, [1]), ("n", StandardScaler(), [0]))
    (name, encoder, _), other, *rest = pipeline[0].transformers_
    pipeline[0].transformers_ = [(name, encoder, [1]), other, ("again", other[1], [1]), *rest]
    pipeline[0]._transformer_to_input_indices["again"] = [1]
    with pytest.raises(ConversionFailed, match="text to one step"):
        open_sklearn(pipeline)


_BYTES_IN_ANOTHER_PROCESS = """
import hashlib, pickle, sys
from sklearn.linear_model import LogisticRegression
from converters.sources.sklearn import open_sklearn
open_sklearn(LogisticRegression().fit([[0.0], [1.0]], [0, 1]))  # counters of exporters have moved
for model in pickle.load(sys.stdin.buffer):
    print(hashlib.sha256(open_sklearn(model).onnx).hexdigest())
"""


def test_bytes_are_the_same_in_every_process_and_order() -> None:
    numbers, _, table = _table(100, seed=2)
    models = [*PIPELINES.values(), KNeighborsClassifier().fit(numbers, _labels(table))]
    here = [hashlib.sha256(open_sklearn(model).onnx or b"").hexdigest() for model in models]
    there = subprocess.run(
        [sys.executable, "-c", _BYTES_IN_ANOTHER_PROCESS],
        input=pickle.dumps(models[::-1]),
        capture_output=True,
        check=True,
    )
    assert there.stdout.decode().split() == here[::-1]


def test_the_graph_answers_one_sample_as_it_answers_many() -> None:
    source = open_sklearn(PIPELINES["one-hot"])
    inputs = _held_out()
    many = run(source, inputs)
    one = run(source, {name: array[:1] for name, array in inputs.items()})
    np.testing.assert_allclose(one, many[:1], atol=1e-6)
