"""The conversion as a whole: sources of every kind, judged, packed, refused, and the same bytes again."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, IsolationForest, RandomForestClassifier
from sklearn.linear_model import Ridge
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, StandardScaler

from converters.convert import Conversion, conversion_steps, convert
from converters.data.samples import Samples, samples_of
from converters.judging.gate import Gate
from converters.judging.latency import SLOWER_BY, mark_slower
from converters.judging.variant import Candidate
from converters.report import Report
from converters.source import Source
from converters.sources.sklearn import open_sklearn
from converters.targets import TARGETS
from fleet.protocol.errors import AccuracyTooLow, InvalidDataset, InvalidInput, NotFound
from tests.support.digits import (
    CLASSES,
    digits_conversion,
    digits_source,
    fitted_model,
    training_and_held_out,
)

ALL = tuple(TARGETS)


@cache
def _digits() -> Conversion:
    return digits_conversion(targets=ALL)


def test_every_variant_of_a_dense_model_is_measured_and_packed() -> None:
    report = _digits().report
    assert [variant.name for variant in report.variants] == list(ALL)
    for variant in report.variants:
        assert variant.packed, variant.reason
        assert variant.size_bytes == len(_digits().models[variant.name])
        assert variant.evaluation is not None
        assert variant.evaluation.metric == "accuracy"
        assert variant.latency_us.keys() == {TARGETS[variant.name].runtime.name}
        assert variant.requirement is not None
        assert variant.golden_tolerance is not None
    ratios = {variant.name: variant.ratio or 0.0 for variant in report.variants}
    assert ratios["onnx-fp32"] == pytest.approx(1.0, abs=0.01)
    assert 0.4 < ratios["onnx-fp16"] < 0.65
    assert ratios["tflite-int8"] < 0.5
    assert len(report.confusion) == 1 + len(ALL)
    assert sum(map(sum, report.confusion[0].counts)) == report.held_out_samples


def test_a_report_can_be_stored_as_json() -> None:
    report = _digits().report
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report


def test_the_same_inputs_give_the_same_bundle() -> None:
    again = digits_conversion(targets=ALL)
    assert again.bundle == _digits().bundle
    assert again.models == _digits().models


def test_a_declared_layout_goes_into_the_manifest_and_decides_what_is_profiled() -> None:
    bundle = digits_conversion(targets=("onnx-fp32",), layout="NHW").bundle
    assert bundle is not None
    assert bundle.manifest.signature.inputs[0].layout == "NHW"
    axes = {feature.name: feature.axes for feature in bundle.manifest.reference.features}
    assert axes["input.sharpness"] == (1, 2)
    undeclared = _digits().bundle
    assert undeclared is not None
    assert not any(feature.axes for feature in undeclared.manifest.reference.features)
    training, held_out = (replace(samples_of(each), layout="NHW") for each in training_and_held_out())
    by_dataset = digits_conversion(targets=("onnx-fp32",), samples=training, held_out=held_out).bundle
    assert by_dataset == bundle
    for unfit in ("NHWC", "HW"):
        with pytest.raises(InvalidInput, match="NHW"):
            digits_conversion(targets=("onnx-fp32",), layout=unfit)


def test_steps_are_reported_in_order() -> None:
    steps: list[tuple[str, int, int]] = []
    targets = ("onnx-fp32", "tflite-fp32")
    digits_conversion(targets=targets, on_step=lambda *step: steps.append(step))
    expected = conversion_steps(targets)
    assert steps == [(name, done, len(expected)) for done, name in enumerate(expected)]


def test_a_source_below_the_demand_is_not_converted() -> None:
    with pytest.raises(AccuracyTooLow, match=r"0\.9990 is demanded"):
        digits_conversion(gate=Gate(minimum=0.999))


def _calibrated_on_nothing(**changes: Any) -> Conversion:
    """Calibrate on blank images: every activation of a real image saturates."""
    training, _ = training_and_held_out()
    blank = Samples({"features": np.zeros_like(training.features)})
    return digits_conversion(samples=blank, **changes)


def test_a_quantized_variant_that_loses_too_much_is_left_out_and_the_report_says_why() -> None:
    conversion = _calibrated_on_nothing()
    assert conversion.bundle is not None
    assert [variant.name for variant in conversion.bundle.manifest.variants] == ["onnx-fp32"]
    assert set(conversion.models) == {"onnx-fp32"}
    assert len(conversion.bundle.blobs) == 3  # model, golden inputs, golden outputs
    assert not conversion.report.variant("tflite-int8").packed
    refused = conversion.report.variant("onnx-int8")
    assert "accuracy falls by" in refused.reason
    assert refused.drop is not None
    assert refused.drop > 0.02


def test_without_samples_only_float_variants_are_judged_and_nothing_is_bundled() -> None:
    conversion = convert(digits_source(), targets=ALL)
    assert conversion.bundle is None
    packed = {variant.name for variant in conversion.report.variants if variant.packed}
    assert packed == {"onnx-fp32", "onnx-fp16", "ort-fp32", "tflite-fp32", "tflite-fp16"}
    assert "samples" in conversion.report.variant("onnx-int8").reason
    assert "samples" in conversion.report.variant("onnx-int4").reason


def test_a_target_or_dataset_that_is_not_there_is_refused(tmp_path: Any) -> None:
    with pytest.raises(InvalidInput, match="onnx-int8"):
        digits_conversion(targets=("onnx-int9",))
    with pytest.raises(NotFound):
        digits_conversion(samples=tmp_path / "none.npz")
    with pytest.raises(InvalidDataset, match="input"):
        digits_conversion(samples=Samples({"features": np.zeros((4, 3), dtype=np.float32)}))


def _table(seed: int = 0) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]]:
    random = np.random.RandomState(seed)
    numbers = random.normal(size=(600, 3)).astype(np.float32)
    text = random.choice(["red", "green", "blue"], size=(600, 1)).astype(object)
    labels = ((numbers[:, 0] + (text[:, 0] == "red")) > 0.5).astype(np.int64)
    return numbers, text, labels


def test_a_table_with_text_runs_on_onnxruntime_and_is_refused_for_tflite_with_the_node() -> None:
    numbers, text, labels = _table()
    rows = np.concatenate([numbers.astype(object), text], axis=1)
    columns = ColumnTransformer([("n", StandardScaler(), [0, 1, 2]), ("t", OneHotEncoder(), [3])])
    pipeline = make_pipeline(columns, MLPClassifier((32,), tol=1e-3, random_state=0, max_iter=500)).fit(
        rows, labels
    )
    samples = Samples({"features": numbers, "categories": text}, labels)
    conversion = convert(pipeline, samples=samples, gate=Gate(maximum_drop=0.02, minimum=0.9))
    report = conversion.report
    assert report.variant("onnx-fp32").packed
    assert report.variant("onnx-int8").packed, report.variant("onnx-int8").reason
    for name in ("tflite-fp32", "tflite-int8"):
        assert not report.variant(name).packed
        assert "OneHotEncoder" in report.variant(name).reason or "Label" in report.variant(name).reason
    assert conversion.bundle is not None
    assert [t.dtype for t in conversion.bundle.manifest.signature.inputs] == ["float32", "str"]
    assert len(conversion.bundle.manifest.golden_inputs) == 2


def test_trees_are_packed_in_float_alone() -> None:
    training, _ = training_and_held_out()
    rows = training.features.reshape(len(training), -1)
    forest = RandomForestClassifier(20, random_state=0).fit(rows, training.labels)
    flat = Samples({"features": rows}, training.labels)
    report = convert(forest, samples=flat).report
    packed = {variant.name for variant in report.variants if variant.packed}
    assert {"onnx-fp32", "ort-fp32"} <= packed <= {"onnx-fp32", "onnx-fp16", "ort-fp32"}
    assert "TreeEnsemble" in report.variant("tflite-fp32").reason


def test_missing_values_pass_where_the_model_takes_them() -> None:
    numbers, _, labels = _table()
    numbers[::7, 1] = np.nan
    boosting = HistGradientBoostingClassifier(max_iter=20, random_state=0).fit(numbers, labels)
    conversion = convert(boosting, targets=["onnx-fp32"], samples=Samples({"features": numbers}, labels))
    assert conversion.report.variant("onnx-fp32").packed
    assert conversion.bundle is not None
    assert conversion.bundle.manifest.signature.inputs[0].missing


@pytest.mark.parametrize(
    ("estimator", "task", "metric"),
    [
        (IsolationForest(n_estimators=20, random_state=0), "anomaly", "r2"),
        (KMeans(4, n_init=1, random_state=0), "clustering", "agreement"),
    ],
)
def test_models_without_labels_are_judged_by_themselves(estimator: Any, task: str, metric: str) -> None:
    numbers, _, _ = _table()
    conversion = convert(
        estimator.fit(numbers), targets=["onnx-fp32"], samples=Samples({"features": numbers})
    )
    (variant,) = conversion.report.variants
    assert variant.packed, variant.reason
    assert conversion.report.source.task == task
    assert variant.evaluation is not None
    assert variant.evaluation.metric == metric
    assert conversion.bundle is not None


def test_a_regression_is_judged_by_its_targets() -> None:
    numbers, _, _ = _table()
    targets = (numbers @ np.array([[1.0], [2.0], [-1.0]])).astype(np.float32)
    model = make_pipeline(StandardScaler(), Ridge()).fit(numbers, targets)
    conversion = convert(
        model,
        targets=["onnx-fp32", "tflite-fp32", "tflite-int8"],
        samples=Samples({"features": numbers}, targets=targets),
    )
    for variant in conversion.report.variants:
        assert variant.packed, variant.reason
        assert variant.evaluation is not None
        assert variant.evaluation.metric == "r2"
        assert variant.evaluation.value > 0.98


def _with_one_loud_unit() -> Source:
    """Return a network that answers as well as others, one unit of which is 2,000 times as loud as its layer.

    One scale has to serve all units of a layer, and the others drown in the steps of the loud one.
    """
    training, _ = training_and_held_out()
    network = MLPClassifier((48, 32), max_iter=300, tol=1e-2, random_state=0)
    rows = training.features.reshape(len(training), -1)
    pipeline = make_pipeline(MinMaxScaler(), network).fit(rows, training.labels)
    loud = int(np.abs(network.coefs_[1]).sum(axis=1).argmax())
    network.coefs_[0][:, loud] *= 2000
    network.intercepts_[0][loud] *= 2000
    network.coefs_[1][loud] /= 2000
    return open_sklearn(pipeline, name="loud", classes=CLASSES, sample_shape=(8, 8))


@pytest.mark.parametrize(
    ("target", "kept"),
    # On onnxruntime the layer that takes the loud unit; TFLite quantizes what dense layers give as well.
    [("onnx-int8", {"MatMul_1"}), ("tflite-int8", {"MatMul_0", "MatMul_1"})],
)
def test_the_fewest_layers_are_kept_in_float_that_bring_the_accuracy_back(
    target: str, kept: set[str]
) -> None:
    source = _with_one_loud_unit()
    refused = digits_conversion(source, targets=[target]).report.variant(target)
    assert not refused.packed
    assert refused.drop is not None
    assert refused.drop > 0.05
    conversion = digits_conversion(source, targets=[target], keep_float="auto", sensitivity=True)
    mixed = conversion.report.variant(target)
    assert mixed.packed, mixed.reason
    assert set(mixed.kept_float) == kept
    assert {layer.name for layer in conversion.report.layers} == {"MatMul_0", "MatMul_1", "MatMul_2"}
    named = digits_conversion(source, targets=[target], keep_float=mixed.kept_float)
    assert named.models == conversion.models


@pytest.mark.parametrize("target", ["onnx-int8", "onnx-int4", "tflite-int8"])
def test_a_layer_that_is_named_stays_float_in_every_quantized_variant_and_the_report_says_so(
    target: str,
) -> None:
    conversion = digits_conversion(targets=[target, "onnx-fp32"], keep_float=["MatMul_1"])
    assert conversion.report.variant(target).kept_float == ("MatMul_1",)
    assert conversion.report.variant("onnx-fp32").kept_float == ()
    assert len(conversion.models[target]) > len(_digits().models[target])


def test_a_layer_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(InvalidInput, match=r"no node 'MatMul_7'.*MatMul_0, MatMul_1"):
        digits_conversion(keep_float=["MatMul_0", "MatMul_7"])


def test_a_search_for_layers_leaves_a_sound_variant_alone() -> None:
    conversion = digits_conversion(keep_float="auto")
    assert all(variant.packed and not variant.kept_float for variant in conversion.report.variants)


def test_a_variant_that_is_slower_than_float_is_marked() -> None:
    tiny = open_sklearn(fitted_model("logistic"), name="tiny", classes=CLASSES, sample_shape=(8, 8))
    conversion = digits_conversion(tiny, targets=("onnx-fp32", "onnx-int8"))
    fp32, int8 = (conversion.report.variant(name) for name in ("onnx-fp32", "onnx-int8"))
    # Integers bring more nodes, and on a small model these cost more than the products that they speed up.
    nodes = {name: len(onnx.load_from_string(model).graph.node) for name, model in conversion.models.items()}
    assert nodes["onnx-int8"] > nodes["onnx-fp32"]
    ratio = int8.latency_us["onnxruntime"] / fp32.latency_us["onnxruntime"]
    assert (ratio >= SLOWER_BY) == any("times as long as onnx-fp32" in text for text in int8.cautions)


@pytest.mark.parametrize(("latency_us", "marked"), [(10.0, False), (10.4, False), (10.6, True), (30.0, True)])
def test_slower_means_more_than_medians_differ_by_chance(latency_us: float, marked: bool) -> None:
    fp32 = Candidate(TARGETS["onnx-fp32"], model=b"full", latency_us=10.0)
    int8 = Candidate(TARGETS["onnx-int8"], model=b"int", latency_us=latency_us)
    elsewhere = Candidate(TARGETS["tflite-int8"], model=b"int", latency_us=99.0)
    mark_slower([fp32, int8, elsewhere])
    assert bool(int8.cautions) == marked
    assert not fp32.cautions
    assert not elsewhere.cautions  # there is no fp32 on its runtime to compare it with
