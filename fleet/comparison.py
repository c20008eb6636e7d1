"""Comparing two parts of a fleet, from counts alone: what differs, by how much, and whether that is shown.

Each row of a comparison has an interval for the difference, left less right. All rows hold together, and
however often one looks, with probability `CONFIDENCE`: what may be missed is split evenly over the claims of
the comparison (union bound), one for each share, one for all quantiles of the latency, one for each feature.
A difference is *shown* when its interval leaves out 0.

==================  =========================================================================================
row                 interval
==================  =========================================================================================
error share,        of proportions, `fleet.rollout.gates.confidence`
accuracy
confidence          as of a proportion with the sum of the values in place of the number of bad samples: a
                    likelihood ratio s^x (1-s)^(1-x) / p^x (1-p)^(1-x) is convex in x, so for values between 0
                    and 1 of mean p it is 1 on average at most, as it is for 0 and 1 alone (Hoeffding 1963)
latency quantiles   the share of durations below each bucket's edge has an interval of its own; a quantile is
                    between the edges at which these intervals cross it. The width of a bucket, 19 %, is in it
features            the largest difference between the two in the share of any split: below each edge (the
                    Kolmogorov-Smirnov distance over cells), of each category, of the missing values
==================  =========================================================================================

Requests are taken as independent draws within each side; the sides may share devices.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import msgspec
import numpy as np

from fleet.drift.metrics import jensen_shannon, psi
from fleet.drift.profile import FeatureCounts
from fleet.drift.splits import splits
from fleet.drift.transport import moved
from fleet.protocol.latency import BUCKETS_PER_OCTAVE, LAST_BUCKET, LatencyCounts, quantile_us
from fleet.rollout.gates.confidence import Interval, difference_interval, proportion_interval

CONFIDENCE = 0.95
QUANTILES = (0.5, 0.9, 0.99)


class Side(msgspec.Struct, frozen=True):
    """One side of a comparison.

    Attributes:
        predictions: Answers given.
        errors: Requests that the runtime failed on.
        labelled: Answers for which a label came back.
        correct: Those of them that were right.
        latency: See `fleet.protocol.latency`.
        confidence: Mean confidence of the answers; None if it was not counted.
        confidences: Of how many answers.
        features: Counts by feature, in the layout that both sides share.
    """

    predictions: int = 0
    errors: int = 0
    labelled: int = 0
    correct: int = 0
    latency: LatencyCounts = {}
    confidence: float | None = None
    confidences: int = 0
    features: Mapping[str, FeatureCounts] = {}


class Difference(msgspec.Struct, frozen=True):
    """One row.

    Attributes:
        quantity: What is compared: ``error_share``, ``latency_p50_us``, or a feature's name.
        left: Of the left side; None for a feature, or if nothing was counted.
        right: Likewise.
        left_samples: Of how many requests, labels or values.
        right_samples: Likewise.
        difference: Left less right; of a feature the largest difference in the share of a split.
        lower: Where its interval begins; None if it is not bounded.
        upper: Where it ends; likewise.
        is_shown: Whether the interval leaves out 0.
        sentence: All of it, for people.
        psi: Of a feature, left against right; None else.
        jensen_shannon: Likewise.
        wasserstein: Likewise, in the feature's own unit; None for categories.
    """

    quantity: str
    left: float | None
    right: float | None
    left_samples: int
    right_samples: int
    difference: float | None = None
    lower: float | None = None
    upper: float | None = None
    is_shown: bool = False
    sentence: str = ""
    psi: float | None = None
    jensen_shannon: float | None = None
    wasserstein: float | None = None


Edges = Mapping[str, tuple[float, ...] | None]
"""Of each feature that both sides count in the same layout; None for categories."""


def compare(left: Side, right: Side, edges: Edges) -> list[Difference]:
    """Return what differs between two sides, see the head of this file.

    Args:
        left: One side.
        right: The other.
        edges: Of the features to compare.
    """
    alpha = (1.0 - CONFIDENCE) / (4 + len(edges))
    requests = left.predictions + left.errors, right.predictions + right.errors
    return [
        _of_shares("error_share", (left.errors, right.errors), requests, alpha),
        _of_shares("accuracy", (left.correct, right.correct), (left.labelled, right.labelled), alpha),
        _of_confidence(left, right, alpha),
        *_of_latency(left.latency, right.latency, alpha),
        *(_of_feature(name, left, right, edges[name], alpha) for name in edges),
    ]


def _of_shares(name: str, parts: tuple[int, int], totals: tuple[int, int], alpha: float) -> Difference:
    if not all(totals):
        return _untold(name, totals)
    parts = min(parts[0], totals[0]), min(parts[1], totals[1])
    left, right = parts[0] / totals[0], parts[1] / totals[1]
    interval = difference_interval(parts[0], totals[0], parts[1], totals[1], alpha)
    return _told(name, (left, right), totals, interval)


def _of_confidence(left: Side, right: Side, alpha: float) -> Difference:
    totals = left.confidences, right.confidences
    if left.confidence is None or right.confidence is None or not all(totals):
        return _untold("confidence", totals)
    one = _mean_interval(left.confidence, left.confidences, alpha / 2.0)
    other = _mean_interval(right.confidence, right.confidences, alpha / 2.0)
    interval = Interval(one.lower - other.upper, one.upper - other.lower)
    return _told("confidence", (left.confidence, right.confidence), totals, interval)


def _mean_interval(mean: float, total: int, alpha: float) -> Interval:
    """Return an interval for the mean of values in [0, 1], see the head of this file."""
    summed = min(1.0, max(0.0, mean)) * total
    lower = proportion_interval(math.floor(summed), total, alpha).lower
    return Interval(lower, proportion_interval(math.ceil(summed), total, alpha).upper)


def _of_latency(left: LatencyCounts, right: LatencyCounts, alpha: float) -> Iterator[Difference]:
    totals = sum(left.values()), sum(right.values())
    bands = [_band(counts, alpha / 2.0) for counts in (left, right)]
    for q in QUANTILES:
        name = f"latency_p{q * 100:g}_us"
        values = quantile_us(left, q), quantile_us(right, q)
        if values[0] is None or values[1] is None:
            yield _untold(name, totals)
            continue
        (low, high), (other_low, other_high) = (_crossing(band, q) for band in bands)
        yield _told(name, (values[0], values[1]), totals, Interval(low - other_high, high - other_low))


_Band = list[tuple[float, float, Interval]]
"""From one edge to another in µs there are no durations, and the share of those below is in the interval."""


def _band(counts: LatencyCounts, alpha: float) -> _Band:
    """Return intervals for the share of durations below each edge at which it changes."""
    total, below = sum(counts.values()), 0
    band: _Band = []
    held = sorted(counts)
    for index, following in pairwise([-1, *held, LAST_BUCKET + 1]):
        below += counts.get(index, 0)
        interval = proportion_interval(below, total, alpha / (LAST_BUCKET + 1))
        band.append((_edge_us(index + 1), _edge_us(following), interval))
    return band


def _edge_us(index: int) -> float:
    """Return the lower edge of a bucket; the first begins at 0, and what is beyond the last has no end."""
    if index > LAST_BUCKET:
        return math.inf
    return 0.0 if index <= 0 else float(2.0 ** (index / BUCKETS_PER_OCTAVE))


def _crossing(band: _Band, q: float) -> Interval:
    """Return between which edges the q-quantile lies."""
    lower = max((end for _, end, share in band if share.upper < q and end < math.inf), default=0.0)
    upper = min((start for start, _, share in band if share.lower >= q), default=math.inf)
    return Interval(lower, max(lower, upper))


def _of_feature(
    name: str, left: Side, right: Side, edges: tuple[float, ...] | None, alpha: float
) -> Difference:
    one, other = left.features.get(name), right.features.get(name)
    totals = _values(one), _values(other)
    if one is None or other is None or not all(totals):
        return _untold(name, totals)
    intervals = _split_intervals(one, other, alpha, numeric=edges is not None)
    lower = max(max(0.0, i.lower, -i.upper) for i in intervals)
    upper = max(max(-i.lower, i.upper) for i in intervals)
    cells = [one.missing, *one.cells], [other.missing, *other.cells]
    shares = [_shares(side, numeric=edges is not None) for side in (one, other)]
    found = _told(
        name, (None, None), totals, Interval(lower, upper), float(np.abs(shares[0] - shares[1]).max())
    )
    return msgspec.structs.replace(
        found,
        psi=psi(*cells),
        jensen_shannon=jensen_shannon(*cells),
        wasserstein=None if edges is None else moved(edges, one, other),
    )


def _values(counts: FeatureCounts | None) -> int:
    return 0 if counts is None else counts.total + counts.missing


def _shares(counts: FeatureCounts, *, numeric: bool) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    sides = splits(counts, numeric=numeric)
    return np.asarray(sides.part / np.maximum(1.0, sides.of), dtype=np.float64)


def _split_intervals(
    left: FeatureCounts, right: FeatureCounts, alpha: float, *, numeric: bool
) -> list[Interval]:
    one, other = (splits(side, numeric=numeric) for side in (left, right))
    counts = np.stack([one.part, one.of, other.part, other.of]).astype(np.int64).T.tolist()
    known = {(a, m, b, n): difference_interval(a, m, b, n, alpha / len(counts)) for a, m, b, n in counts}
    return list(known.values())


def _untold(name: str, totals: tuple[int, int]) -> Difference:
    lacking = " and ".join(side for side, total in zip(("left", "right"), totals, strict=True) if not total)
    return Difference(name, None, None, *totals, sentence=f"{name}: nothing was counted on the {lacking}.")


def _told(
    name: str,
    values: tuple[float | None, float | None],
    totals: tuple[int, int],
    interval: Interval,
    difference: float | None = None,
) -> Difference:
    left, right = values
    if difference is None and left is not None and right is not None:
        difference = left - right
    is_shown = interval.lower > 0.0 or interval.upper < 0.0
    return Difference(
        quantity=name,
        left=left,
        right=right,
        left_samples=totals[0],
        right_samples=totals[1],
        difference=difference,
        lower=interval.lower if math.isfinite(interval.lower) else None,
        upper=interval.upper if math.isfinite(interval.upper) else None,
        is_shown=is_shown,
        sentence=_sentence(name, values, totals, interval, difference or 0.0, is_shown=is_shown),
    )


def _sentence(
    name: str,
    values: Sequence[float | None],
    totals: tuple[int, int],
    interval: Interval,
    difference: float,
    *,
    is_shown: bool,
) -> str:
    left, right = values
    if left is None or right is None:
        sizes = f"of {totals[0]:,} values on the left and {totals[1]:,} on the right"
        size = f"{difference * 100:.2f} ({_range(name, interval)})"
        if is_shown:
            return f"{name}: the two differ, at most by {size} in the share of a part, {sizes}."
        return f"{name}: no difference is shown; at most {size} in the share of a part, {sizes}."
    stands = f"{_shown(name, left)} of {totals[0]:,} on the left"
    stands += f", {_shown(name, right)} of {totals[1]:,} on the right"
    if not is_shown:
        return f"{name}: no difference is shown; {stands}; the difference is {_range(name, interval)}."
    how = "higher" if interval.lower > 0.0 else "lower"
    apart = interval if interval.lower > 0.0 else Interval(-interval.upper, -interval.lower)
    return f"{name}: {how} on the left, by {_range(name, apart)}; {stands}."


def _range(name: str, interval: Interval) -> str:
    """Return a range of differences: of shares in percentage points."""
    lower, upper = interval
    unit, scale = ("µs", 1.0) if name.endswith("_us") else ("points", 100.0)
    if math.isinf(lower) and math.isinf(upper):
        return "not bounded"
    if math.isinf(lower):
        return f"at most {upper * scale:,.4g} {unit}"
    if math.isinf(upper):
        return f"at least {lower * scale:,.4g} {unit}"
    form = ",.4g" if scale == 1.0 else ".2f"
    return f"{format(lower * scale, form)} to {format(upper * scale, form)} {unit}"


def _shown(name: str, value: float) -> str:
    return f"{value:,.4g} µs" if name.endswith("_us") else f"{value:.2%}"
