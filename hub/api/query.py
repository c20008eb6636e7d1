"""Routes: questions about the fleet: metrics over time, drift, comparisons."""

from __future__ import annotations

import time
from itertools import islice
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Query
from fastapi.responses import StreamingResponse

from fleet.comparison import CONFIDENCE
from fleet.protocol.errors import InvalidInput
from hub.api.auth import Viewer
from hub.api.exports import EXPORTS, Form, Wanted, exported
from hub.api.query_schemas import (
    ComparisonOut,
    DifferenceOut,
    HistogramOut,
    HistogramsOut,
    MatrixCellOut,
    MatrixOut,
    SeriesOut,
)
from hub.api.search import search_of
from hub.api.services import Hub, HubServices
from hub.api.turns import IN_TURN
from hub.query.comparison import comparison, side_of
from hub.query.devices import check_model
from hub.query.drift import histograms, matrix
from hub.query.nothing import check_answer, check_devices
from hub.query.series import References, series
from hub.query.sums import MAX_DEVICES, Question, checked_key
from hub.query.tables import Table
from hub.query.times import resolution_of, time_range
from hub.store.rows import DeviceRow
from hub.store.telemetry_rows import EVERY_DEVICE, HOUR_S, MINUTE_S, ONE_DEVICE

router = APIRouter(tags=["fleet"], prefix="/fleet", dependencies=[IN_TURN])

_MAX_NAMES = 32

From = Annotated[
    str | None, Query(alias="from", description="ISO 8601, -24h, -7d; a day ago if left out.", max_length=60)
]
To = Annotated[str | None, Query(description="Likewise; now if left out.", max_length=60)]
BY_VERSION = "version"
WHOLE = "whole"
Where = Annotated[str | None, Query(description="A target that says which devices are meant.")]
Resolution = Annotated[
    str | None, Query(description="minute, hour, day; or whole: one span. Fitting if left out.")
]
Names = Annotated[list[str], Query(max_length=_MAX_NAMES)]
Features = Annotated[list[str] | None, Query(max_length=_MAX_NAMES, description="All if left out.")]
Side = Annotated[str, Query(description="version=NUMBER, a target, or version=NUMBER and a target.")]
Version = Annotated[int | None, Query(ge=0, le=2**53)]
By = Annotated[list[str] | None, Query(description="version, and device or an attribute.", max_length=2)]


def _asked(
    hub: Hub,
    model: str,
    *,
    by: By = None,
    where: Where = None,
    version: Version = None,
    resolution: Resolution = None,
    start: From = None,
    to: To = None,
) -> Question:
    """Return what is asked for."""
    check_model(hub.store, model)
    keys = [key for key in by or () if key != BY_VERSION]
    if len(keys) > 1:
        raise InvalidInput(
            f"Answers can be by {keys[0]!r:.60} or by {keys[1]!r:.60}, not by both.",
            remedy="Choose among one of them with a target: `where`.",
        )
    key = checked_key(keys[0] if keys else EVERY_DEVICE, hub.settings.group_by)
    now_s = time.time()
    within = time_range(start, to, now_s)
    finest_s = MINUTE_S if key != ONE_DEVICE and where is None else HOUR_S
    return Question(
        model=model,
        within=within,
        resolution_s=resolution_of(None if resolution == WHOLE else resolution, within, finest_s=finest_s),
        key=key,
        version=version,
        devices=None if where is None and key != ONE_DEVICE else _meant(hub, where),
        by_version=BY_VERSION in (by or ()),
        whole=resolution == WHOLE,
        group_by=hub.settings.group_by,
        now_s=now_s,
    )


Asked = Annotated[Question, Depends(_asked)]


@router.get("/query", response_model=SeriesOut, responses=EXPORTS)
def query(
    hub: Hub, _: Viewer, asked: Asked, *, form: Wanted, metric: Names, feature: Features = None
) -> SeriesOut | StreamingResponse:
    """Return metrics of a model over time, by cohort, version or device."""
    table = series(hub.store, asked, metric, _references(hub, asked), features=feature or ())
    table = _checked(hub, asked, table)
    if form is not Form.JSON:
        return exported(table, form, f"{asked.model}-series")
    items = [dict(row) for row in table.rows]
    return SeriesOut(**_span(asked), resolution_s=asked.resolution_s, items=items)


@router.get("/drift/matrix", response_model=MatrixOut, responses=EXPORTS)
def drift_matrix(
    hub: Hub, _: Viewer, asked: Asked, *, form: Wanted, metric: str = "psi", feature: Features = None
) -> MatrixOut | StreamingResponse:
    """Return how far each feature of each cohort was from its reference, in each span of time."""
    table = matrix(hub.store, asked, metric, _references(hub, asked), features=feature or ())
    table = _checked(hub, asked, table)
    if form is not Form.JSON:
        return exported(table, form, f"{asked.model}-drift")
    items = [MatrixCellOut(**row) for row in table.rows]
    return MatrixOut(**_span(asked), resolution_s=asked.resolution_s, metric=metric, items=items)


@router.get("/drift/histograms")
def drift_histograms(hub: Hub, _: Viewer, asked: Asked, feature: Features = None) -> HistogramsOut:
    """Return what devices counted of each feature, over the whole time range, beside the reference."""
    asked = msgspec.structs.replace(asked, key=EVERY_DEVICE)
    found = list(histograms(hub.store, asked, _references(hub, asked), features=feature or ()))
    check_answer(hub.store, asked, found)
    return HistogramsOut(**_span(asked), items=[HistogramOut(**one) for one in found])


@router.get("/compare", response_model=ComparisonOut, responses=EXPORTS)
def compare(
    hub: Hub,
    _: Viewer,
    *,
    form: Wanted,
    model: str,
    left: Side,
    right: Side,
    start: From = None,
    to: To = None,
) -> ComparisonOut | StreamingResponse:
    """Compare two parts of the fleet: `version=3`, a target, or `version=3 and` a target."""
    check_model(hub.store, model)
    within = time_range(start, to, time.time())
    resolution_s = resolution_of(None, within, finest_s=HOUR_S)
    asked = Question(model, within, resolution_s, group_by=hub.settings.group_by)
    sides = side_of(left), side_of(right)
    table = comparison(hub.store, asked, sides, lambda where: _meant(hub, where), _references(hub, asked))
    rows = list(table.rows)
    for side, samples in zip(sides, ("left_samples", "right_samples"), strict=True):
        if side.version is not None and not any(row[samples] for row in rows):
            hub.store.version(model, side.version)
    if form is not Form.JSON:
        return exported(Table(table.columns, rows), form, f"{model}-comparison")
    items = [DifferenceOut(**row) for row in rows]
    return ComparisonOut(**_span(asked), confidence=CONFIDENCE, items=items)


def _checked(hub: HubServices, asked: Question, table: Table) -> Table:
    """Return an answer, unless it is empty for a reason that is told in place of it."""
    rows = list(table.rows)
    check_answer(hub.store, asked, rows)
    return Table(table.columns, rows)


def _meant(hub: HubServices, where: str | None) -> dict[str, DeviceRow]:
    """Return the devices that a target means, or all; of too many only the first, still too many.

    Raises:
        NotFound: It means none.
    """
    found = {row.device_id: row for row in islice(search_of(hub, where).devices(), MAX_DEVICES + 1)}
    if where is not None:
        check_devices(found, where)
    return found


def _references(hub: HubServices, asked: Question) -> References:
    return References(hub.models.reference, asked.model)


def _span(question: Question) -> dict[str, Any]:
    return {"start_s": question.within.start_s, "end_s": question.within.end_s}
