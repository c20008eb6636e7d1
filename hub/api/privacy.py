"""Routes: noise on the counts of devices, and what noised counts show."""

from __future__ import annotations

import math
import time

from fastapi import APIRouter

from hub.api.auth import Operator, Viewer
from hub.api.devices import wishes_out
from hub.api.privacy_schemas import CountNoiseIn, NoisedAllOut, NoisedOut, RoughDriftOut
from hub.api.query import From, To
from hub.api.schemas import WishesOut
from hub.api.services import Hub
from hub.api.turns import IN_TURN
from hub.query.devices import check_model
from hub.query.noised import NoisedOf, noised_of
from hub.query.series import References
from hub.query.times import time_range
from hub.store.telemetry_rows import DAY_S

router = APIRouter(tags=["fleet"])


@router.post("/devices/{device_id}/count-noise")
def set_count_noise(device_id: str, body: CountNoiseIn, hub: Hub, caller: Operator) -> WishesOut:
    """Let a device put noise on its counts; null for as its owner set it."""
    return wishes_out(hub.wishing.set_count_noise(device_id, body.epsilon, by=caller.name))


@router.get("/fleet/noised", dependencies=[IN_TURN])
def noised(hub: Hub, _: Viewer, model: str, start: From = None, to: To = None) -> NoisedAllOut:
    """Return what devices with noise on their counts told of each version, by whole days."""
    check_model(hub.store, model)
    within = time_range(start, to, time.time()).aligned(DAY_S)
    found = noised_of(hub.store, model, within, References(hub.models.reference, model))
    return NoisedAllOut(start_s=within.start_s, end_s=within.end_s, items=[_shown(one) for one in found])


def _shown(one: NoisedOf) -> NoisedOut:
    total = one.total
    return NoisedOut(
        version=one.version,
        windows=total.windows,
        epsilon=total.epsilon,
        deviation=math.sqrt(total.variance),
        predictions=max(0, total.predictions),
        errors=max(0, total.errors),
        labelled=max(0, total.labelled),
        correct=max(0, total.correct),
        features=[RoughDriftOut(**rough._asdict(), sentence=rough.sentence) for rough in one.features],
    )
