"""The metrics that can be asked for, and how each is read from a sum.

=======================  =====================================================================================
metric                   meaning
=======================  =====================================================================================
``predictions``          answers given
``errors``               requests that the runtime failed on
``requests_per_second``  both, by the length of the span
``error_share``          errors of all requests
``latency_p50_us`` …     quantiles of the runtime's work in µs, an upper bound within 19 %, see
                         `fleet.protocol.latency`
``labelled``             answers for which a label came back
``accuracy``             those of them that were right, as a share
``confidence``           mean confidence of a classifier's answers
=======================  =====================================================================================

Drift metrics compare a feature's counts with the reference of the version that counted them, see
`fleet.drift.metrics` and `fleet.drift.transport`: ``psi``, ``ks``, ``jensen_shannon``, ``total_variation``,
``anderson_darling``, ``chi_square`` (for each degree of freedom), ``wasserstein`` (in standard deviations of
the reference), and the shares ``missing`` and ``outside``. They belong to one version. Where several features
are asked for at once, the largest is told.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator

from fleet.drift.cells import OFFSET_UNITS
from fleet.drift.features import CONFIDENCE_EDGES, OUTPUT_CONFIDENCE
from fleet.drift.metrics import (
    anderson_darling,
    chi_square,
    jensen_shannon,
    ks_distance,
    psi,
    total_variation,
)
from fleet.drift.profile import FeatureCounts, FeatureReference, ReferenceProfile
from fleet.drift.transport import wasserstein
from fleet.protocol.errors import InvalidInput
from fleet.protocol.latency import quantile_us
from hub.query.sums import Sum

Value = float | None


def _share(part: int, of: int) -> Value:
    return part / of if of else None


def mean_confidence(found: Sum) -> tuple[Value, int]:
    """Return the mean confidence of the answers, and of how many; None if it was not counted.

    The mean of a cell is known to a 1/256 of its width where there are offsets, and else taken as its middle.
    """
    profiles = (profile.get(OUTPUT_CONFIDENCE) for profile in found.profiles.values())
    total, summed = 0, 0.0
    for counts in profiles:
        if counts is None or len(counts.cells) != len(CONFIDENCE_EDGES) + 1:
            continue
        cells, offsets = counts.cells, counts.offsets
        total += counts.total
        summed += cells[-1] * CONFIDENCE_EDGES[-1] + cells[0] * CONFIDENCE_EDGES[0]
        for index, left in enumerate(CONFIDENCE_EDGES[:-1], start=1):
            width = CONFIDENCE_EDGES[index] - left
            inside = (offsets[index] + cells[index] / 2.0) / OFFSET_UNITS if offsets else cells[index] / 2.0
            summed += left * cells[index] + inside * width
    return (summed / total if total else None), total


METRICS: dict[str, Callable[[Sum, float], Value]] = {
    "predictions": lambda found, _: found.predictions,
    "errors": lambda found, _: found.errors,
    "requests_per_second": lambda found, length_s: (found.predictions + found.errors) / length_s,
    "error_share": lambda found, _: _share(found.errors, found.predictions + found.errors),
    "latency_p50_us": lambda found, _: quantile_us(found.latency, 0.5),
    "latency_p90_us": lambda found, _: quantile_us(found.latency, 0.9),
    "latency_p99_us": lambda found, _: quantile_us(found.latency, 0.99),
    "labelled": lambda found, _: found.labelled,
    "accuracy": lambda found, _: _share(min(found.correct, found.labelled), found.labelled),
    "confidence": lambda found, _: mean_confidence(found)[0],
}
"""From a sum and the length of its span in seconds."""


def _sides(reference: FeatureReference, counts: FeatureCounts) -> tuple[list[int], list[int]]:
    return [reference.missing, *reference.cells], [counts.missing, *counts.cells]


def _by_freedom(reference: FeatureReference, counts: FeatureCounts) -> float:
    squares, freedom = chi_square(*_sides(reference, counts))
    return squares / max(1, freedom)


def _outside(reference: FeatureReference, counts: FeatureCounts) -> Value:
    beyond = counts.cells[-1] + (counts.cells[0] if reference.edges is not None else 0)
    return _share(beyond, counts.total)


DRIFT_METRICS: dict[str, Callable[[FeatureReference, FeatureCounts], Value]] = {
    "psi": lambda reference, counts: psi(*_sides(reference, counts)),
    "ks": lambda reference, counts: ks_distance(*_sides(reference, counts)),
    "jensen_shannon": lambda reference, counts: jensen_shannon(*_sides(reference, counts)),
    "total_variation": lambda reference, counts: total_variation(*_sides(reference, counts)),
    "anderson_darling": lambda reference, counts: anderson_darling(*_sides(reference, counts)),
    "chi_square": _by_freedom,
    "wasserstein": wasserstein,
    "missing": lambda _, counts: _share(counts.missing, counts.total + counts.missing),
    "outside": _outside,
}
"""From a feature's reference and counts in its layout."""


def check_metrics(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """Return the names, each once; raises `InvalidInput` for one that is not known, or if there is none."""
    known, chosen = list(known), list(dict.fromkeys(names))
    for name in chosen:
        if name not in known:
            raise InvalidInput(f"There is no metric {name!r:.60}.", remedy=f"Use one of {', '.join(known)}.")
    if not chosen:
        raise InvalidInput("No metric is named.", remedy=f"Name one of {', '.join(known)}.")
    return chosen


def check_features(names: Iterable[str], references: Iterable[ReferenceProfile]) -> None:
    """Raise `InvalidInput` for a feature that none of some versions has."""
    known = sorted({feature.name for reference in references for feature in reference.features})
    for name in names if known else ():
        if name not in known:
            raise InvalidInput(
                f"No version of the model has the feature {name!r:.80}.", remedy=f"It has {', '.join(known)}."
            )


def compared(
    found: Sum, version: int, reference: ReferenceProfile, features: Collection[str] = ()
) -> Iterator[tuple[FeatureReference, FeatureCounts]]:
    """Yield the features of which a version has counted values, in the layout of their reference.

    Args:
        found: The sum.
        version: Whose counts.
        reference: The version's.
        features: Only these; none for all.
    """
    profile = found.profiles.get(version, {})
    for feature in reference.features:
        counts = profile.get(feature.name)
        if counts is None or (features and feature.name not in features):
            continue
        if len(counts.cells) == len(feature.cells) and (counts.total or counts.missing):
            yield feature, counts
