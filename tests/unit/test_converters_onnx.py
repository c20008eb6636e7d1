"""From a fitted pipeline to fp32 and int8 ONNX: what is in the graph, and what it answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler

from converters.dataset import Dataset
from converters.evaluate import answer, evaluate
from converters.graph import IR_VERSION, OPSET
from converters.quantize import quantize_int8
from converters.sklearn_source import export_pipeline
from fleet.protocol.errors import ConversionFailed
from hub.training.estimators import check_hyperparameters, fitted_pipeline
from tests.support.digits import fitted_model, training_and_held_out

SETTINGS = [("logistic", "minmax"), ("logistic", "standard"), ("mlp", "minmax"), ("mlp", "standard")]


def _operators(model: bytes) -> list[str]:
    return [node.op_type for node in onnx.load_from_string(model).graph.node]


@pytest.mark.parametrize(("estimator", "scaler"), SETTINGS)
def test_the_export_answers_like_scikit_learn(estimator: str, scaler: str) -> None:
    pipeline, model = fitted_model(estimator, scaler)
    _, held_out = training_and_held_out()
    probabilities = answer(model, held_out.features)
    expected = pipeline.predict_proba(held_out.features.reshape(len(held_out), -1))
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    assert evaluate(probabilities, held_out).accuracy > 0.94


@pytest.mark.parametrize(("estimator", "scaler"), SETTINGS)
def test_the_graph_is_core_onnx_from_input_to_probabilities_and_nothing_else(
    estimator: str, scaler: str
) -> None:
    model = onnx.load_from_string(fitted_model(estimator, scaler)[1])
    assert model.ir_version == IR_VERSION
    assert [(o.domain, o.version) for o in model.opset_import] == [("", OPSET)]
    assert [i.name for i in model.graph.input] == ["input"]
    assert [o.name for o in model.graph.output] == ["probabilities"]
    shape = model.graph.input[0].type.tensor_type.shape.dim
    assert [(d.dim_param, d.dim_value) for d in shape] == [("batch", 0), ("", 8), ("", 8)]
    assert {node.domain for node in model.graph.node} == {""}
    assert not {"Cast", "Identity", "ArgMax"} & {node.op_type for node in model.graph.node}
    used = {name for node in model.graph.node for name in node.input}
    assert {tensor.name for tensor in model.graph.initializer} <= used


@pytest.mark.parametrize("estimator", ["logistic", "mlp"])
@pytest.mark.parametrize("batch", [1, 2, 300])
def test_the_batch_is_free(estimator: str, batch: int) -> None:
    _, model = fitted_model(estimator, "minmax")
    _, held_out = training_and_held_out()
    whole = answer(model, held_out.features)
    np.testing.assert_allclose(answer(model, held_out.features[:batch]), whole[:batch], atol=1e-6)


@pytest.mark.parametrize("estimator", ["logistic", "mlp"])
def test_two_classes_have_two_probabilities(estimator: str) -> None:
    def low_or_high(dataset: Dataset) -> Dataset:
        return Dataset(dataset.features, (dataset.labels > 4).astype(np.int64), ("low", "high"))

    training, held_out = map(low_or_high, training_and_held_out())
    settings = check_hyperparameters(estimator, {})
    model = export_pipeline(fitted_pipeline(estimator, settings, training, seed=0), (8, 8), 2)
    probabilities = answer(model, held_out.features)
    assert probabilities.shape == (len(held_out), 2)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=1e-5)
    int8 = answer(quantize_int8(model, training.features), held_out.features)
    assert evaluate(probabilities, held_out).accuracy > 0.85
    assert evaluate(int8, held_out).accuracy > 0.85


def test_a_classifier_outside_core_onnx_is_refused() -> None:
    training, _ = training_and_held_out()
    forest = RandomForestClassifier(n_estimators=3, random_state=0)
    pipeline = Pipeline([("scaler", MinMaxScaler()), ("classifier", forest)])
    pipeline.fit(training.features.reshape(len(training), -1), training.labels)
    with pytest.raises(ConversionFailed, match=r"ai\.onnx\.ml"):
        export_pipeline(pipeline, (8, 8), 10)


def test_a_classifier_that_never_saw_a_class_is_refused() -> None:
    training, _ = training_and_held_out()
    without_nine = training.take(np.flatnonzero(training.labels != 9))
    pipeline = fitted_pipeline("logistic", check_hyperparameters("logistic", {}), without_nine, seed=0)
    with pytest.raises(ConversionFailed, match="not on all 10"):
        export_pipeline(pipeline, (8, 8), 10)


def _weights(model: bytes) -> Iterator[Any]:
    for tensor in onnx.load_from_string(model).graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.int8 and values.ndim == 2:
            yield values


@pytest.mark.parametrize(("estimator", "scaler"), SETTINGS)
def test_int8_keeps_the_accuracy_and_shrinks_the_model(estimator: str, scaler: str) -> None:
    _, model = fitted_model(estimator, scaler)
    training, held_out = training_and_held_out()
    int8 = quantize_int8(model, training.features)
    full = evaluate(answer(model, held_out.features), held_out).accuracy
    quantized = evaluate(answer(int8, held_out.features), held_out).accuracy
    assert full - quantized <= 0.02
    assert len(int8) < len(model)


@pytest.mark.parametrize(("estimator", "layers"), [("logistic", 1), ("mlp", 2)])
def test_all_weights_are_int8_of_seven_bits_and_preprocessing_stays_float(
    estimator: str, layers: int
) -> None:
    training, _ = training_and_held_out()
    int8 = quantize_int8(fitted_model(estimator, "standard")[1], training.features)
    weights = list(_weights(int8))
    assert len(weights) == layers
    for matrix in weights:
        assert 60 <= np.abs(matrix).max() <= 64  # 2 · 255 · 64 fits into 16 bits
        assert (np.abs(matrix).max(axis=0) >= 60).all()  # a scale of its own for each output channel
    operators = _operators(int8)
    first = operators.index("QuantizeLinear")
    assert operators.index("Sub") < operators.index("Div") < first < operators.index("MatMul")


def test_quantizing_twice_gives_the_same_bytes() -> None:
    _, model = fitted_model("mlp", "minmax")
    training, _ = training_and_held_out()
    assert quantize_int8(model, training.features) == quantize_int8(model, training.features)


def test_a_model_without_matrix_products_is_not_quantized() -> None:
    model = onnx.load_from_string(fitted_model("logistic", "minmax")[1])
    relu = onnx.helper.make_node("Relu", ["input"], ["probabilities"])
    del model.graph.node[:]
    model.graph.node.append(relu)
    with pytest.raises(ConversionFailed, match="no matrix product"):
        quantize_int8(model.SerializeToString(), training_and_held_out()[0].features)


def test_bytes_that_are_no_model_are_refused() -> None:
    samples = training_and_held_out()[0].features
    for broken in (b"", b"not a model", fitted_model("mlp", "minmax")[1][:-100]):
        with pytest.raises(ConversionFailed):
            answer(broken, samples)
        with pytest.raises(ConversionFailed):
            quantize_int8(broken, samples)


def test_samples_of_another_shape_are_refused() -> None:
    with pytest.raises(ConversionFailed):
        answer(fitted_model("mlp", "minmax")[1], np.zeros((3, 9, 9), dtype=np.float32))


def test_answers_that_are_not_finite_are_refused() -> None:
    model = onnx.load_from_string(fitted_model("logistic", "minmax")[1])
    for tensor in model.graph.initializer:
        poisoned = np.full_like(numpy_helper.to_array(tensor), np.nan)
        tensor.CopyFrom(numpy_helper.from_array(poisoned, tensor.name))
    with pytest.raises(ConversionFailed, match="not finite"):
        answer(model.SerializeToString(), training_and_held_out()[1].features)
