"""The models that converters are compared on: five small networks, trained here on scikit-learn's digits.

===========  ============================================================  =======  =====================
name         layers                                                        input    metric
===========  ============================================================  =======  =====================
mlp          dense 64-128-64-10                                            64       accuracy
cnn          two convolutions, each with pooling, and two dense layers     1×8×8    accuracy
ds-cnn       MobileNet-like: depthwise-separable convolutions with batch   1×8×8    accuracy
             normalization, ReLU6 and a residual connection
autoencoder  dense 64-128-16-128-64                                        64       area under the curve
mlp-30mb     dense 64-2,700-2,700-10: 7.5 million weights, 30 MB           64       accuracy
===========  ============================================================  =======  =====================

The autoencoder has seen the digits 0 to 4 only; the metric is how well its squared error of reconstruction
tells the others from them (AUROC: the chance that an anomaly has a greater error than a normal image). Images
are scaled to 0…1. Of the 1,797 images, 1,200 train (200 of these calibrate) and 597 judge. All seeds are
fixed, PyTorch uses one thread and deterministic algorithms: the same machine trains the same weights.

``python -m benchmarks.models FOLDER`` writes them::

    FOLDER/NAME/model.onnx        fp32, symbolic batch, without the exporter's notes
    FOLDER/NAME/calibration.npz   features: float32 (200, …)
    FOLDER/NAME/held_out.npz      features: float32 (597, …); labels: int64 (597,), of an anomaly 1
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor, nn

TRAINED_ON = 1200
CALIBRATED_WITH = 200
NORMAL_DIGITS = 5
OPSET = 18

Metric = Literal["accuracy", "auroc"]


@dataclass(frozen=True)
class Model:
    """One of the models.

    Attributes:
        name: See the head of this file.
        shape: Of one sample.
        metric: How its answers are judged.
        epochs: How often training goes through all images.
        dense: Whether nearly all bytes are weights of dense layers.
    """

    name: str
    shape: tuple[int, ...]
    metric: Metric
    epochs: int
    dense: bool


MODELS = (
    Model("mlp", (64,), "accuracy", 60, dense=True),
    Model("cnn", (1, 8, 8), "accuracy", 40, dense=False),
    Model("ds-cnn", (1, 8, 8), "accuracy", 40, dense=False),
    Model("autoencoder", (64,), "auroc", 100, dense=True),
    Model("mlp-30mb", (64,), "accuracy", 6, dense=True),
)


def write_models(folder: Path) -> None:
    """Train all models and write them with their samples, as at the head of this file."""
    import torch

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for model in MODELS:
        place = folder / model.name
        place.mkdir(parents=True)
        training, held_out = _samples(model)
        network = _trained(model, training)
        (place / "model.onnx").write_bytes(_exported(network, model.shape))
        np.savez(place / "calibration.npz", features=training["features"][:CALIBRATED_WITH])
        np.savez(place / "held_out.npz", features=held_out["features"], labels=held_out["labels"])


def _samples(model: Model) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    """Return what a model trains on and what it is judged by: features and labels."""
    from sklearn.datasets import load_digits

    images, digits = load_digits(return_X_y=True)
    order = np.random.RandomState(0).permutation(len(digits))
    features = (images[order] / 16.0).astype(np.float32).reshape(-1, *model.shape)
    labels = digits[order].astype(np.int64)
    if model.metric == "accuracy":
        return _part(features, labels, slice(TRAINED_ON)), _part(features, labels, slice(TRAINED_ON, None))
    strange = (labels >= NORMAL_DIGITS).astype(np.int64)
    normal = np.flatnonzero(strange[:TRAINED_ON] == 0)
    return _part(features, strange, normal), _part(features, strange, slice(TRAINED_ON, None))


def _part(
    features: NDArray[np.float32], labels: NDArray[np.int64], which: slice | NDArray[np.intp]
) -> dict[str, NDArray[Any]]:
    return {"features": features[which], "labels": labels[which]}


def _trained(model: Model, samples: Mapping[str, NDArray[Any]]) -> nn.Module:
    """Return the network, fitted by Adam with a cosine-shaped rate on batches of 64."""
    import torch

    torch.manual_seed(0)
    network = _network(model.name)
    features = torch.from_numpy(samples["features"])
    wanted = features if model.metric == "auroc" else torch.from_numpy(samples["labels"])
    loss: nn.Module = torch.nn.MSELoss() if model.metric == "auroc" else torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3 if model.name != "mlp-30mb" else 5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=model.epochs)
    random = np.random.RandomState(0)
    for _ in range(model.epochs):
        for batch in np.array_split(random.permutation(len(features)), len(features) // 64):
            optimizer.zero_grad()
            loss(network(features[batch]), wanted[batch]).backward()
            optimizer.step()
        schedule.step()
    return network.eval()


def _network(name: str) -> nn.Module:
    """Return the untrained network of this name."""
    from torch import nn

    match name:
        case "mlp":
            return _dense(64, 128, 64, 10)
        case "autoencoder":
            return _dense(64, 128, 16, 128, 64)
        case "mlp-30mb":
            return _dense(64, 2700, 2700, 10)
        case "cnn":
            return nn.Sequential(
                *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
                *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
                *(nn.Flatten(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10)),
            )
        case "ds-cnn":
            return nn.Sequential(
                *_normalized(nn.Conv2d(1, 16, 3, padding=1, bias=False)),
                *_separable(16, 32, stride=2),
                _residual(32),
                *_separable(32, 64, stride=2),
                *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)),
            )
    raise ValueError(name)


def _dense(*widths: int) -> nn.Module:
    """Return dense layers of these widths, with ReLU between them."""
    from torch import nn

    layers: list[nn.Module] = []
    for taken, given in itertools.pairwise(widths):
        layers += [nn.Linear(taken, given), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def _normalized(convolution: nn.Conv2d) -> tuple[nn.Module, ...]:
    from torch import nn

    return convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU6()


def _separable(taken: int, given: int, *, stride: int = 1) -> tuple[nn.Module, ...]:
    """Return a depthwise convolution and the pointwise one that mixes its channels."""
    from torch import nn

    depthwise = nn.Conv2d(taken, taken, 3, stride=stride, padding=1, groups=taken, bias=False)
    return *_normalized(depthwise), *_normalized(nn.Conv2d(taken, given, 1, bias=False))


def _residual(channels: int) -> nn.Module:
    from torch import nn

    class Residual(nn.Module):  # type: ignore[misc, unused-ignore] # where torch is missing
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(*_separable(channels, channels))

        def forward(self, features: Tensor) -> Any:
            return features + self.body(features)

    return Residual()


def _exported(network: nn.Module, shape: tuple[int, ...]) -> bytes:
    """Return the network as ONNX, without the exporter's notes: they would flatter every ratio of sizes."""
    import torch

    program = torch.onnx.export(
        network,
        (torch.zeros(2, *shape),),
        input_names=["input"],
        output_names=["output"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    for holder in (model, model.graph, *model.graph.node, *model.graph.value_info, *model.graph.input):
        holder.ClearField("doc_string")
        holder.ClearField("metadata_props")
    for holder in (*model.graph.output, *model.graph.initializer):
        holder.ClearField("metadata_props")
    return bytes(model.SerializeToString(deterministic=True))


if __name__ == "__main__":
    write_models(Path(sys.argv[1]))
