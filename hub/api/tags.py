"""Routes: tags of devices."""

from __future__ import annotations

import time

from fastapi import APIRouter

from fleet.protocol.errors import InvalidInput
from hub.api.auth import Operator
from hub.api.services import Hub
from hub.api.tag_schemas import TagsIn, TagsOut
from hub.store.rows import Action

router = APIRouter(tags=["devices"])


@router.post("/devices/{device_id}/tags")
def tag(device_id: str, body: TagsIn, hub: Hub, caller: Operator) -> TagsOut:
    """Give a device tags, and take others away; the answer has those it has then."""
    both = sorted(set(body.add) & set(body.remove))
    if both:
        raise InvalidInput(f"The tag {both[0]!r} cannot be both added and removed.")
    changes = [f"+{name}" for name in body.add] + [f"-{name}" for name in body.remove]
    action = Action(time.time(), caller.name, f"Tags changed: {' '.join(changes)}.")
    tags = hub.store.tag(device_id, add=body.add, remove=body.remove, action=action)
    return TagsOut(device_id=device_id, tags=list(tags))
