"""Routes: capture policies, and captured samples. All of it is for operators: inputs may be personal."""

from __future__ import annotations

import time
from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Query, Response

from fleet.protocol.capture import MILLION, CapturePolicy, SampleCounts
from fleet.protocol.errors import InvalidInput, NotFound
from fleet.protocol.samples import Reason
from hub.api.auth import Operator
from hub.api.paging import Limit, number_in
from hub.api.sample_schemas import (
    CapturedOut,
    CaptureIn,
    CaptureOut,
    CapturePolicyIn,
    DeletionIn,
    DeletionOut,
    SampleOut,
)
from hub.api.schemas import Name, Page
from hub.api.search import search_of
from hub.api.services import Hub, HubServices
from hub.query.devices import check_model
from hub.sample_export import export
from hub.store.rows import DeviceRow
from hub.store.sample_rows import CaptureRow, SampleFilter, SampleRow

router = APIRouter(tags=["samples"])

MAX_EXPORT_BYTES = 64 * 1024**2
"""Most bytes of inputs in one export."""


@router.post("/models/{model}/capture")
def set_capture(model: Name, body: CaptureIn, hub: Hub, caller: Operator) -> CapturedOut:
    """Let devices capture inputs of a model by a policy, in place of the one before, or no more."""
    check_model(hub.store, model)
    done = hub.samples.order(model, _meant(hub, body), _policy(body.policy), by=caller.name)
    return CapturedOut(changed=done.changed, refused=done.refused)


@router.get("/models/{model}/capture")
def captures(model: str, hub: Hub, _: Operator) -> list[CaptureOut]:
    """List which devices may capture inputs of a model, and by what policy."""
    return [_capture_out(row, hub.store.device(row.device_id)) for row in hub.store.captures(model=model)]


def _wanted(
    model: str | None = None,
    device_id: str | None = None,
    reason: Reason | None = None,
    since_s: float | None = None,
    until_s: float | None = None,
) -> SampleFilter:
    return SampleFilter(model, device_id, reason, since_s, until_s)


Wanted = Annotated[SampleFilter, Depends(_wanted)]


@router.get("/samples")
def list_samples(
    hub: Hub, _: Operator, wanted: Wanted, after: str | None = None, limit: Limit = 100
) -> Page[SampleOut]:
    """List captured samples, the oldest first, without their inputs."""
    rows = hub.store.samples(wanted, after=number_in(after) or 0, limit=limit)
    if not rows and after is None:
        _check_names(hub, wanted)
    following = str(rows[-1].number) if len(rows) == limit else None
    return Page(items=[SampleOut(**msgspec.to_builtins(row)) for row in rows], next=following)


@router.get(
    "/samples/export",
    response_class=Response,
    responses={200: {"content": {"application/zip": {}}, "description": "Dataset files and a table."}},
)
def export_samples(
    hub: Hub,
    caller: Operator,
    wanted: Wanted,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 1000,
) -> Response:
    """Return the inputs of samples of one model as dataset files, with a table to write the labels into.

    There may be fewer than asked for: an export has at most 64 MiB of inputs. The last number in the table
    is where the next one begins, as `after`.
    """
    if wanted.model is None:
        raise InvalidInput("Samples are exported by model.", remedy="Say which with `model`.")
    rows = _bounded(hub.store.samples(wanted, after=number_in(after) or 0, limit=limit))
    found = hub.samples.read(rows, by=caller.name)
    if not found:
        raise NotFound(f"There are no such samples of {wanted.model!r:.80}.")
    return Response(export(found), media_type="application/zip")


@router.post("/samples/delete")
def delete_samples(body: DeletionIn, hub: Hub, caller: Operator) -> DeletionOut:
    """Delete samples for good."""
    wanted = SampleFilter(body.model, body.device_id, body.reason, body.since_s, body.until_s)
    deleted = hub.samples.delete(wanted, by=caller.name)
    if not deleted:
        _check_names(hub, wanted)
    return DeletionOut(deleted=deleted)


def _check_names(hub: HubServices, wanted: SampleFilter) -> None:
    """Raise `NotFound` if samples of a model or device that does not exist are asked for.

    Only where none were found: there may be some of what is no more.
    """
    if wanted.model is not None:
        check_model(hub.store, wanted.model)
    if wanted.device_id is not None:
        hub.store.device(wanted.device_id)


def _bounded(rows: list[SampleRow]) -> list[SampleRow]:
    """Return as many of the first samples as an export may have, at least one."""
    total = 0
    kept: list[SampleRow] = []
    for row in rows:
        total += row.size_bytes
        if kept and total > MAX_EXPORT_BYTES:
            break
        kept.append(row)
    return kept


def _meant(hub: HubServices, body: CaptureIn) -> list[DeviceRow]:
    """Return the devices that a request is about.

    Raises:
        InvalidInput: It names none.
        NotFound: One of them does not exist.
    """
    if not body.devices and body.where is None:
        raise InvalidInput("No device is named.", remedy="Give devices, or a target with `where`.")
    named = [hub.store.device(device_id) for device_id in dict.fromkeys(body.devices)]
    if body.where is None:
        return named
    found = search_of(hub, body.where).devices()
    return list({row.device_id: row for row in (*named, *found)}.values())


def _policy(given: CapturePolicyIn | None) -> CapturePolicy | None:
    if given is None:
        return None
    policy = CapturePolicy(
        expires_at_s=int(time.time() + given.lifetime_s),
        bytes_per_day=given.bytes_per_day,
        sample_bytes=given.sample_bytes,
        uncertain_below=round(given.uncertain_below * MILLION),
        drifted=given.drifted,
        random_share=round(given.random_share * MILLION),
        redaction=given.redaction,
    )
    if not policy.captures_anything:
        raise InvalidInput(
            "The policy captures nothing.", remedy="Give uncertain_below, drifted or random_share."
        )
    return policy


def _capture_out(row: CaptureRow, device: DeviceRow) -> CaptureOut:
    policy, reported = row.policy, device.reported
    counts = reported.samples if reported and isinstance(reported.samples, SampleCounts) else None
    return CaptureOut(
        device_id=row.device_id,
        model=row.model,
        at_s=row.at_s,
        by=row.by,
        expires_at_s=policy.expires_at_s,
        bytes_per_day=policy.bytes_per_day,
        sample_bytes=policy.sample_bytes,
        uncertain_below=policy.uncertain_below / MILLION,
        drifted=policy.drifted,
        random_share=policy.random_share / MILLION,
        redaction=policy.redaction,
        waiting=counts.waiting if counts else None,
        dropped=counts.dropped if counts else {},
    )
