"""Time series: metrics of a model over time, by cohort, version or device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from fleet.drift.profile import ReferenceProfile
from fleet.protocol.errors import MusterError
from hub.query.metrics import DRIFT_METRICS, METRICS, check_features, check_metrics, compared
from hub.query.sums import Group, Question, Sum, sums
from hub.query.tables import Column, Kind, Table
from hub.store.protocols import RollupStore
from hub.store.telemetry_rows import EVERY_DEVICE


class References:
    """The reference profiles of a model's versions, each read once.

    Args:
        read: Returns the bundle digest and reference profile of a version.
        model: Name of the model.
    """

    def __init__(self, read: Callable[[str, int], tuple[str, ReferenceProfile]], model: str) -> None:
        self._read = read
        self._model = model
        self._known: dict[int, ReferenceProfile | None] = {}

    def version(self, version: int) -> ReferenceProfile | None:
        """Return a version's; None if it was never registered here, as what a device claims to run may be."""
        if version not in self._known:
            try:
                self._known[version] = self._read(self._model, version)[1]
            except MusterError:
                self._known[version] = None
        return self._known[version]

    def of(self, groups: Iterable[Group]) -> list[ReferenceProfile]:
        """Return those of the versions of some groups."""
        versions = sorted({group.version for group in groups if group.version is not None})
        return [known for version in versions if (known := self.version(version)) is not None]


def series(
    store: RollupStore,
    question: Question,
    metrics: Sequence[str],
    references: References,
    *,
    features: Sequence[str] = (),
) -> Table:
    """Return metrics over time: a row for each span and group in which anything was done.

    Args:
        store: Keeps roll-ups.
        question: What is added up; versions are kept apart if one of the metrics is about drift.
        metrics: Names, of `METRICS` and `DRIFT_METRICS`.
        references: Of the model's versions.
        features: Which features drift metrics are about; none for all.

    Raises:
        InvalidInput: There is no such metric or feature, or the answer would be too large.
    """
    names = check_metrics(metrics, [*METRICS, *DRIFT_METRICS])
    about_drift = any(name in DRIFT_METRICS for name in names)
    by_version = question.by_version or about_drift
    profiles = about_drift or "confidence" in names
    found = sums(store, msgspec.structs.replace(question, by_version=by_version, profiles=profiles))
    check_features(features, references.of(found))
    rows: list[dict[str, Any]] = []
    for group, one in found.items():
        row: dict[str, Any] = {"start_s": group.start_s}
        if question.key != EVERY_DEVICE:
            row[question.key] = group.value
        if by_version:
            row["version"] = group.version
        for name in names:
            row[name] = (
                METRICS[name](one, question.span_s(group.start_s))
                if name in METRICS
                else _drift(name, one, group.version, references, features)
            )
        rows.append(row)
    return Table(_columns(question.key, names, by_version=by_version), rows)


def _drift(
    name: str, one: Sum, version: int | None, references: References, features: Sequence[str]
) -> float | None:
    reference = references.version(version) if version is not None else None
    if version is None or reference is None:
        return None
    values = (
        DRIFT_METRICS[name](feature, counts)
        for feature, counts in compared(one, version, reference, features)
    )
    return max((value for value in values if value is not None), default=None)


def _columns(key: str, metrics: Sequence[str], *, by_version: bool) -> list[Column]:
    columns = [Column("start_s", Kind.TIME)]
    if key != EVERY_DEVICE:
        columns.append(Column(key))
    if by_version:
        columns.append(Column("version", Kind.WHOLE))
    whole = {"predictions", "errors", "labelled"}
    return columns + [Column(name, Kind.WHOLE if name in whole else Kind.NUMBER) for name in metrics]
