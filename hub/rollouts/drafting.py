"""From a plan to a rollout that is drawn up: whom it means, what it asks of them, and what is refused."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

import msgspec

from fleet.protocol.assignment import VariantPolicy
from fleet.rollout import engine
from fleet.rollout.plans.fit import check_members, check_sizes
from fleet.rollout.plans.plan import Plan, default_plan
from fleet.rollout.state.rollout import Kind, Rollout
from hub.query.devices import Searches, SearchStore
from hub.registry.lookups import Released
from hub.rollouts.inputs import check_running
from hub.rollouts.members import check_attributes, members_of, stage_cohorts, strata_of
from hub.store.protocols import RolloutStore
from hub.store.rows import DeviceRow


class DraftingStore(SearchStore, RolloutStore, Protocol):
    """What drawing up a rollout needs of the store."""


class Proposal(msgspec.Struct, frozen=True):
    """An update that is thought through and has no number yet.

    Attributes:
        model: Name of the model.
        version: A released version of it.
        plan: As it will be carried out.
        members: Every device that the plan means, whatever it runs.
        seed: Fixes the order in which devices are reached.
        by: Who proposes it; empty if nobody needs to know.
    """

    model: str
    version: int
    plan: Plan
    members: tuple[DeviceRow, ...]
    seed: int
    by: str = ""


class Drafting:
    """Draws rollouts up; it stores nothing.

    Args:
        store: Knows devices and what they should run.
        find: Searches devices.
        released: Looks up versions that may be rolled out.
        group_by: The hub's setting.
        clock: Returns the hub's time, Unix seconds.
    """

    def __init__(
        self,
        store: DraftingStore,
        find: Searches,
        released: Released,
        group_by: tuple[str, ...],
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._find = find
        self._released = released
        self._group_by = group_by
        self._clock = clock

    def proposal(
        self,
        model: str,
        version: int,
        *,
        plan: Plan | None,
        devices: Sequence[str] | None,
        seed: int,
        variant_policy: VariantPolicy | None,
        by: str = "",
    ) -> Proposal:
        """Return the update that somebody means; args as `hub.rollouts.shell.Rollouts.create` has them.

        Raises:
            NotFound: There is no such version or device.
            Conflict: The version was not released, or was revoked: said before whom it would reach.
            InvalidPlan: The plan asks for what no device has, or means none that does not run the version.
        """
        self._released(model, version)
        members = members_of(self._store, self._find, plan, devices)
        desired = self._store.desired_versions(model)
        running = sum(desired.get(row.device_id) == version for row in members)
        plan = plan or default_plan(len(members) - running)
        check_members(plan, version, len(members), running)
        check_attributes(self._store, plan, self._group_by)
        if variant_policy is not None:
            plan = msgspec.structs.replace(plan, variant_policy=variant_policy)
        return Proposal(model, version, plan, tuple(members), seed, by)

    def update(self, proposal: Proposal) -> Callable[[int], Rollout]:
        """Return what makes the update of a number.

        Raises:
            InvalidPlan: Inputs are to be compared, and the versions that devices run count others. What is
                returned raises it where the plan does not fit the devices.
        """
        model, version, plan, members = proposal.model, proposal.version, proposal.plan, proposal.members
        desired = self._store.desired_versions(model)
        running = {desired[row.device_id] for row in members if row.device_id in desired}
        check_running(self._released, model, version, plan, running)
        creation = self.creation(
            model,
            version,
            kind=Kind.UPDATE,
            plan=plan,
            devices=[row.device_id for row in members],
            seed=proposal.seed,
            strata=strata_of(members, plan, self._group_by),
            cohorts=stage_cohorts(self._find, plan),
            by=proposal.by,
        )

        def build(number: int) -> Rollout:
            rollout = creation(number)
            check_sizes(plan, rollout.stage_sizes)
            return rollout

        return build

    def creation(
        self,
        model: str,
        version: int,
        *,
        kind: Kind,
        plan: Plan,
        devices: Sequence[str],
        seed: int,
        strata: Mapping[str, str] | None = None,
        cohorts: Mapping[int, Collection[str]] | None = None,
        by: str = "",
    ) -> Callable[[int], Rollout]:
        """Return what makes the rollout of a number.

        Args:
            model: Name of the model.
            version: A released version of it.
            kind: Update or rollback.
            plan: As it will be carried out.
            devices: Whom it means.
            seed: Fixes the order in which they are reached.
            strata: See `fleet.rollout.engine.create`, like the next.
            cohorts: Likewise.
            by: Who creates it; empty if nobody needs to know.

        Raises:
            NotFound: There is no such version.
            Conflict: It was not released. What is returned raises as `fleet.rollout.engine.create` does.
        """
        digest, _ = self._released(model, version)
        previous = self._store.desired_versions(model)
        now_s = self._clock()

        def build(number: int) -> Rollout:
            return engine.create(
                number=number,
                kind=kind,
                model=model,
                version=version,
                manifest_sha256=digest,
                plan=plan,
                seed=seed,
                devices={device_id: previous.get(device_id) for device_id in devices},
                now_s=now_s,
                strata=strata,
                cohorts=cohorts,
                created_by=by,
            )

        return build
