"""Routes: model versions."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from fastapi import APIRouter, Request, Response, status

from fleet.protocol.errors import InvalidInput
from fleet.rollout.state.rollout import Status
from fleet.variants import summaries
from hub.api.auth import Admin, Operator, Viewer
from hub.api.measurement_schemas import ClassOut
from hub.api.paging import Limit, Number
from hub.api.revocation_schemas import RevocationPreviewOut, RevokedOut, RevokeIn
from hub.api.schemas import Name, Page, ProgressOut, TrainIn, VersionOut
from hub.api.services import Hub, HubServices
from hub.api.uploads import uploaded
from hub.rollouts.ways_out import ways_out
from hub.store.rows import VersionRow

router = APIRouter(tags=["models"])

_HELD = frozenset({Status.RUNNING, Status.PAUSED})
MOST_NAMED = 100


@router.get("/models")
def list_versions(
    hub: Hub,
    _: Viewer,
    model: str | None = None,
    after: str = "",
    limit: Limit = 100,
) -> Page[VersionOut]:
    """List the versions of all models, or of one."""
    rows = hub.store.versions(model, after=_key(after), limit=limit)
    following = f"{rows[-1].model}@{rows[-1].version}" if len(rows) == limit else None
    return Page(items=[_out(hub, row) for row in rows], next=following)


@router.post("/models/{model}/versions", status_code=202)
async def train(model: Name, body: TrainIn, hub: Hub, _: Operator) -> VersionOut:
    """Start training the model's next version. Poll the version until it is no longer TRAINING."""
    row = await hub.models.train(
        model,
        dataset=body.dataset,
        estimator=body.estimator,
        hyperparameters=body.hyperparameters,
        seed=body.seed,
        minimum_accuracy=body.minimum_accuracy,
        embedding=body.embedding,
    )
    return _out(hub, row)


@router.post("/models/{model}/versions/bundle", status_code=status.HTTP_201_CREATED)
async def register(model: Name, request: Request, response: Response, hub: Hub, _: Operator) -> VersionOut:
    """Register a bundle that was built elsewhere as the model's next version: the body is its archive.

    Every variant is run on its golden inputs first, which can take minutes. A bundle that the model has
    already is answered with its version and status 200.
    """
    async with uploaded(request, hub.settings.maximum_upload_bytes) as archive:
        row, new = await hub.models.register(model, archive)
    if not new:
        response.status_code = status.HTTP_200_OK
    return _out(hub, row)


@router.get("/models/{model}/versions/{version}")
def show_version(model: str, version: Number, hub: Hub, _: Viewer) -> VersionOut:
    """Show one version."""
    return _out(hub, hub.store.version(model, version))


@router.get("/models/{model}/versions/{version}/measurements")
def measurements(model: str, version: Number, hub: Hub, _: Viewer) -> list[ClassOut]:
    """Return what devices measured of a version's variants, by class of devices."""
    digest = hub.store.version(model, version).manifest_sha256
    rows = hub.store.measurements(manifest_sha256=digest) if digest is not None else []
    return [ClassOut.of(summary) for summary in summaries(row.measurement for row in rows)]


@router.post("/models/{model}/versions/{version}/release")
def release(model: str, version: Number, hub: Hub, _: Admin) -> VersionOut:
    """Sign a registered version into the image repository, so that it can be rolled out."""
    return _out(hub, hub.models.release(model, version))


@router.post("/models/{model}/versions/{version}/revoke/dry-run")
def dry_run_of_a_revocation(model: str, version: Number, hub: Hub, _: Admin) -> RevocationPreviewOut:
    """Say what a revocation would withdraw: who is to run it, which rollouts bring it. Nothing is stored."""
    row = hub.store.version(model, version)
    devices = _who_is_to_run(row, hub.store.desired_versions(model))
    return RevocationPreviewOut(
        version=_out(hub, row),
        device_count=len(devices),
        devices=devices[:MOST_NAMED],
        rollouts=[
            each.state.number
            for each in hub.store.open_rollouts()
            if (each.state.model, each.state.version) == (model, version) and each.state.status in _HELD
        ],
    )


@router.post("/models/{model}/versions/{version}/revoke")
def revoke(model: str, version: Number, body: RevokeIn, hub: Hub, caller: Admin) -> RevokedOut:
    """Withdraw a version for good: it is ordered to no device any more, and no device accepts it anew.

    Rollouts of it are held. Devices that run it go on, until they are brought to another one.
    """
    row = hub.models.revoke(model, version, by=caller.name, reason=body.reason)
    held = hub.rollouts.hold_revoked(model, version)
    desired = hub.store.desired_versions(model)
    devices = _who_is_to_run(row, desired)
    rollouts = [hub.store.rollout(number).state for number in held]
    older = hub.rollouts.way_back(model, dict.fromkeys(devices, version))
    return RevokedOut(
        version=_out(hub, row),
        device_count=len(devices),
        devices=devices[:MOST_NAMED],
        going_back=sum(rollout.open_restores for rollout in rollouts),
        has_older=hub.rollouts.has_older(model, version),
        rollouts_held=held,
        commands=ways_out(model, version, rollouts, desired, older),
    )


def _who_is_to_run(row: VersionRow, desired: Mapping[str, int]) -> list[str]:
    return sorted(device_id for device_id, runs in desired.items() if runs == row.version)


def _key(after: str) -> tuple[str, int]:
    if not after:
        return ("", 0)
    model, _, version = after.partition("@")
    if not (version.isascii() and version.isdigit()):
        raise InvalidInput(
            f"{after!r:.80} is not a page of versions.", remedy="Pass `next` of the last page."
        )
    return model, int(version)


def _out(hub: HubServices, row: VersionRow) -> VersionOut:
    progress = hub.models.progress(row.model, row.version)
    shown = ProgressOut(step=progress.step, done=progress.done, of=progress.of) if progress else None
    return VersionOut(**msgspec.to_builtins(row), progress=shown)
