"""Routes: the fleet as a whole: totals, drift, and what could not be taken in."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from fleet.protocol.latency import quantile_us
from fleet.rollout.gates.confidence import proportion_interval
from hub.api.auth import Viewer
from hub.api.paging import Limit
from hub.api.schemas import (
    CauseOut,
    DeadLetterOut,
    DriftOut,
    FeatureDriftOut,
    Page,
    TotalsOut,
)
from hub.api.search import search_of
from hub.api.services import Hub
from hub.api.turns import SEARCH_IN_TURN
from hub.query.devices import check_model
from hub.query.looks import LooksQuestion, page_of_looks
from hub.store.rows import DriftRow, VersionTotals

router = APIRouter(tags=["fleet"])

Where = Annotated[str | None, Query(description="A target that says which devices are meant.")]
Current = Annotated[bool, Query(description="Only versions that devices run; false: those they ran too.")]
Alarms = Annotated[bool, Query(description="Only where the alarm is raised.")]
_MISSED_RATE = 0.05
"""How probable it is that an interval ever leaves out the truth."""


@router.get("/fleet/totals")
def totals(hub: Hub, _: Viewer, model: str | None = None, device_id: str | None = None) -> Page[TotalsOut]:
    """Return what each device did with each version, added up over all its windows."""
    return Page(items=[_totals(row) for row in hub.store.totals(device_id=device_id, model=model)])


@router.get("/fleet/dead-letters")
def dead_letters(hub: Hub, _: Viewer, limit: Limit = 100) -> Page[DeadLetterOut]:
    """Return the newest messages that could not be taken in, with their causes."""
    return Page(
        items=[
            DeadLetterOut(
                topic=letter.topic,
                received_at_s=letter.received_at_s,
                cause=CauseOut(code=letter.cause.code, detail=letter.cause.detail),
            )
            for letter in hub.store.dead_letters(limit=limit)
        ]
    )


@router.get("/drift", dependencies=[SEARCH_IN_TURN])
def drift(
    hub: Hub,
    _: Viewer,
    *,
    model: str | None = None,
    device_id: str | None = None,
    where: Where = None,
    current: Current = True,
    alarms: Alarms = False,
    after: str = "",
    limit: Limit = 100,
) -> Page[DriftOut]:
    """Return the last looks at drift, by device: of the versions that devices run."""
    asked = LooksQuestion(model, device_id, current, alarms)
    if current:
        hub.states.before_answer()
    search = None if where is None else search_of(hub, where)
    rows, following = page_of_looks(hub.store, asked, search, after=after, limit=limit)
    if model is not None and not rows:
        check_model(hub.store, model)  # an empty answer to a slip of the pen would say that all is well
    return Page(items=[_drift(row) for row in rows], next=following)


def _totals(row: VersionTotals) -> TotalsOut:
    total = row.totals
    return TotalsOut(
        device_id=row.device_id,
        model=row.model,
        version=row.version,
        predictions=total.predictions,
        errors=total.errors,
        labelled=total.labelled,
        correct=total.correct,
        accuracy=total.correct / total.labelled if total.labelled else None,
        accuracy_interval=_accuracy_interval(total.correct, total.labelled),
        unknown_labels=total.label_counts.unknown,
        latency_p50_us=quantile_us(total.latency, 0.5),
        latency_p99_us=quantile_us(total.latency, 0.99),
    )


def _accuracy_interval(correct: int, labelled: int) -> tuple[float, float] | None:
    return proportion_interval(min(correct, labelled), labelled, _MISSED_RATE) if labelled else None


def _drift(row: DriftRow) -> DriftOut:
    return DriftOut(
        device_id=row.device_id,
        model=row.model,
        version=row.version,
        alarm=bool(row.alarm.raised),
        looks=row.alarm.looks,
        features=[
            FeatureDriftOut(
                feature=look.feature,
                alarm=look.feature in row.alarm.raised,
                samples=look.samples,
                evidence=look.evidence,
                threshold=look.threshold,
                split=look.split,
                share=look.share,
                expected=look.expected,
                distance=look.distance,
                total_variation=look.total_variation,
                psi=look.psi,
                jensen_shannon=look.jensen_shannon,
                anderson_darling=look.anderson_darling,
                chi_square=look.chi_square,
                wasserstein=look.wasserstein,
                missing=look.missing,
                outside=look.outside,
            )
            for look in row.last_look
        ],
    )
