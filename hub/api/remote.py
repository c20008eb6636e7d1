"""Routes: what operators wish of one device, and the diagnostic bundles that it sent."""

from __future__ import annotations

from fastapi import APIRouter, Response

from hub.api.auth import Operator
from hub.api.devices import wishes_out
from hub.api.schemas import ActionIn, DiagnosticsRequestOut, LogLevelIn, WishesOut
from hub.api.services import Hub

router = APIRouter(tags=["devices"])


@router.post("/devices/{device_id}/log-level")
def set_log_level(device_id: str, body: LogLevelIn, hub: Hub, caller: Operator) -> WishesOut:
    """Let a device log from a level on; null for its own setting."""
    return wishes_out(hub.wishing.set_log_level(device_id, body.level, by=caller.name))


@router.post("/devices/{device_id}/hold")
def hold(device_id: str, body: ActionIn, hub: Hub, caller: Operator) -> WishesOut:
    """Let a device swap in no version until it is released."""
    return wishes_out(hub.wishing.hold(device_id, by=caller.name, reason=body.reason))


@router.post("/devices/{device_id}/release")
def release(device_id: str, hub: Hub, caller: Operator) -> WishesOut:
    """Let a device swap versions in again."""
    return wishes_out(hub.wishing.release(device_id, by=caller.name))


@router.post("/devices/{device_id}/diagnostics", status_code=202)
def diagnose(device_id: str, hub: Hub, caller: Operator) -> DiagnosticsRequestOut:
    """Ask a device for a diagnostic bundle; it answers once, when it is connected."""
    return DiagnosticsRequestOut(request_id=hub.wishing.diagnose(device_id, by=caller.name))


@router.get(
    "/devices/{device_id}/diagnostics/{request_id}",
    response_class=Response,
    responses={200: {"content": {"application/gzip": {}}, "description": "JSON lines, compressed by gzip."}},
)
def diagnostics(device_id: str, request_id: str, hub: Hub, caller: Operator) -> Response:
    """Return a diagnostic bundle that came, and remember who took it."""
    data = hub.wishing.diagnostics(device_id, request_id, by=caller.name)
    return Response(data, media_type="application/gzip")
