"""Routes: inviting devices, and enrolling them."""

from __future__ import annotations

import time

import msgspec
from fastapi import APIRouter, Request, Response

from fleet.protocol.enrolment import MAX_ENROLMENT_SIZE_BYTES, EnrolmentAnswer, EnrolmentRequest
from fleet.protocol.errors import InvalidInput, MessageTooLarge
from hub.api.auth import Admin
from hub.api.schemas import EnrolmentTokenIn, EnrolmentTokenOut
from hub.api.services import Hub
from hub.enrolment import enrol, issue_token

router = APIRouter(tags=["devices"])


@router.post("/enrolment-tokens", status_code=201)
def make_token(body: EnrolmentTokenIn, hub: Hub, _: Admin) -> EnrolmentTokenOut:
    """Make a one-time token with which one device can enrol."""
    now_s = time.time()
    token = issue_token(
        hub.store, root_sha256=hub.repository.root_sha256, now_s=now_s, lifetime_s=body.lifetime_s
    )
    return EnrolmentTokenOut(token=str(token), expires_at_s=now_s + body.lifetime_s)


@router.post(
    "/enrol",
    openapi_extra={"requestBody": {"content": {"application/json": {"schema": {"type": "object"}}}}},
)
async def enrol_device(request: Request, hub: Hub) -> Response:
    """Enrol a device, by its one-time token; the shapes are those of `fleet.protocol.enrolment`."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_ENROLMENT_SIZE_BYTES:
            raise MessageTooLarge("The enrolment request is too large.")
    try:
        wanted = msgspec.json.decode(body, type=EnrolmentRequest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidInput(f"The enrolment request cannot be understood: {error}.") from error
    reached_host = request.url.hostname or ""
    answer: EnrolmentAnswer = await enrol(
        wanted,
        store=hub.store,
        root=hub.repository.first_root(),
        broker=lambda username, password: hub.broker_access(username, password, reached_host),
        update_accounts=hub.update_accounts,
        now_s=time.time(),
    )
    return Response(msgspec.json.encode(answer), status_code=201, media_type="application/json")
