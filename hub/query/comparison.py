"""The two sides of a comparison: which devices or version each is, and what both counted alike."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec

from fleet.comparison import Difference, Side, compare
from fleet.drift.profile import FeatureCounts, FeatureReference, ReferenceProfile
from fleet.protocol.errors import InvalidInput
from hub.query.metrics import mean_confidence
from hub.query.series import References
from hub.query.sums import Question, Sum, sums
from hub.query.tables import Column, Kind, Table
from hub.store.protocols import RollupStore
from hub.store.rows import DeviceRow

_VERSION = re.compile(r"\s*version\s*==?\s*(\d{1,9})\s*(?:and\s+(.*))?", re.DOTALL | re.ASCII)

COLUMNS = [
    Column("quantity"),
    Column("left", Kind.NUMBER),
    Column("right", Kind.NUMBER),
    Column("left_samples", Kind.WHOLE),
    Column("right_samples", Kind.WHOLE),
    Column("difference", Kind.NUMBER),
    Column("lower", Kind.NUMBER),
    Column("upper", Kind.NUMBER),
    Column("is_shown", Kind.FLAG),
    Column("psi", Kind.NUMBER),
    Column("jensen_shannon", Kind.NUMBER),
    Column("wasserstein", Kind.NUMBER),
    Column("sentence"),
]


class SideQuestion(NamedTuple):
    """Who is on one side.

    Attributes:
        version: Only what this version did; None for every version.
        where: The target that means its devices; None for the whole fleet.
    """

    version: int | None
    where: str | None


def side_of(text: str) -> SideQuestion:
    """Return who is on a side.

    Args:
        text: ``version=3`` or ``version == 3``, a target, or ``version=3 and`` a target.

    Raises:
        InvalidInput: It is empty.
    """
    match = _VERSION.fullmatch(text)
    if match:
        return SideQuestion(int(match[1]), match[2])
    if not text.strip():
        raise InvalidInput("A side of the comparison is empty.", remedy="Give a target, or version=NUMBER.")
    return SideQuestion(None, text)


def comparison(
    store: RollupStore,
    question: Question,
    sides: tuple[SideQuestion, SideQuestion],
    devices: Callable[[str], Mapping[str, DeviceRow]],
    references: References,
) -> Table:
    """Return the rows of a comparison.

    Args:
        store: Keeps roll-ups.
        question: Of which model and what time.
        sides: Left and right.
        devices: Returns the devices that a target means.
        references: Of the model's versions.

    Raises:
        InvalidInput: The answer would be too large, or a target cannot be understood.
    """
    left, right = (_added(store, question, side, devices) for side in sides)
    versions = {*left.profiles, *right.profiles}
    layouts = _layouts([known for version in versions if (known := references.version(version)) is not None])
    found = compare(
        _side(left, layouts), _side(right, layouts), {name: layout.edges for name, layout in layouts.items()}
    )
    return Table(
        COLUMNS, [msgspec.structs.asdict(row) for row in found] + _incomparable(left, right, layouts)
    )


def _added(
    store: RollupStore,
    question: Question,
    side: SideQuestion,
    devices: Callable[[str], Mapping[str, DeviceRow]],
) -> Sum:
    asked = msgspec.structs.replace(
        question,
        whole=True,
        version=side.version,
        devices=None if side.where is None else devices(side.where),
    )
    return next(iter(sums(store, asked).values()), Sum())


def _layouts(references: list[ReferenceProfile]) -> dict[str, FeatureReference]:
    """Return the features that all versions count over the same cells, as one of the references has them."""
    found: dict[str, FeatureReference] = {}
    others: set[str] = set()
    for feature in (feature for reference in references for feature in reference.features):
        known = found.setdefault(feature.name, feature)
        if (known.edges, len(known.cells)) != (feature.edges, len(feature.cells)):
            others.add(feature.name)
    return {name: feature for name, feature in found.items() if name not in others}


def _side(found: Sum, layouts: Mapping[str, FeatureReference]) -> Side:
    confidence, confidences = mean_confidence(found)
    features: dict[str, FeatureCounts] = {}
    for profile in found.profiles.values():
        for name, counts in profile.items():
            if name in layouts and len(counts.cells) == len(layouts[name].cells):
                features[name] = features[name].merged(counts) if name in features else counts
    return Side(
        predictions=found.predictions,
        errors=found.errors,
        labelled=found.labelled,
        correct=found.correct,
        latency=found.latency,
        confidence=confidence,
        confidences=confidences,
        features=features,
    )


def _incomparable(left: Sum, right: Sum, layouts: Mapping[str, FeatureReference]) -> list[dict[str, object]]:
    """Return a row for each feature that the versions count over other cells."""
    names = {name for side in (left, right) for profile in side.profiles.values() for name in profile}
    rows = []
    for name in sorted(names - set(layouts)):
        sentence = f"{name}: not compared, for the versions count it over different edges."
        values = _values(left, name), _values(right, name)
        rows.append(msgspec.structs.asdict(Difference(name, None, None, *values, sentence=sentence)))
    return rows


def _values(found: Sum, name: str) -> int:
    counted = (profile[name] for profile in found.profiles.values() if name in profile)
    return sum(counts.total + counts.missing for counts in counted)
