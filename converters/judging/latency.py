"""How long an answer takes here: the median over many, taken in turns.

All variants are run one after the other in each round, so that whatever else the machine does falls on all of
them alike. The median is not moved by the few answers that were interrupted. The figures order variants on
this machine and are no promise for a device; they go into the report and never into a bundle.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np

from converters.data.samples import Inputs
from converters.judging.variant import Candidate, Yardstick
from converters.runtimes.runtime import Session

ROUNDS = 200
MIN_ROUNDS = 5
BUDGET_S = 2.0
"""Most time for one variant: models too slow for `ROUNDS` within it get fewer, but at least `MIN_ROUNDS`."""

SLOWER_BY = 1.05
"""From this ratio on a variant is called slower: medians differ by a few percent from run to run."""


def measure_latency(candidates: Sequence[Candidate], yardstick: Yardstick) -> None:
    """Measure all variants that can be run, and say which of them are slower than float here.

    Args:
        candidates: Their latency and cautions are set.
        yardstick: Its first sample is what they answer; of a model with a fixed batch, the first batch.
    """
    ready = {each.target.name: each for each in candidates if each.session is not None and each.sound}
    batch = max(yardstick.signature.inputs[0].shape[0], 1)
    sample = {name: array[:batch] for name, array in yardstick.inputs.items()}
    sessions = {name: each.session for name, each in ready.items() if each.session is not None}
    for name, latency_us in median_latencies_us(sessions, sample).items():
        ready[name].latency_us = latency_us
    mark_slower(list(ready.values()))


def mark_slower(candidates: Sequence[Candidate]) -> None:
    """Add a caution to each variant that takes longer than fp32 on its runtime.

    Integers are not always faster: on small models, or without the right instructions, they are slower.

    Args:
        candidates: Variants that were timed.
    """
    full: dict[str, Candidate] = {}
    for candidate in candidates:
        if candidate.target.precision == "fp32":
            full.setdefault(candidate.target.runtime.name, candidate)
    for candidate in candidates:
        fp32 = full.get(candidate.target.runtime.name)
        if fp32 is None or not candidate.latency_us or not fp32.latency_us:
            continue
        ratio = candidate.latency_us / fp32.latency_us
        smaller = len(candidate.model or b"") < len(fp32.model or b"")
        if ratio >= SLOWER_BY and candidate.target.precision != "fp32":
            candidate.cautions.append(
                f"On {fp32.target.runtime.name} here it takes {ratio:.2f} times as long as"
                f" {fp32.target.name}: it saves {'space, not' if smaller else 'neither space nor'} time."
            )


def median_latencies_us(sessions: Mapping[str, Session], sample: Inputs) -> dict[str, float]:
    """Return the median time of one answer for each session, in microseconds.

    Args:
        sessions: By name.
        sample: One sample, each array of shape (1, …), or one batch where that is fixed.
    """
    for session in sessions.values():
        session.run(sample)  # the first run allocates
    times_s: dict[str, list[float]] = {name: [] for name in sessions}
    started_s = time.perf_counter()
    for done in range(ROUNDS):
        if done >= MIN_ROUNDS and time.perf_counter() - started_s > BUDGET_S * len(sessions):
            break
        for name, session in sessions.items():
            before_s = time.perf_counter()
            session.run(sample)
            times_s[name].append(time.perf_counter() - before_s)
    return {name: float(np.median(values)) * 1e6 for name, values in times_s.items()}
