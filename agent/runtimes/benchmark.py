"""How fast a loaded model answers one golden input: a short measurement with an end.

::

    warm up: WARM_UP_RUNS runs, or WARM_UP_S        caches, lazy allocation, the processor's clock
    measure: RUNS runs, or TIME_S                   at least one run of each, however slow the model

Wall time is taken of each run, CPU time over all of them: its clock is too coarse for one. CPU time is that
of the whole process, so that the runtime's own threads count; what the process does besides counts too, for
every variant alike. Both kinds of noise only ever add, so of several measurements the lower one is nearer
to the truth: see `Timing.better`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from agent.runtimes.protocol import LoadedModel, Tensors
from agent.runtimes.self_test import golden_inputs
from fleet.protocol.manifest import Manifest

WARM_UP_RUNS = 20
WARM_UP_S = 0.05
RUNS = 100
TIME_S = 0.25

Clock = Callable[[], int]
"""Gives nanoseconds."""


class Timing(NamedTuple):
    """What was measured, for one inference.

    Attributes:
        median_us: Median duration.
        p90_us: Duration that nine of ten did not exceed.
        cpu_us: CPU time of all threads together, mean.
    """

    median_us: float
    p90_us: float
    cpu_us: float

    def better(self, other: Timing) -> Timing:
        """Return the lower of each."""
        return Timing(*map(min, self, other))


def sample_of(manifest: Manifest, folder: Path) -> Tensors:
    """Return one golden input, or the first batch of them for a model that takes one size of batch only.

    Raises:
        SelfTestFailed: The files do not hold golden inputs.
    """
    size = max([tensor.shape[0] for tensor in manifest.signature.inputs if tensor.shape], default=-1)
    return {name: values[: max(size, 1)] for name, values in golden_inputs(manifest, folder).items()}


def measure(
    model: LoadedModel,
    inputs: Tensors,
    *,
    clock: Clock = time.perf_counter_ns,
    cpu_clock: Clock = time.process_time_ns,
) -> Timing:
    """Measure how long a model takes for the inputs.

    Args:
        model: In memory; used by nobody else meanwhile.
        inputs: What it is asked, again and again.
        clock: Wall time.
        cpu_clock: CPU time of the process.

    Raises:
        InferenceFailed: The runtime failed.
    """
    _run(model, inputs, WARM_UP_RUNS, WARM_UP_S, clock)
    cpu_before_ns = cpu_clock()
    durations_ns = _run(model, inputs, RUNS, TIME_S, clock)
    cpu_ns = cpu_clock() - cpu_before_ns
    median_ns, p90_ns = np.percentile(durations_ns, [50, 90])
    return Timing(float(median_ns) / 1e3, float(p90_ns) / 1e3, cpu_ns / len(durations_ns) / 1e3)


def _run(model: LoadedModel, inputs: Tensors, runs: int, time_s: float, clock: Clock) -> list[int]:
    """Run the model until one of the bounds is reached; return the durations, in nanoseconds."""
    durations_ns: list[int] = []
    begun_ns = before_ns = clock()
    while len(durations_ns) < runs and (not durations_ns or before_ns - begun_ns < time_s * 1e9):
        model.infer(inputs)
        now_ns = clock()
        durations_ns.append(now_ns - before_ns)
        before_ns = now_ns
    return durations_ns
