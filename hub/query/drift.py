"""Drift over the fleet: the matrix feature x cohort x window, and histograms beside their references."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from fleet.drift.profile import FeatureCounts, FeatureReference
from hub.query.metrics import DRIFT_METRICS, check_features, check_metrics, compared
from hub.query.series import References
from hub.query.sums import Question, Sum, sums
from hub.query.tables import Column, Kind, Table
from hub.store.protocols import RollupStore
from hub.store.telemetry_rows import EVERY_DEVICE

ALL_DEVICES = "all devices"


def matrix(
    store: RollupStore,
    question: Question,
    metric: str,
    references: References,
    *,
    features: Sequence[str] = (),
) -> Table:
    """Return how far each feature of each cohort is from its reference, in each span of time.

    Args:
        store: Keeps roll-ups.
        question: What is added up; versions are always kept apart.
        metric: One of `DRIFT_METRICS`.
        references: Of the model's versions.
        features: Only these; none for all.

    Raises:
        InvalidInput: There is no such metric or feature, or the answer would be too large.
    """
    check_metrics([metric], DRIFT_METRICS)
    rows = []
    found = sums(store, msgspec.structs.replace(question, by_version=True))
    check_features(features, references.of(found))
    for group, one in found.items():
        for reference, counts in _compared(one, group.version, references, features):
            rows.append(
                {
                    "feature": reference.name,
                    "cohort": ALL_DEVICES if question.key == EVERY_DEVICE else group.value,
                    "version": group.version,
                    "start_s": group.start_s,
                    "samples": counts.total + counts.missing,
                    "value": DRIFT_METRICS[metric](reference, counts),
                }
            )
    rows.sort(key=lambda row: (row["feature"], row["cohort"], row["version"], row["start_s"]))
    columns = [
        Column("feature"),
        Column("cohort"),
        Column("version", Kind.WHOLE),
        Column("start_s", Kind.TIME),
        Column("samples", Kind.WHOLE),
        Column("value", Kind.NUMBER),
    ]
    return Table(columns, rows)


def histograms(
    store: RollupStore, question: Question, references: References, *, features: Sequence[str] = ()
) -> Iterator[dict[str, Any]]:
    """Yield the counts of each feature beside its reference, over the whole range, by version.

    Args:
        store: Keeps roll-ups.
        question: What is added up.
        references: Of the model's versions.
        features: Only these; none for all.

    Raises:
        InvalidInput: There is no such feature, or the answer would be too large.
    """
    found = sums(store, msgspec.structs.replace(question, by_version=True, whole=True))
    check_features(features, references.of(found))
    for group, one in found.items():
        for reference, counts in _compared(one, group.version, references, features):
            yield {
                "feature": reference.name,
                "version": group.version,
                "edges": None if reference.edges is None else list(reference.edges),
                "reference": list(reference.cells),
                "reference_missing": reference.missing,
                "current": counts.cells,
                "current_missing": counts.missing,
                "minimum": counts.minimum,
                "maximum": counts.maximum,
                "metrics": {name: compute(reference, counts) for name, compute in DRIFT_METRICS.items()},
            }


def _compared(
    one: Sum, version: int | None, references: References, features: Sequence[str]
) -> Iterator[tuple[FeatureReference, FeatureCounts]]:
    reference = None if version is None else references.version(version)
    return iter(()) if version is None or reference is None else compared(one, version, reference, features)
