"""Routes outside the API: ``/healthz`` for whoever restarts the hub, ``/metrics`` for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST

from fleet.protocol.errors import StorageError
from hub.api.metrics import metrics_page
from hub.api.services import Hub

router = APIRouter(tags=["operations"])


@router.get("/healthz")
def healthz(hub: Hub, response: Response) -> dict[str, bool]:
    """Return 200 while the hub can serve devices, 503 while its database or broker fails it."""
    try:
        hub.store.last_position()
        database = True
    except StorageError:
        database = False
    broker = hub.broker_connected()
    response.status_code = 200 if database and broker else 503
    return {"database": database, "broker": broker}


@router.get("/metrics")
def metrics(hub: Hub) -> Response:
    """Return the hub's metrics; labels are bounded, there is never a series for each device."""
    return Response(metrics_page(hub), media_type=CONTENT_TYPE_LATEST)
