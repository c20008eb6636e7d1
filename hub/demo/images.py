"""The demo's images: handwritten digits as meter-reading cameras see them.

The 1,797 images of 8 × 8 pixels ship inside scikit-learn (UCI "Optical Recognition of Handwritten Digits",
Alpaydin and Kaynak 1998). They are parted once: what the hub may learn from, and the field, which only the
cameras see. Nothing that trains, calibrates, evaluates or profiles a model ever sees a field image.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from converters.data.dataset import Dataset, split_stratified

SIDE = 8
WHITE = 16.0
FIELD_SHARE = 0.3

Images = NDArray[np.float32]
"""Shape (N, 64), brightness 0 to 16."""


class Digits(NamedTuple):
    """The parted images.

    Attributes:
        registered: What the hub gets.
        field: What the cameras see, with the labels that only the demo knows.
    """

    registered: Dataset
    field: Dataset


def load_digits(seed: int) -> Digits:
    """Return the images, parted by seed."""
    from sklearn.datasets import load_digits as load

    data = load()
    everything = Dataset(
        features=data.data.astype(np.float32),
        labels=data.target.astype(np.int64),
        classes=tuple(str(digit) for digit in range(10)),
    )
    field, registered = split_stratified(everything, share=FIELD_SHARE, seed=seed)
    return Digits(registered=registered, field=field)


def rotated(dataset: Dataset) -> Dataset:
    """Return the images turned by a quarter, as by a loader that takes rows for columns.

    A model trained on them is as good as any by the hub's own checks, whose held-out images have the same
    fault, and useless in the field. That is how such a mistake happens.
    """
    turned = np.rot90(dataset.features.reshape(-1, SIDE, SIDE), axes=(1, 2)).reshape(-1, SIDE * SIDE)
    return Dataset(np.ascontiguousarray(turned), dataset.labels, dataset.classes)


def through_dirty_lens(images: Images) -> Images:
    """Return the images as seen through a film of dirt: blurred by 3 × 3, and veiled.

    The blur is the mean over each pixel's neighbourhood; the veil takes 40 % of the contrast and adds stray
    light, as scattering on a film does.
    """
    padded = np.pad(images.reshape(-1, SIDE, SIDE), ((0, 0), (1, 1), (1, 1)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    veiled = 0.6 * windows.mean(axis=(3, 4)) + 0.25 * WHITE
    seen: Images = np.clip(veiled, 0.0, WHITE).reshape(images.shape).astype(np.float32)
    return seen
