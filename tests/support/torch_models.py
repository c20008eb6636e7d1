"""PyTorch modules trained on the digits: the kinds of networks that a converter must master.

PyTorch is an extra. Without it, tests that need it are a failure in CI; on a person's machine they are left
out, and the end of the run says so.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from tests.support.needed import leave_out

TORCH_IS_MISSING = "PyTorch is missing, and these tests need it. Get it with: make setup-torch"
MODELS = ("mlp", "cnn", "ds_cnn", "dense_autoencoder", "conv_autoencoder")
EPOCHS = 6


def require_torch() -> Any:
    """Return PyTorch.

    Without it, the test fails in CI. On a person's machine it is skipped, and the end of the run says so.
    """
    try:
        return importlib.import_module("torch")
    except ImportError:
        leave_out(TORCH_IS_MISSING)


class Trained(NamedTuple):
    """A trained module.

    Attributes:
        module: In evaluation mode.
        inputs: Images that training did not see, float32, of the shape that the module takes.
        labels: Their classes.
        task: What it is for.
    """

    module: Any
    inputs: NDArray[np.float32]
    labels: NDArray[np.int64]
    task: str


@cache
def trained(name: str) -> Trained:
    """Return one of `MODELS`, trained on 1,200 digits with a fixed seed."""
    torch = require_torch()
    torch.set_num_threads(1)  # these networks are too small to share out
    images, labels = load_digits(return_X_y=True)
    order = np.random.RandomState(0).permutation(len(labels))
    images = (images[order] / 16).astype(np.float32)
    images = images.reshape(-1, 1, 8, 8) if name in {"cnn", "ds_cnn", "conv_autoencoder"} else images
    labels = labels[order].astype(np.int64)
    reconstructs = name.endswith("autoencoder")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = _module(torch, name)
        goals = images if reconstructs else labels
        _fit(torch, module, images[:1200], goals[:1200], torch.nn.MSELoss() if reconstructs else _likelihood)
    task = "reconstruction" if reconstructs else "classification"
    return Trained(module.eval(), images[1200:], labels[1200:], task)


def _module(torch: Any, name: str) -> Any:
    nn = torch.nn
    layers = {
        "mlp": lambda: [nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10), nn.Softmax(dim=1)],
        "cnn": lambda: [
            nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1),
            nn.BatchNorm2d(16), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(64, 10),
            nn.Softmax(dim=1),
        ],
        "ds_cnn": lambda: [
            nn.Conv2d(1, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU6(),
            _residual(torch, 16), _residual(torch, 16), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(16, 10), nn.Softmax(dim=1),
        ],
        "dense_autoencoder": lambda: [
            nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 8), nn.ReLU(), nn.Linear(8, 24), nn.ReLU(),
            nn.Linear(24, 64), nn.Sigmoid(),
        ],
        "conv_autoencoder": lambda: [
            nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(8, 4, 3, stride=2, padding=1), nn.ReLU(),
            nn.ConvTranspose2d(4, 8, 2, stride=2), nn.ReLU(),
            nn.ConvTranspose2d(8, 1, 2, stride=2), nn.Sigmoid(),
        ],
    }  # fmt: skip
    return nn.Sequential(*layers[name]())


def _residual(torch: Any, channels: int) -> Any:
    """Return a depthwise-separable block with a shortcut, as in MobileNetV2."""
    nn = torch.nn

    def forward(self: Any, features: Any) -> Any:
        return features + self.body(features)

    def __init__(self: Any) -> None:  # noqa: N807 - of the class below, whose base is known only here
        nn.Module.__init__(self)
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU6(),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    return type("Residual", (nn.Module,), {"__init__": __init__, "forward": forward})()


def _likelihood(probabilities: Any, labels: Any) -> Any:
    chosen = probabilities.gather(1, labels.unsqueeze(1))
    return -(chosen + 1e-7).log().mean()


def _fit(torch: Any, module: Any, inputs: NDArray[Any], goals: NDArray[Any], loss: Any) -> None:
    given, wanted = torch.from_numpy(inputs), torch.from_numpy(goals)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    for _ in range(EPOCHS):
        for start in range(0, len(given), 50):
            optimizer.zero_grad()
            loss(module(given[start : start + 50]), wanted[start : start + 50]).backward()
            optimizer.step()
