"""Route: how good a model's answers are, without labels, with few and with late ones."""

from __future__ import annotations

from fastapi import APIRouter

from fleet.quality.interval import Estimate
from hub.api.auth import Viewer
from hub.api.quality_schemas import (
    ConceptDriftOut,
    DoubtOut,
    EstimateOut,
    PoweredOut,
    QualitiesOut,
    QualityOut,
)
from hub.api.query import Asked
from hub.api.services import Hub
from hub.api.turns import IN_TURN
from hub.query.quality import QualityOf, qualities
from hub.query.series import References

router = APIRouter(tags=["fleet"], prefix="/fleet", dependencies=[IN_TURN])


@router.get("/quality")
def quality(hub: Hub, _: Viewer, asked: Asked) -> QualitiesOut:
    """Return how good the answers of each version are, by cohort or device."""
    found = qualities(hub.store, asked, References(hub.models.reference, asked.model))
    return QualitiesOut(
        start_s=asked.within.start_s, end_s=asked.within.end_s, items=[_shown(one) for one in found]
    )


def _shown(found: QualityOf) -> QualityOut:
    known, powered = found.quality, found.quality.powered
    return QualityOut(
        cohort=found.cohort,
        version=found.version,
        answers=known.answers,
        held_out_accuracy=known.held_out,
        held_out_samples=known.held_out_samples,
        estimated_accuracy=_estimate(known.estimated),
        thresholded_accuracy=known.thresholded,
        labelled=known.labelled,
        correct=known.correct,
        labelled_accuracy=_estimate(known.accuracy),
        powered_accuracy=PoweredOut(**powered.estimate._asdict(), worth_labels=powered.worth)
        if powered
        else None,
        unknown_labels=known.unknown_labels,
        concept_drift=_concept_drift(found),
        concept_drift_devices=list(found.drifting),
        doubts=[DoubtOut(code=doubt.code.value, sentence=doubt.sentence) for doubt in known.doubts],
        sentences=list(found.sentences),
    )


def _estimate(estimate: Estimate | None) -> EstimateOut | None:
    return EstimateOut(**estimate._asdict()) if estimate else None


def _concept_drift(found: QualityOf) -> ConceptDriftOut | None:
    if found.test is None:
        return None
    state = found.test.state
    return ConceptDriftOut(
        alarm=state.raised, looks=state.looks, evidence=state.evidence, waiting_labels=state.labelled
    )
