"""Estimators of scikit-learn that are written here rather than by skl2onnx, as their formulas.

**Distances to centres** (k-means). skl2onnx computes √(‖x‖² - 2xᵀc + ‖c‖²). In float32 the three terms of a
sample close to a centre cancel to a value that may be negative, whose root is not a number. Here:
√(Σ(x - c)²).

**Isolation forest** (Liu, Ting and Zhou 2008). The score of a sample is -2^(-E[h] / c(ψ)) - offset, with h
the number of edges from the root to its leaf plus c(samples in the leaf), and c(n) = 2(ln(n-1) + γ) -
2(n-1)/n the mean depth of a search tree of n samples. As h is a property of leaves, one ensemble of trees
gives the sum; skl2onnx writes some 25 nodes for each tree.

**Networks for regression.** skl2onnx gives the answers of every network one column: with T targets, N samples
become N·T.

**Imputers**: Where(IsNaN(x), fill, x), with core operators; skl2onnx writes an ``Imputer`` of ``ai.onnx.ml``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from converters.sources.sklearn_columns import fills_missing


class Graph(Protocol):
    """A graph that is being written."""

    def node(self, operator: str, inputs: list[str], *, domain: str = "", **attributes: Any) -> str:
        """Add a node and return the name of its output."""

    def constant(self, values: NDArray[Any]) -> str:
        """Add a constant and return its name."""


Formula = Callable[[Graph, Any, str], tuple[str, int]]
"""Writes a fitted estimator into a graph: takes its input's name, returns its output's and the output's
columns."""


def formula_of(estimator: Any) -> Formula | None:
    """Return how an estimator is written, where that is known here."""
    from sklearn.cluster import BisectingKMeans, KMeans, MiniBatchKMeans
    from sklearn.ensemble import IsolationForest
    from sklearn.neural_network import MLPRegressor

    if isinstance(estimator, KMeans | MiniBatchKMeans | BisectingKMeans):
        return _distances
    if isinstance(estimator, IsolationForest):
        return _isolation
    if isinstance(estimator, MLPRegressor) and estimator.activation in _ACTIVATIONS:
        return _network
    if fills_missing(estimator):
        return _filled
    return None


def _distances(graph: Graph, estimator: Any, tensor: str) -> tuple[str, int]:
    """Write the distance of each sample, (N, D), to each centre, (K, D): (N, K)."""
    centres = estimator.cluster_centers_.astype(np.float32)
    sample = graph.node("Unsqueeze", [tensor, graph.constant(np.array([1], dtype=np.int64))])
    difference = graph.node("Sub", [sample, graph.constant(centres[np.newaxis])])
    square = graph.node("Mul", [difference, difference])
    axes = graph.constant(np.array([2], dtype=np.int64))
    return graph.node("Sqrt", [graph.node("ReduceSum", [square, axes], keepdims=0)]), len(centres)


_ACTIVATIONS = {"identity": "", "logistic": "Sigmoid", "tanh": "Tanh", "relu": "Relu", "exp": "Exp"}


def _network(graph: Graph, estimator: Any, tensor: str) -> tuple[str, int]:
    """Write the answers of a network to the samples, (N, D): (N, T)."""
    layers = list(zip(estimator.coefs_, estimator.intercepts_, strict=True))
    for number, (weights, biases) in enumerate(layers, start=1):
        product = graph.node("MatMul", [tensor, graph.constant(weights.astype(np.float32))])
        tensor = graph.node("Add", [product, graph.constant(biases.astype(np.float32))])
        last = number == len(layers)
        activation = _ACTIVATIONS[estimator.out_activation_ if last else estimator.activation]
        if activation:
            tensor = graph.node(activation, [tensor])
    return tensor, estimator.n_outputs_


def _filled(graph: Graph, estimator: Any, tensor: str) -> tuple[str, int]:
    """Write the samples, (N, D), with a value of each column in place of NaN: (N, D)."""
    fill = np.asarray(estimator.statistics_, dtype=np.float32)
    filled = graph.node("Where", [graph.node("IsNaN", [tensor]), graph.constant(fill), tensor])
    return filled, len(fill)


def _isolation(graph: Graph, estimator: Any, tensor: str) -> tuple[str, int]:
    """Write the decision function of each sample, (N, D): (N, 1)."""
    scale = -np.log(2.0) / (len(estimator.estimators_) * _mean_depth(np.array([estimator.max_samples_]))[0])
    attributes: dict[str, list[Any]] = {name: [] for name in (*_NODE_ATTRIBUTES, *_LEAF_ATTRIBUTES)}
    pairs = zip(estimator.estimators_, estimator.estimators_features_, strict=True)
    for number, (tree, features) in enumerate(pairs):
        _add_tree(attributes, number, tree.tree_, features, scale)
    exponent = graph.node(
        "TreeEnsembleRegressor",
        [tensor],
        domain="ai.onnx.ml",
        n_targets=1,
        aggregate_function="SUM",
        **attributes,
    )
    score = graph.node("Neg", [graph.node("Exp", [exponent])])
    offset = graph.constant(np.array([estimator.offset_], dtype=np.float32))
    return graph.node("Sub", [score, offset]), 1


_NODE_ATTRIBUTES = (
    "nodes_treeids",
    "nodes_nodeids",
    "nodes_modes",
    "nodes_featureids",
    "nodes_values",
    "nodes_truenodeids",
    "nodes_falsenodeids",
)
_LEAF_ATTRIBUTES = ("target_treeids", "target_nodeids", "target_ids", "target_weights")


def _add_tree(
    attributes: dict[str, list[Any]], number: int, tree: Any, features: NDArray[np.intp], scale: float
) -> None:
    """Add a tree, its leaves weighing ``scale`` times the depth that they stand for."""
    leaf = tree.children_left == -1
    nodes = np.arange(tree.node_count)
    rows = (
        np.full(tree.node_count, number),
        nodes,
        np.where(leaf, "LEAF", "BRANCH_LEQ"),
        np.where(leaf, 0, np.asarray(features)[np.where(leaf, 0, tree.feature)]),
        np.where(leaf, 0.0, _rounded_down(tree.threshold)),
        np.where(leaf, 0, tree.children_left),
        np.where(leaf, 0, tree.children_right),
    )
    for name, row in zip(_NODE_ATTRIBUTES, rows, strict=True):
        attributes[name] += row.tolist()
    weights = scale * (_edges_from_root(tree) + _mean_depth(tree.n_node_samples))
    zeros = np.zeros(tree.node_count, dtype=int)
    for name, row in zip(_LEAF_ATTRIBUTES, (zeros + number, nodes, zeros, weights), strict=True):
        attributes[name] += row[leaf].tolist()


def _rounded_down(thresholds: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the greatest float32 at or below each: ``x ≤ t`` then stays as it is for every float32 x."""
    nearest = thresholds.astype(np.float32)
    below = np.nextafter(nearest, np.float32(-np.inf))
    return np.where(nearest > thresholds, below, nearest).astype(np.float32)


def _edges_from_root(tree: Any) -> NDArray[np.int64]:
    depths = np.zeros(tree.node_count, dtype=np.int64)
    for node in range(tree.node_count):  # parents are numbered before their children
        for child in (tree.children_left[node], tree.children_right[node]):
            if child != -1:
                depths[child] = depths[node] + 1
    return depths


def _mean_depth(samples: NDArray[Any]) -> NDArray[np.float64]:
    """Return c(n) for each n: 0 up to one sample, 1 for two."""
    count = np.maximum(samples.astype(np.float64), 3.0)
    deep = 2.0 * (np.log(count - 1.0) + np.euler_gamma) - 2.0 * (count - 1.0) / count
    return np.where(samples <= 1, 0.0, np.where(samples == 2, 1.0, deep))
