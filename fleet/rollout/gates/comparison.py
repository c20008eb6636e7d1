"""Canaries beside controls, the whole and each class of devices, in effective counts; and the evidence.

**Classes.** Harm may sit in one hardware class only. Every stratum of which both arms have the metric's
``minimum_samples`` is a class and compared on its own, and all of them together are the whole. The
canaries of a small stage are another mix of classes than the controls, so the whole is standardized: the
controls' share is the mean of the classes' shares, weighted as the canaries are,

    b = sum w_s b_s        worth        n = 1 / sum (w_s² / n_s)        independent answers,

with w_s the class's part of the canaries' effective answers (direct standardization). Spans of a stage
(`fleet.rollout.gates.spans`) are standardized likewise, of the whole and of each class. Devices of strata
that are no class are compared as if they were one class, and left out of the whole while their controls are
too few: compared with devices of other classes, a harmless version could look harmful. Of the canaries,
whose classes have shares of their own, only the mean share is bounded, which is all that a bet needs
(`fleet.rollout.gates.eprocess`).

**Effective counts** are counts by the weight that `fleet.rollout.gates.dispersion` gives them.

**One metric, many pairs.** Shares are compared by the margin, latency and memory by their quantile. Drift of
the output compares the share of every class, upwards and downwards, drift of confidences and inputs the
share below every edge of a bin, so that the margin bounds the distance of the two distributions
(Kolmogorov's, at the edges): the evidence of drift is the mean of the e-values, and the evidence that there
is none is the least of them, for all hypotheses have to be rejected. Compared are the classes that any sample
of either side fell into, and the edges below the last bin of which that is so.

**Memory** is read once in a window, and what a device needs today it needs tomorrow: its readings count for
one, whatever their number.

**The shadow** compares the version with the active one on the same samples of the same device. That needs no
control: the share that disagrees is held against the limit.

**Controls of another hour.** What comes over canaries and controls alike, an outage of a network, is the
fault of neither, but controls of earlier stages were spared it. Against them the evidence of harm is the
least of two: that the canaries are worse than those, and that they are beyond the metric's absolute limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fleet.protocol.latency import bucket
from fleet.protocol.memory import bucket_of_bytes
from fleet.rollout.gates.counts import (
    BAD,
    CANARY,
    CELLS,
    CONTROL,
    DEVICES,
    TOTAL,
    Floats,
    Part,
    flattened,
    minus,
    names_of,
    part,
    ratio,
)
from fleet.rollout.gates.dispersion import correlation, weight
from fleet.rollout.gates.eprocess import (
    NOTHING,
    Evidences,
    against_control,
    against_limit,
    mean,
    of_quantiles,
)
from fleet.rollout.gates.evidence import Evidence
from fleet.rollout.plans.plan import Metric, MetricGate

_TOTAL, _CELLS = TOTAL - BAD, CELLS - BAD
"""Effective counts are the fields from `BAD` on."""


class Basis(StrEnum):
    """What the canaries are compared with, see `fleet.rollout.gates.gate`."""

    CONCURRENT = "concurrent"
    EARLIER = "earlier"
    LIMIT = "limit"


class Compared(NamedTuple):
    """A class, or the whole, compared.

    Attributes:
        name: Of the class, or `WHOLE`.
        counts: What both arms said, see `fleet.rollout.gates.counts`; of shape (arms, fields).
        evidences: What follows.
    """

    name: str
    counts: Floats
    evidences: Evidences

    @property
    def canary(self) -> Part:
        """What the canaries said."""
        return part(self.counts[CANARY])

    @property
    def control(self) -> Part:
        """What the controls said; nothing where the basis is LIMIT."""
        return part(self.counts[CONTROL])


def compare(
    gate: MetricGate, place: int, basis: Basis, evidence: Evidence, left_out: Sequence[Evidence] = ()
) -> list[list[Compared]]:
    """Return the whole, and after it the classes if there is more than one; a list for each part left out.

    Args:
        gate: Of the metric.
        place: Of the metric in the arms' tallies.
        basis: What to compare with.
        evidence: The canaries, and the controls to compare with; none where the basis is LIMIT.
        left_out: Parts of the evidence. If there are any, it is compared without each of them in its turn,
            and not whole.
    """
    names, flat = names_of(evidence), flattened(evidence, left_out, place)
    views = minus(flat[:1], flat[1:]) if left_out else flat
    compared = _compared(gate, basis, views)
    found = iter(_evidences(gate, basis, _effective(gate, basis, views, compared)[compared]))
    return [
        [
            Compared(name, counts[0], next(found))
            for name, counts, is_it in zip(names, view, one, strict=True)
            if is_it
        ]
        for view, one in zip(views, compared, strict=True)
    ]


def bucket_of_budget(gate: MetricGate) -> int:
    """Return the last bucket of latency, or of memory, that is not beyond a metric's absolute budget."""
    if gate.metric is Metric.MEMORY:
        assert gate.budget_bytes is not None
        return bucket_of_bytes(gate.budget_bytes)
    assert gate.budget_us is not None
    return bucket(gate.budget_us)


def _compared(gate: MetricGate, basis: Basis, views: Floats) -> NDArray[np.bool_]:
    """Return by view and class what is compared: the whole, and of several those that enough was heard of."""
    arms = 1 if basis is Basis.LIMIT else 2
    compared: NDArray[np.bool_] = np.all(views[:, :, 0, :arms, TOTAL] >= gate.minimum_samples, axis=2)
    compared[:, 1:] &= views.shape[1] > 2
    compared[:, 0] = True
    return compared


def _effective(gate: MetricGate, basis: Basis, views: Floats, compared: NDArray[np.bool_]) -> Floats:
    """Return effective counts of the whole and each class, by view, class, arm and field.

    What an answer is worth follows from all that the devices of its class gave, in whatever span.
    """
    parts = _apart(gate, basis, views, compared)
    rho = np.ones(len(parts)) if gate.metric is Metric.MEMORY else _correlation(parts)
    worth = weight(parts[:, :, 0], rho[:, None, None])
    spans = parts[:, :, 1:, :, BAD:] * worth[:, :, None, :, None]
    whole = spans.reshape(len(spans), 1, -1, *spans.shape[3:])
    return np.concatenate([_standardized(whole), _standardized(spans[:, 1:])], axis=1)


def _apart(gate: MetricGate, basis: Basis, views: Floats, compared: NDArray[np.bool_]) -> Floats:
    """Return the devices of no class that is compared, in place of all devices, and each of these classes."""
    classes = views[:, 1:] * compared[:, 1:, None, None, None]
    rest = minus(views[:, 0], classes.sum(axis=1))
    is_compared = rest[:, 0, CONTROL, TOTAL] >= gate.minimum_samples
    is_compared |= (basis is Basis.LIMIT) | ~np.any(compared[:, 1:], axis=1)
    return np.concatenate([(rest * is_compared[:, None, None, None])[:, None], classes], axis=1)


def _correlation(parts: Floats) -> Floats:
    """Return rho by view; a device is counted once, in however many spans it was heard of."""
    spans = parts[:, :, 1:].copy()
    spans[..., DEVICES] = parts[:, :, :1, :, DEVICES]
    beyond_first = np.maximum(0.0, parts[:, :, 0, :, DEVICES] - 1.0).sum(axis=(1, 2))
    return correlation(spans.reshape(len(spans), -1, spans.shape[-1]), beyond_first)


def _standardized(pairs: Floats) -> Floats:
    """Return both sides whole, the controls' as if they were mixed as the canaries are.

    Args:
        pairs: Effective counts; the last three axes are the pair of sides, the arm and the field. Where there
            are controls at all, canaries without any do not count.
    """
    totals = pairs[..., _TOTAL]
    is_counted = np.all(totals > 0.0, axis=-1) | ~np.any(totals[..., CONTROL] > 0.0, axis=-1, keepdims=True)
    canaries = pairs[..., CANARY, :] * is_counted[..., None]
    canary = canaries.sum(axis=-2)
    share = ratio(canaries[..., _TOTAL], canary[..., None, _TOTAL])
    each = ratio(share, totals[..., CONTROL])
    worth = ratio(np.ones(each.shape[:-1]), (share * each).sum(axis=-1))
    control = (pairs[..., CONTROL, :] * each[..., None]).sum(axis=-2) * worth[..., None]
    return np.stack([canary, control], axis=-2)


def _evidences(gate: MetricGate, basis: Basis, sides: Floats) -> list[Evidences]:
    """Return the evidence on each pair of sides, given by pair, arm and field."""
    if basis is Basis.LIMIT:
        return _beyond_limit(gate, sides[:, CANARY])
    found = _worse(gate, sides)
    if basis is Basis.CONCURRENT:
        return found
    beyond = _beyond_limit(gate, sides[:, CANARY])
    return [Evidences(min(one.harm, two.harm), one.safety) for one, two in zip(found, beyond, strict=True)]


def _worse(gate: MetricGate, sides: Floats) -> list[Evidences]:
    """Return the evidence against the controls."""
    match gate.metric:
        case Metric.OUTPUT_DRIFT:
            cells = sides[..., _CELLS:]
            return _drift(cells, sides[..., _TOTAL], np.any(cells > 0.0, axis=1), gate.margin)
        case Metric.CONFIDENCE_DRIFT | Metric.INPUT_DRIFT:
            cells = sides[..., _CELLS:]
            is_below_last = np.any(cells > 0.0, axis=1)[:, :0:-1].cumsum(axis=1)[:, ::-1] > 0
            return _drift(cells[..., :-1].cumsum(axis=2), sides[..., _TOTAL], is_below_last, gate.margin)
        case Metric.LATENCY | Metric.MEMORY:
            assert gate.quantile is not None and gate.ratio is not None
            cells = sides[..., _CELLS:]
            return of_quantiles(cells[:, CANARY], cells[:, CONTROL], gate.quantile, gate.ratio)
        case _:
            return against_control(sides[:, CANARY, :_CELLS], sides[:, CONTROL, :_CELLS], gate.margin)


def _drift(inside: Floats, totals: Floats, is_asked: NDArray[np.bool_], margin: float) -> list[Evidences]:
    """Return the evidence that any share moved, upwards or downwards, and that none did.

    Args:
        inside: How many samples are in each cell, or below each edge; by pair of sides, arm and cell.
        totals: Of how many; by pair and arm.
        is_asked: Which shares are compared; by pair and cell.
        margin: See `fleet.rollout.plans.plan.MetricGate`.
    """
    pairs, cells = np.nonzero(is_asked)
    up, total = inside[pairs, :, cells], totals[pairs]
    both = np.stack([np.concatenate([up, total - up]), np.concatenate([total, total])], axis=-1)
    of_pair: list[list[Evidences]] = [[] for _ in totals]
    found = against_control(both[:, CANARY], both[:, CONTROL], margin)
    for pair, one in zip([*pairs, *pairs], found, strict=True):
        of_pair[pair].append(one)
    return [
        Evidences(mean([one.harm for one in each]), min(one.safety for one in each)) if each else NOTHING
        for each in of_pair
    ]


def _beyond_limit(gate: MetricGate, canaries: Floats) -> list[Evidences]:
    """Return the evidence against the metric's absolute limit; drift has none."""
    match gate.metric:
        case Metric.OUTPUT_DRIFT | Metric.CONFIDENCE_DRIFT | Metric.INPUT_DRIFT:
            return [NOTHING] * len(canaries)
        case Metric.LATENCY | Metric.MEMORY:
            assert gate.quantile is not None
            late = canaries[:, _CELLS + bucket_of_budget(gate) + 1 :].sum(axis=1)
            return against_limit(np.stack([late, canaries[:, _TOTAL]], axis=1), 1.0 - gate.quantile)
        case _:
            return against_limit(canaries[:, :_CELLS], gate.limit)
