"""Which bundles count inputs in the bins of a rollout's version: only between those are inputs compared.

Whether the versions that devices should run do is checked when a plan is written and when it starts. Devices
may come to run others later: who joins, or went back to an older one. What such a device says of its inputs
is no evidence; of all else it is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import msgspec

from fleet.protocol.errors import Conflict, InvalidPlan, NotFound
from fleet.rollout.events import Event, EvidenceObserved
from fleet.rollout.plans.fit import check_inputs, compared_inputs
from fleet.rollout.plans.plan import Plan
from fleet.rollout.state.rollout import Rollout
from hub.registry.lookups import Known, Released


def check_running(released: Released, model: str, version: int, plan: Plan, running: Collection[int]) -> None:
    """Check that inputs which are to be compared are counted alike by all versions concerned.

    Args:
        released: Looks up versions that may be rolled out.
        model: Name of the model.
        version: The version that the plan brings.
        plan: The plan.
        running: What devices should run now.

    Raises:
        InvalidPlan: They are not, or a version that devices run is not released any more.
    """
    if not compared_inputs(plan):
        return
    try:
        references = {number: released(model, number)[1].reference for number in running if number != version}
    except (NotFound, Conflict) as error:
        raise InvalidPlan(
            f"gate.metrics, input_drift: {error.message}",
            remedy="Devices run it, and their inputs cannot be compared; leave the metric out.",
            field="gate.metrics",
        ) from error
    check_inputs(plan, released(model, version)[1].reference, references)


def told_apart(known: Known, state: Rollout, events: Iterable[Event]) -> list[Event]:
    """Return the events with the bundles named whose inputs cannot be compared.

    Args:
        known: Looks up versions that have a bundle, revoked ones too: devices may run them.
        state: Of the rollout.
        events: Of its records.
    """
    if not compared_inputs(state.plan):
        return list(events)
    return [
        msgspec.structs.replace(event, incomparable=_incomparable(known, state, event))
        if isinstance(event, EvidenceObserved)
        else event
        for event in events
    ]


def _incomparable(known: Known, state: Rollout, event: EvidenceObserved) -> frozenset[str]:
    bundles = {
        (window.manifest_sha256, window.version)
        for _, window in event.windows
        if window.model == state.model and window.manifest_sha256 != state.manifest_sha256
    }
    return frozenset(
        digest for digest, version in bundles if not _is_comparable(known, state, digest, version)
    )


def _is_comparable(known: Known, state: Rollout, manifest_sha256: str, version: int) -> bool:
    try:
        digest, manifest = known(state.model, version)
        own = known(state.model, state.version)[1].reference
        check_inputs(state.plan, own, {version: manifest.reference})
    except (NotFound, Conflict, InvalidPlan):
        return False
    return digest == manifest_sha256
