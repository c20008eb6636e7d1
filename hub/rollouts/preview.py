"""The shell of the dry run: reads what is known of the devices and asks `fleet.rollout.preview`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from statistics import median
from typing import Protocol

import msgspec
import numpy as np

from fleet.cohorts import cohorts_of
from fleet.protocol.assignment import VariantPolicy
from fleet.protocol.errors import InvalidPlan
from fleet.protocol.manifest import Manifest
from fleet.protocol.messages import Capabilities
from fleet.rollout.claims import keeps, priority_of
from fleet.rollout.obstacles import Candidate
from fleet.rollout.preview import Preview, preview
from fleet.rollout.state.columns import SUCCEEDED, Mask, Rows
from fleet.rollout.state.rollout import Kind, Rollout
from fleet.variants import Offer, Peers, offer
from hub.query.devices import SearchStore
from hub.rollouts.claims import check_claims, claims_on
from hub.rollouts.forecast import forecast_of
from hub.store.protocols import MeasurementStore, QuarantineStore, RolloutStore, RollupStore, WishStore
from hub.store.rows import DeviceRow
from hub.variants import Measured, measured_of

PAST_ROLLOUTS = 5
"""So many of the model's latest are looked at for how long an install takes."""
PAST_INSTALLS = 1000
"""And so many of their installs at most."""


class PreviewStore(
    SearchStore, MeasurementStore, RolloutStore, RollupStore, QuarantineStore, WishStore, Protocol
):
    """What the dry run needs of the store."""


def preview_of(
    store: PreviewStore,
    rollout: Rollout,
    members: Sequence[DeviceRow],
    released: tuple[str, Manifest],
    *,
    group_by: Iterable[str],
    now_s: float,
    all_named: bool,
    redrawn: Callable[[Sequence[DeviceRow]], Rollout],
) -> Preview:
    """Return what a rollout would do that was drawn up and is not stored.

    Devices that another rollout keeps are put into no stage, as at the start.

    Args:
        store: Knows devices, measurements, quarantines and other rollouts.
        rollout: As the engine created it.
        members: Every device that the plan means.
        released: Digest and manifest of the version.
        group_by: The hub's setting.
        now_s: Hub time, Unix seconds.
        all_named: Whether to name every device.
        redrawn: Draws the same plan up for fewer members; raises `InvalidPlan`.
    """
    digest, manifest = released
    quarantined, held = {row.device_id for row in store.quarantines()}, store.held_devices()
    kept = {
        claim.device_id: claim.rollout
        for claim in claims_on(store, rollout)
        if keeps(claim, priority_of(rollout))
        and rollout.deployments.members.place(claim.device_id) is not None
    }
    asked = rollout
    rollout, misfit = _without(kept, rollout, members, redrawn)
    begins = not kept or rollout is not asked
    candidates = {
        row.device_id: Candidate(
            capabilities=row.capabilities,
            cohorts=cohorts_of(
                row.attributes,
                hardware=row.capabilities.hardware,
                architecture=row.capabilities.architecture,
                group_by=(*group_by, *(rollout.plan.stratify_by or ())),
            ),
            is_held=row.device_id in held,
            is_quarantined=row.device_id in quarantined,
            claimed_by=kept.get(row.device_id),
        )
        for row in members
    }
    told = preview(
        rollout,
        candidates,
        manifest,
        offer=_offers(store, digest, manifest, rollout.plan.variant_policy),
        typical_install_s=typical_install_s(store, rollout.model),
        forecast=forecast_of(store, rollout, now_s) if begins else (),
        all_named=all_named,
    )
    told = msgspec.structs.replace(told, warnings=(*misfit, *told.warnings))
    try:
        check_claims(store, asked)
    except InvalidPlan as error:
        return msgspec.structs.replace(told, refused=error.message, remedy=error.remedy)
    return told


def _without(
    kept: Collection[str],
    rollout: Rollout,
    members: Sequence[DeviceRow],
    redrawn: Callable[[Sequence[DeviceRow]], Rollout],
) -> tuple[Rollout, tuple[str, ...]]:
    """Return the rollout as it would start without devices that others keep, and why it would not."""
    if not kept or len(kept) == len(rollout.deployments):
        return rollout, ()
    try:
        return redrawn([row for row in members if row.device_id not in kept]), ()
    except InvalidPlan as error:
        return rollout, (f"Without what other rollouts keep, it could not start. {error.message}",)


def typical_install_s(store: RolloutStore, model: str) -> float | None:
    """Return the median time from an order to its success in the model's latest updates; None without any."""
    taken_s: list[float] = []
    for row in store.rollouts(model=model, limit=PAST_ROLLOUTS):
        if row.state.kind is not Kind.UPDATE:
            continue
        shadow_s = row.state.plan.shadow_s
        deployments = store.rollout(row.state.number).state.deployments
        for part in deployments.where(_has_succeeded, limit=PAST_INSTALLS - len(taken_s)):
            assert part.attempt.ordered_s is not None
            taken_s.append(max(0.0, part.attempt.since_s - part.attempt.ordered_s - shadow_s))
        if len(taken_s) >= PAST_INSTALLS:
            break
    return median(taken_s) if taken_s else None


def _has_succeeded(rows: Rows) -> Mask:
    return np.asarray((rows["state"] == SUCCEEDED) & ~np.isnan(rows["ordered_s"]))


def _offers(
    store: MeasurementStore, digest: str, manifest: Manifest, policy: VariantPolicy
) -> Callable[[str, Capabilities], Offer]:
    measured = measured_of(store, digest) if policy is not VariantPolicy.FIRST else Measured({}, Peers())

    def offered(device_id: str, device: Capabilities) -> Offer:
        own = measured.by_device.get(device_id)
        return offer(manifest, device, policy, own=own, others=measured.peers)

    return offered
