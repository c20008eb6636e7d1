"""scikit-learn estimators as sources: the graph answers like the estimator, kind by kind."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from sklearn.cluster import DBSCAN, KMeans, MiniBatchKMeans
from sklearn.datasets import make_blobs, make_classification
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
    VotingClassifier,
)
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge, RidgeClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor, LocalOutlierFactor
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, Normalizer, RobustScaler, StandardScaler
from sklearn.svm import SVC, SVR, LinearSVC, OneClassSVM
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from converters.source import Source
from converters.sources.sklearn import open_sklearn
from fleet.protocol.errors import ConversionFailed, InvalidModel
from tests.support.sources import assert_parity, run

COLUMNS = 6


def _data(classes: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    samples, labels = make_classification(
        400, COLUMNS, n_informative=4, n_classes=classes, random_state=classes
    )
    return samples.astype(np.float32).astype(np.float64), labels


def operators(source: Source) -> set[str]:
    assert source.onnx is not None
    nodes = onnx.load_from_string(source.onnx).graph.node
    return {f"{node.domain}.{node.op_type}" if node.domain else node.op_type for node in nodes}


CLASSIFIERS = [
    LogisticRegression(),
    make_pipeline(
        StandardScaler(), MLPClassifier((8,), solver="lbfgs", max_iter=300, alpha=1.0, random_state=0)
    ),
    make_pipeline(MinMaxScaler(), PCA(3), LogisticRegression()),
    make_pipeline(RobustScaler(), SVC()),
    DecisionTreeClassifier(random_state=0),
    RandomForestClassifier(10, random_state=0),
    ExtraTreesClassifier(10, random_state=0),
    GradientBoostingClassifier(n_estimators=10, random_state=0),
    HistGradientBoostingClassifier(max_iter=10),
    KNeighborsClassifier(),
    make_pipeline(StandardScaler(), LinearSVC()),
    RidgeClassifier(),
    VotingClassifier(
        [("l", LogisticRegression()), ("t", DecisionTreeClassifier(max_depth=2))], voting="soft"
    ),
    GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression()), {"logisticregression__C": [0.1, 1]}, cv=2
    ),
]


def _name(estimator: Any) -> str:
    steps = getattr(getattr(estimator, "estimator", estimator), "steps", [("", estimator)])
    return "-".join(type(step).__name__ for _, step in steps)


@pytest.mark.parametrize("estimator", CLASSIFIERS, ids=_name)
@pytest.mark.parametrize("classes", [2, 3])
def test_classifiers_answer_alike(estimator: Any, classes: int) -> None:
    samples, labels = _data(classes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a small network need not converge to be compared
        source = open_sklearn(estimator.fit(samples[:300], labels[:300]))
    held_out = samples[300:].astype(np.float32)
    assert source.signature.task == "classification"
    assert len(source.signature.classes) == classes
    assert_parity(source, {"input": held_out})
    predicted = estimator.predict(held_out.astype(np.float64))
    np.testing.assert_array_equal(run(source, {"input": held_out}).argmax(axis=1), predicted)


REGRESSORS = [
    LinearRegression(),
    make_pipeline(MaxAbsScaler(), Ridge()),
    make_pipeline(
        StandardScaler(), MLPRegressor(hidden_layer_sizes=(8,), solver="lbfgs", alpha=1.0, random_state=0)
    ),
    make_pipeline(StandardScaler(), SVR()),
    DecisionTreeRegressor(random_state=0),
    RandomForestRegressor(10, random_state=0),
    GradientBoostingRegressor(n_estimators=10, random_state=0),
    HistGradientBoostingRegressor(max_iter=10),
    KNeighborsRegressor(),
    make_pipeline(Normalizer(), PCA(2)),
]


@pytest.mark.parametrize("estimator", REGRESSORS, ids=_name)
def test_regressors_answer_alike(estimator: Any) -> None:
    samples, _ = _data(2)
    targets = samples @ np.arange(COLUMNS) / 4 + np.sin(samples[:, 0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a small network need not converge to be compared
        source = open_sklearn(estimator.fit(samples[:300], targets[:300]))
    assert source.signature.task == "regression"
    assert_parity(source, {"input": samples[300:].astype(np.float32)})


def test_several_targets_are_several_columns() -> None:
    samples, _ = _data(2)
    source = open_sklearn(RandomForestRegressor(5, random_state=0).fit(samples, samples[:, :2] * 2))
    assert source.signature.outputs[0].shape == (-1, 2)
    assert_parity(source, {"input": samples.astype(np.float32)})


@pytest.mark.parametrize("kind", [KMeans, MiniBatchKMeans])
def test_clusterers_give_distances(kind: Any) -> None:
    samples, _ = make_blobs(300, COLUMNS, centers=4, random_state=0)
    source = open_sklearn(kind(4, n_init=1, random_state=0).fit(samples))
    assert source.signature.task == "clustering"
    assert_parity(source, {"input": samples.astype(np.float32)})


def test_a_sample_on_a_centre_far_from_zero_has_a_distance() -> None:
    """By ‖x‖² - 2xᵀc + ‖c‖² it would be the root of a number below zero, or wrong by 0.03."""
    samples = (make_blobs(200, COLUMNS, centers=3, random_state=0)[0] + 1000.0).astype(np.float32)
    clusterer = KMeans(3, n_init=1, random_state=0).fit(samples.astype(np.float64))
    centres = clusterer.cluster_centers_.astype(np.float32)
    distances = run(open_sklearn(clusterer), {"input": centres})
    assert np.isfinite(distances).all()
    assert np.diag(distances).max() < 1e-3


DETECTORS = [
    IsolationForest(n_estimators=40, random_state=0),
    IsolationForest(n_estimators=10, max_samples=20, max_features=0.5, contamination=0.1, random_state=0),
    make_pipeline(StandardScaler(), OneClassSVM(nu=0.1)),
    LocalOutlierFactor(novelty=True),
]


@pytest.mark.parametrize("estimator", DETECTORS, ids=_name)
def test_detectors_score_strange_samples_lower(estimator: Any) -> None:
    random = np.random.RandomState(3)
    normal = random.standard_normal((300, COLUMNS)).astype(np.float32)
    strange = (random.standard_normal((20, COLUMNS)) * 6).astype(np.float32)
    source = open_sklearn(estimator.fit(normal.astype(np.float64)))
    assert source.signature.task == "anomaly"
    assert_parity(source, {"input": np.concatenate([normal, strange])})
    assert run(source, {"input": strange}).max() < np.median(run(source, {"input": normal}))


def test_an_isolation_forest_is_one_ensemble_of_trees() -> None:
    samples, _ = _data(2)
    source = open_sklearn(IsolationForest(n_estimators=40, random_state=0).fit(samples))
    assert operators(source) == {"ai.onnx.ml.TreeEnsembleRegressor", "Exp", "Neg", "Sub"}


@pytest.mark.filterwarnings("ignore:The `probability` parameter was deprecated:FutureWarning")
@pytest.mark.parametrize("classes", [2, 3])
def test_a_support_vector_classifier_with_probabilities(classes: int) -> None:
    samples, labels = _data(classes)
    source = open_sklearn(SVC(probability=True, random_state=0).fit(samples[:300], labels[:300]))
    assert source.signature.outputs[0].name == "probabilities"
    assert_parity(source, {"input": samples[300:].astype(np.float32)})
    assert any("Platt" in caution for caution in source.cautions)


def test_classes_keep_names_and_order() -> None:
    samples, labels = _data(3)
    words = np.array(["wolf", "ant", "bee"])[labels]
    source = open_sklearn(LogisticRegression().fit(samples, words))
    assert source.signature.classes == ("ant", "bee", "wolf")
    assert_parity(source, {"input": samples.astype(np.float32)})
    numbers = open_sklearn(
        RandomForestClassifier(5, random_state=0).fit(samples, np.array([7, -2, 40])[labels])
    )
    assert numbers.signature.classes == ("-2", "7", "40")
    assert_parity(numbers, {"input": samples.astype(np.float32)})
    given = open_sklearn(LogisticRegression().fit(samples, labels), classes=("a", "b", "c"))
    assert given.signature.classes == ("a", "b", "c")


def test_core_operators_where_they_suffice() -> None:
    samples, labels = _data(3)
    for scaler in (StandardScaler(), MinMaxScaler(), RobustScaler(), MaxAbsScaler(), Normalizer()):
        source = open_sklearn(make_pipeline(scaler, LogisticRegression()).fit(samples, labels))
        assert not any("." in operator for operator in operators(source))


def test_images_are_flattened_inside_the_graph() -> None:
    samples, labels = _data(3)
    source = open_sklearn(
        make_pipeline(StandardScaler(), LogisticRegression()).fit(samples, labels), sample_shape=(2, 3)
    )
    assert source.signature.inputs[0].shape == (-1, 2, 3)
    assert_parity(source, {"input": samples.reshape(-1, 2, 3).astype(np.float32)})
    assert source.onnx is not None
    assert (
        onnx.load_from_string(source.onnx).graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    )


def test_trees_alone_answer_exactly_at_their_thresholds() -> None:
    """A threshold lies between two training values; the float32 nearest to it may lie on either side."""
    samples, labels = _data(2)
    tree = DecisionTreeClassifier(random_state=0).fit(samples, labels)
    source = open_sklearn(tree)
    thresholds = tree.tree_.threshold[tree.tree_.children_left != -1].astype(np.float32)
    at = np.repeat(thresholds, COLUMNS).reshape(-1, COLUMNS)
    near = np.concatenate([at, np.nextafter(at, np.float32(9)), np.nextafter(at, np.float32(-9))])
    np.testing.assert_array_equal(run(source, {"input": near}), source.answer({"input": near}))
    assert source.cautions == ()


def test_trees_behind_a_scaler_may_differ_at_a_threshold_and_say_so() -> None:
    samples, labels = _data(2)
    pipeline = make_pipeline(StandardScaler(), DecisionTreeClassifier(random_state=0)).fit(samples, labels)
    source = open_sklearn(pipeline)
    assert_parity(source, {"input": samples.astype(np.float32)})
    assert any("threshold" in caution for caution in source.cautions)
    tree, scaler = pipeline[-1].tree_, pipeline[0]
    inner = tree.children_left != -1
    features, thresholds = tree.feature[inner], tree.threshold[inner]
    raw = (thresholds * scaler.scale_[features] + scaler.mean_[features]).astype(np.float32)
    near = np.zeros((len(raw) * 41, COLUMNS), dtype=np.float32)
    steps = np.arange(-20, 21, dtype=np.float32) * np.spacing(np.abs(raw))[:, np.newaxis]
    near[np.arange(len(near)), np.repeat(features, 41)] = (raw[:, np.newaxis] + steps).ravel()
    differing = (run(source, {"input": near}) != source.answer({"input": near})).any(axis=1).mean()
    assert differing < 0.1  # of samples put within 20 units in the last place of a threshold


def test_a_wide_model_of_one_kind_is_named_by_its_layers() -> None:
    samples, labels = _data(3)
    pipeline = make_pipeline(
        StandardScaler(), MLPClassifier((8,), solver="lbfgs", max_iter=300, alpha=1.0, random_state=0)
    )
    source = open_sklearn(pipeline.fit(samples, labels))
    assert source.onnx is not None
    graph = onnx.load_from_string(source.onnx).graph
    assert [node.name for node in graph.node] == [
        "Sub_0", "Div_0", "MatMul_0", "Add_0", "Relu_0", "MatMul_1", "Add_1", "Softmax_0",
    ]  # fmt: skip
    assert all(len(tensor.dims) == 1 for tensor in graph.initializer if tensor.name.startswith("Add"))


def test_neighbours_say_that_they_carry_the_training_samples() -> None:
    samples, labels = _data(2)
    assert "training samples" in open_sklearn(KNeighborsClassifier().fit(samples, labels)).cautions[0]


def test_what_is_not_a_fitted_estimator_is_refused() -> None:
    with pytest.raises(InvalidModel, match="not fitted"):
        open_sklearn(LogisticRegression())
    with pytest.raises(InvalidModel, match="not fitted"):
        open_sklearn(make_pipeline(StandardScaler(), LogisticRegression()))
    with pytest.raises(InvalidModel, match="no scikit-learn estimator"):
        open_sklearn({"weights": [1, 2]})


def test_estimators_that_cannot_judge_new_samples_are_refused() -> None:
    samples, _ = _data(2)
    with pytest.raises(ConversionFailed, match="DBSCAN"):
        open_sklearn(DBSCAN().fit(samples))
    with pytest.raises(ConversionFailed, match="novelty=True"):
        open_sklearn(LocalOutlierFactor().fit(samples))


def test_arguments_that_do_not_suit_the_model_are_refused() -> None:
    samples, labels = _data(3)
    fitted = LogisticRegression().fit(samples, labels)
    with pytest.raises(InvalidModel, match="2 class names"):
        open_sklearn(fitted, classes=("a", "b"))
    with pytest.raises(InvalidModel, match="takes 6"):
        open_sklearn(fitted, sample_shape=(8, 8))
    with pytest.raises(ConversionFailed, match="refuses the samples"):
        open_sklearn(fitted).answer({"input": np.zeros((1, 5), dtype=np.float32)})
    pairs = SVC(decision_function_shape="ovo").fit(
        *make_classification(200, n_informative=4, n_classes=4, random_state=0)
    )
    with pytest.raises(ConversionFailed, match="6 numbers for 4 classes"):
        open_sklearn(pairs)
