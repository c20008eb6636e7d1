"""Whether requests that wait for a model are better computed in one run: measured at each load.

It pays for models whose time goes to what a run does once, such as reading large weights from memory, and not
for those whose time goes to each sample. So golden inputs are computed alone, in pairs, and as many at once
as may be joined::

    one costs < `LEAST_NS`                            ──► not joined
    a pair costs ≥ 2 × `WORTH` of one sample          ──► not joined; little time was lost to find out
    many cost ≥ `WORTH` of one, per sample            ──► not joined
    answers alone and among many are not the same     ──► not joined
    else                                              ──► joined, up to so many

The same means within the tolerance of the self-test, for every output that is answered with: runtimes compute
a batch in another order than a single sample, and a model may mix the samples of a batch, which nobody who
asks would expect.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.runtimes.protocol import LoadedModel, Tensors
from agent.runtimes.self_test import golden_inputs
from fleet.protocol.difference import scaled_differences
from fleet.protocol.errors import InferenceFailed, SelfTestFailed, StorageError
from fleet.protocol.manifest import Manifest, Signature, Variant

WORTH = 0.8
"""What a sample may cost in a joined run, of what it costs alone."""
BUDGET_NS = 250_000_000
"""How long as many samples as are joined may take alone: of slow models fewer are tried, and joined."""
LEAST_NS = 200_000
"""What a sample costs alone at least: joining and taking apart takes some 10 µs for each request (measured),
which is more than what quick runs save."""
REPEATS = 8
REPEATED_NS = 50_000_000
"""After so long runs are not repeated."""

Outputs = dict[str, NDArray[Any]]


def joinable_samples(
    model: LoadedModel, manifest: Manifest, variant: Variant, folder: Path, limit: int
) -> int:
    """Return how many samples a joined run of a model may have; 1 if joining does not pay.

    Args:
        model: The variant in memory; nobody else uses it now.
        manifest: Describes the tensors.
        variant: States the tolerance.
        folder: Where the verified files of the bundle are.
        limit: How many it may be at most.
    """
    if limit < 2 or not _has_free_batch(manifest.signature):
        return 1
    try:
        golden = golden_inputs(manifest, folder)
        alone_ns, _ = _timed(model, _repeated(golden, 1))
        limit = min(limit, BUDGET_NS // alone_ns)
        if alone_ns < LEAST_NS or limit < 2:
            return 1
        pair_ns, _ = _timed(model, _repeated(golden, 2))
        if pair_ns >= 2 * WORTH * alone_ns:
            return 1
        many_ns, together = _timed(model, _repeated(golden, limit))
        if many_ns >= limit * WORTH * alone_ns:
            return 1
        count = min(limit, manifest.golden_count)
        alone = [model.infer(_repeated(golden, 1, start)) for start in range(count)]
    except (InferenceFailed, SelfTestFailed, StorageError):
        return 1  # the self-test tells
    names = [tensor.name for tensor in manifest.signature.outputs]
    return limit if _agree(names, together, alone, variant.golden_tolerance) else 1


def _has_free_batch(signature: Signature) -> bool:
    return all(tensor.shape[:1] == (-1,) for tensor in (*signature.inputs, *signature.outputs))


def _repeated(golden: Tensors, samples: int, start: int = 0) -> Outputs:
    """Return so many golden inputs, from the beginning again where there are not enough."""
    return {
        name: np.take(values, range(start, start + samples), axis=0, mode="wrap")
        for name, values in golden.items()
    }


def _timed(model: LoadedModel, inputs: Tensors) -> tuple[int, Outputs]:
    """Return the shortest of some runs, which the rest of the device disturbed least, and the answer."""
    started_ns = time.perf_counter_ns()
    answer = model.infer(inputs)
    quickest_ns = time.perf_counter_ns() - started_ns
    for _ in range(REPEATS):
        if time.perf_counter_ns() - started_ns > REPEATED_NS:
            break
        begun_ns = time.perf_counter_ns()
        answer = model.infer(inputs)
        quickest_ns = min(quickest_ns, time.perf_counter_ns() - begun_ns)
    return max(1, quickest_ns), answer


def _agree(names: list[str], together: Outputs, alone: list[Outputs], tolerance: float) -> bool:
    """Tell whether a joined run gave what the golden inputs gave alone."""
    for name in names:
        values = together[name]
        singles = [outputs[name] for outputs in alone]
        if any(single.shape != (1, *values.shape[1:]) for single in singles):
            return False
        expected = np.take(np.concatenate(singles), range(len(values)), axis=0, mode="wrap")
        if values.dtype.kind != "f":
            if not np.array_equal(values, expected):
                return False
        elif not float(scaled_differences(values, expected).max()) <= tolerance:
            return False
    return True
