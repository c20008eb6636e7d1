"""Routes: devices that said too much."""

from __future__ import annotations

from fastapi import APIRouter

from hub.api.auth import Operator
from hub.api.schemas import QuarantineOut
from hub.api.services import Hub

router = APIRouter(tags=["devices"])


@router.post("/devices/{device_id}/lift-quarantine")
def lift_quarantine(device_id: str, hub: Hub, caller: Operator) -> QuarantineOut:
    """Take in what a device sends again; return the quarantine that was lifted."""
    lifted = hub.ingest.floods.lift(device_id, by=caller.name)
    return QuarantineOut(since_s=lifted.since_s, until_s=lifted.until_s)
