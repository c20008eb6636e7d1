"""Calibration: from which least and greatest value each tensor is quantized.

==============  ==============================================================================================
``minmax``      the least and greatest value that the samples give
``percentile``  as much of both ends is cut off that `PERCENTILE` of the values remain
``entropy``     the threshold, of many, whose 8-bit copy of the values' distribution loses least information:
                that with the least Kullback-Leibler divergence (Migacz, "8-bit inference with
                TensorRT", 2017)
==============  ==============================================================================================

Clipping pays where few outliers stretch the range that all others have to share. onnxruntime's own histograms
keep the tensors of all samples in memory, and its entropy method, at its default of 128 bins for 128 levels,
has a single threshold to choose from, so that it does nothing; hence the ranges are found here.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from converters.data.samples import Inputs, evenly_spaced
from converters.graphs.activations import Range, histograms, ranges
from converters.target import CalibrationMethod
from fleet.protocol.errors import ConversionFailed

MAX_SAMPLES = 512
PERCENTILE = 99.99
BINS = 2048
LEVELS = 128
_STRIDE = 16
"""Bins between one threshold that is tried and the next."""


def calibrated_ranges(
    model: bytes, samples: Inputs, tensors: Collection[str], method: CalibrationMethod
) -> dict[str, tuple[float, float]]:
    """Return from where to where each tensor is to be quantized.

    Args:
        model: The fp32 ONNX graph.
        samples: `MAX_SAMPLES` of them, evenly spaced, are used.
        tensors: Names of the tensors.
        method: See the head of this file.

    Raises:
        ConversionFailed: The graph cannot be run, or a tensor has values that are not finite.
    """
    used = evenly_spaced(samples, MAX_SAMPLES)
    found = ranges(model, used)
    wanted = {name: found[name] for name in found if name in tensors}
    if missing := sorted(set(tensors) - wanted.keys()):
        raise ConversionFailed(f"No calibration sample gives tensor {missing[0]!r} a value.")
    for name, limits in wanted.items():
        if not np.isfinite(limits.minimum) or not np.isfinite(limits.maximum):
            raise ConversionFailed(
                f"Tensor {name!r} has values from {limits.minimum} to {limits.maximum} on the calibration"
                " samples; only finite values can be quantized."
            )
    if method == "minmax":
        return {name: (limits.minimum, limits.maximum) for name, limits in wanted.items()}
    counts = histograms(model, used, wanted, bins=BINS)
    cut = _percentile if method == "percentile" else _entropy
    return {name: cut(counts[name], wanted[name]) for name in wanted}


def _percentile(counts: NDArray[np.int64], limits: Range) -> tuple[float, float]:
    share = np.cumsum(counts) / counts.sum()
    rest = (1.0 - PERCENTILE / 100.0) / 2.0
    edges = np.linspace(limits.minimum, limits.maximum, BINS + 1)
    return float(edges[np.searchsorted(share, rest)]), float(edges[np.searchsorted(share, 1.0 - rest) + 1])


def _entropy(counts: NDArray[np.int64], limits: Range) -> tuple[float, float]:
    """Return the range clipped at the threshold, of the absolute values, that loses least information."""
    absolute = _of_absolute_values(counts, limits)
    # Exact zeros, of which a ReLU leaves many, are represented exactly by every threshold.
    absolute[0] = absolute[1]
    tried = range(LEVELS, BINS + 1, _STRIDE)
    best = min(tried, key=lambda size: (_divergence(absolute, size), -size))
    threshold = max(-limits.minimum, limits.maximum) * best / BINS
    return max(limits.minimum, -threshold), min(limits.maximum, threshold)


def _of_absolute_values(counts: NDArray[np.int64], limits: Range) -> NDArray[np.float64]:
    centres = limits.minimum + (np.arange(BINS) + 0.5) * (limits.maximum - limits.minimum) / BINS
    greatest = max(-limits.minimum, limits.maximum)
    weights = counts.astype(np.float64)
    return np.histogram(np.abs(centres), bins=BINS, range=(0.0, greatest or 1.0), weights=weights)[0]


def _divergence(counts: NDArray[np.float64], size: int) -> float:
    """Return the divergence of the first bins, others clipped into them, from their copy in `LEVELS`."""
    kept = counts[:size]
    clipped = kept.copy()
    clipped[-1] += counts[size:].sum()
    level = np.arange(size) * LEVELS // size
    filled = kept > 0
    members = np.bincount(level, weights=filled, minlength=LEVELS)
    share = np.bincount(level, weights=kept, minlength=LEVELS) / np.maximum(members, 1)
    copy = np.where(filled, share[level], 0.0)
    if not copy.sum():
        return np.inf
    present = clipped > 0
    # A clipped bin that the copy lacks would cost infinitely much; it costs much.
    p = clipped[present] / clipped.sum()
    q = np.maximum(copy[present] / copy.sum(), 1e-12)
    return float((p * np.log(p / q)).sum())
