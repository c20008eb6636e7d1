"""Routes: one device's timeline."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Annotated, NamedTuple

import msgspec
from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse

from fleet.protocol.errors import InvalidInput
from hub.api.auth import Viewer
from hub.api.exports import EXPORTS, Form, Wanted, exported
from hub.api.paging import Limit
from hub.api.query import From, Resolution, To
from hub.api.query_schemas import TimelineEntryOut
from hub.api.schemas import CauseOut, Page
from hub.api.services import Hub
from hub.query.tables import Column, Kind, Table
from hub.query.timeline import Entry, timeline
from hub.query.timeline import Kind as EntryKind
from hub.query.times import resolution_of, time_range
from hub.store.telemetry_rows import HOUR_S

router = APIRouter(tags=["devices"])

_AFTER = re.compile(r"(\d{1,12}\.\d{1,9})~(\d{1,6})", re.ASCII)
_COLUMNS = [
    Column("at_s", Kind.TIME),
    Column("device_at_s", Kind.TIME),
    Column("kind"),
    Column("text"),
    Column("model"),
    Column("version", Kind.WHOLE),
    Column("deployment_id"),
    Column("state"),
    Column("by"),
]

Kinds = Annotated[list[EntryKind] | None, Query(description="All if left out.", max_length=len(EntryKind))]


@router.get("/devices/{device_id}/timeline", response_model=Page[TimelineEntryOut], responses=EXPORTS)
def show_timeline(
    device_id: str,
    hub: Hub,
    _: Viewer,
    *,
    form: Wanted,
    kind: Kinds = None,
    start: From = None,
    to: To = None,
    resolution: Resolution = None,
    after: str | None = None,
    limit: Limit = 100,
) -> Page[TimelineEntryOut] | StreamingResponse:
    """Return what happened to a device, newest first, with its windows, alarms, orders and actions."""
    hub.store.device(device_id)
    within = time_range(start, to, time.time(), default="-30d")
    resolution_s = resolution_of(resolution, within, finest_s=HOUR_S)
    entries = timeline(hub.store, device_id, within, resolution_s, kind or tuple(EntryKind))
    if form is not Form.JSON:
        rows = (msgspec.structs.asdict(entry) for entry in entries)
        return exported(Table(_COLUMNS, rows), form, f"{device_id}-timeline")
    place = _place(after)
    found = list(islice(_beyond(entries, place), limit))
    following = _end_of(found, place) if len(found) == limit else None
    return Page(items=[_out(entry) for entry in found], next=following)


class _Place(NamedTuple):
    """Where a page ended: the time of its last entry, and how many entries of that time were seen."""

    at_s: float
    seen: int


def _place(after: str | None) -> _Place:
    if after is None:
        return _Place(math.inf, 0)
    match = _AFTER.fullmatch(after)
    if match is None:
        raise InvalidInput(f"{after!r:.80} does not begin a page.", remedy="Pass `next` of the last page.")
    return _Place(float(match[1]), int(match[2]))


def _beyond(entries: Iterable[Entry], place: _Place) -> Iterator[Entry]:
    seen = 0
    for entry in entries:
        seen += entry.at_s == place.at_s
        if entry.at_s < place.at_s or (entry.at_s == place.at_s and seen > place.seen):
            yield entry


def _end_of(found: list[Entry], before: _Place) -> str:
    at_s = found[-1].at_s
    seen = sum(entry.at_s == at_s for entry in found) + (before.seen if before.at_s == at_s else 0)
    return f"{at_s!r}~{seen}"


def _out(entry: Entry) -> TimelineEntryOut:
    return TimelineEntryOut(
        at_s=entry.at_s,
        device_at_s=entry.device_at_s,
        kind=entry.kind.value,
        text=entry.text,
        model=entry.model,
        version=entry.version,
        deployment_id=entry.deployment_id,
        state=entry.state,
        cause=CauseOut.of(entry.cause),
        by=entry.by,
    )
