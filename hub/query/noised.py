"""What noised counts show of a model: of each version, over a range of days; about, and never exactly."""

from __future__ import annotations

from typing import NamedTuple

from fleet.privacy.sums import NoisedSum, RoughDrift, rough_drift
from hub.query.series import References
from hub.query.times import TimeRange
from hub.store.protocols import NoisedStore


class NoisedOf(NamedTuple):
    """One version.

    Attributes:
        version: Of the model.
        total: Its noised windows, added up.
        features: Each beside the reference.
    """

    version: int
    total: NoisedSum
    features: list[RoughDrift]


def noised_of(store: NoisedStore, model: str, within: TimeRange, references: References) -> list[NoisedOf]:
    """Return the noised counts of each version whose bundle the hub has.

    Args:
        store: Keeps their sums.
        model: Name of the model.
        within: Days that begin in it.
        references: Of the model's versions.
    """
    totals: dict[int, NoisedSum] = {}
    for (_, version, _), one in store.noised_sums(model, start_s=within.start_s, end_s=within.end_s).items():
        totals[version] = totals[version].plus(one) if version in totals else one
    return [
        NoisedOf(version, total, rough_drift(total, reference))
        for version, total in sorted(totals.items())
        if (reference := references.version(version)) is not None
    ]
