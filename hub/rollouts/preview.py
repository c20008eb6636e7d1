"""The shell of the dry run: reads what is known of the devices and asks `fleet.rollout.preview`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import median
from typing import Protocol

import msgspec
import numpy as np

from fleet.cohorts import cohorts_of
from fleet.protocol.assignment import VariantPolicy
from fleet.protocol.errors import InvalidPlan
from fleet.protocol.manifest import Manifest
from fleet.protocol.messages import Capabilities
from fleet.rollout.claims import Claim, keeps, priority_of
from fleet.rollout.obstacles import Candidate
from fleet.rollout.preview import Preview, preview
from fleet.rollout.state.columns import SUCCEEDED, Mask, Rows
from fleet.rollout.state.rollout import Kind, Rollout
from fleet.variants import Offer, Peers, offer
from hub.query.devices import SearchStore
from hub.registry.lookups import Released
from hub.rollouts.claims import check_claims, claims_on
from hub.rollouts.detours import foreseen
from hub.rollouts.drafting import Drafting, Proposal
from hub.rollouts.forecast import forecast_of
from hub.store.protocols import MeasurementStore, QuarantineStore, RolloutStore, RollupStore, WishStore
from hub.variants import Measured, measured_of

PAST_ROLLOUTS = 5
"""So many of the model's latest are looked at for how long an install takes."""
PAST_INSTALLS = 1000
"""And so many of their installs at most."""


class PreviewStore(
    SearchStore, MeasurementStore, RolloutStore, RollupStore, QuarantineStore, WishStore, Protocol
):
    """What the dry run needs of the store."""


class Previewing:
    """Makes dry runs; nothing is stored.

    Args:
        store: Knows devices, measurements, quarantines and other rollouts.
        drafting: Draws rollouts up.
        released: Looks up versions that may be rolled out.
        group_by: The hub's setting.
        clock: Returns the hub's time, Unix seconds.
    """

    def __init__(
        self,
        store: PreviewStore,
        drafting: Drafting,
        released: Released,
        group_by: tuple[str, ...],
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._drafting = drafting
        self._released = released
        self._group_by = group_by
        self._clock = clock

    def preview(self, proposal: Proposal, *, all_named: bool) -> Preview:
        """Return what an update would do that somebody means.

        Devices that another rollout keeps are put into no stage, as at the start.

        Args:
            proposal: The update.
            all_named: Whether to name every device.

        Raises:
            InvalidPlan: The plan cannot be carried out with these devices.
        """
        asked = self._drafting.update(proposal)(0)
        kept = self._kept(asked)
        starting, misfit = self._starting(proposal, asked, kept)
        digest, manifest = self._released(proposal.model, proposal.version)
        told = preview(
            starting or asked,
            self._candidates(proposal, kept),
            manifest,
            offer=_offers(self._store, digest, manifest, proposal.plan.variant_policy),
            typical_install_s=typical_install_s(self._store, proposal.model),
            forecast=forecast_of(self._store, starting, self._clock()) if starting is not None else (),
            all_named=all_named,
        )
        ways_back = (warned.text for warned in foreseen(self._store, self._released, asked))
        told = msgspec.structs.replace(told, warnings=(*told.warnings, *ways_back), misfit=misfit)
        try:
            check_claims(self._store, asked)
        except InvalidPlan as error:
            return msgspec.structs.replace(told, refused=error.message, remedy=error.remedy)
        return told

    def _kept(self, asked: Rollout) -> dict[str, Claim]:
        """Return which of its devices other rollouts would keep, and the claim on each."""
        return {
            claim.device_id: claim
            for claim in claims_on(self._store, asked)
            if keeps(claim, priority_of(asked))
            and asked.deployments.members.place(claim.device_id) is not None
        }

    def _starting(
        self, proposal: Proposal, asked: Rollout, kept: Mapping[str, Claim]
    ) -> tuple[Rollout | None, str]:
        """Return the rollout as it would start, without devices that others keep.

        It is None if it could not; then comes why, unless nobody is left, which `check_claims` refuses.
        """
        if not kept:
            return asked, ""
        if len(kept) == len(asked.deployments):
            return None, ""
        left = tuple(row for row in proposal.members if row.device_id not in kept)
        try:
            return self._drafting.update(msgspec.structs.replace(proposal, members=left))(0), ""
        except InvalidPlan as error:
            are_started = all(claim.is_started for claim in kept.values())
            keep = "keep" if are_started else "keep if they start first"
            return None, f"Without what other rollouts {keep}, it could not start. {error.message}"

    def _candidates(self, proposal: Proposal, kept: Mapping[str, Claim]) -> dict[str, Candidate]:
        """Return what is known of every device that the plan means."""
        quarantined = {row.device_id for row in self._store.quarantines()}
        held = self._store.held_devices()
        attributes = (*self._group_by, *(proposal.plan.stratify_by or ()))
        return {
            row.device_id: Candidate(
                capabilities=row.capabilities,
                cohorts=cohorts_of(
                    row.attributes,
                    hardware=row.capabilities.hardware,
                    architecture=row.capabilities.architecture,
                    group_by=attributes,
                ),
                is_held=row.device_id in held,
                is_quarantined=row.device_id in quarantined,
                claim=kept.get(row.device_id),
            )
            for row in proposal.members
        }


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
