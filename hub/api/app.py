"""The application: routes under ``/api/v1``, ``/healthz``, ``/metrics``, and OpenAPI at ``/api/v1/docs``."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI

from hub.api import (
    alerts,
    boards,
    datasets,
    devices,
    enrolment,
    errors,
    fleet,
    floods,
    health,
    models,
    operations,
    privacy,
    quality,
    query,
    remote,
    rollouts,
    rollouts_actions,
    samples,
    tags,
    timeline,
)
from hub.api.limits import BodyLimit
from hub.api.requests import MeasuredRequests
from hub.api.schemas import Problem
from hub.api.services import HubServices
from hub.api.turns import Turns

PREFIX = "/api/v1"
MODULES = (
    alerts,
    datasets,
    models,
    enrolment,
    devices,
    remote,
    floods,
    tags,
    rollouts,
    rollouts_actions,
    fleet,
    health,
    query,
    quality,
    privacy,
    samples,
    boards,
    timeline,
)
"""Those whose routes are below `PREFIX`."""


def make_app(services: HubServices) -> FastAPI:
    """Return the application that serves a running hub.

    Args:
        services: Of the hub.
    """
    app = FastAPI(
        title="Muster",
        version="1",
        description="Manage the life of machine-learning models on fleets of edge devices.",
        docs_url=f"{PREFIX}/docs",
        redoc_url=None,
        openapi_url=f"{PREFIX}/openapi.json",
        responses={"4XX": {"model": Problem, "description": "Problem details (RFC 9457)."}},
    )
    app.state.services = services
    app.state.turns = Turns()
    errors.install(app)
    app.add_middleware(BodyLimit)
    app.add_middleware(MeasuredRequests, services.instruments, PREFIX)
    api = APIRouter(prefix=PREFIX)
    for module in MODULES:
        api.include_router(module.router)
    app.include_router(api)
    app.include_router(operations.router)
    return app
