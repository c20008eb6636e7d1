"""Ways back to a version that was revoked: devices go to the newest proven one that they can run instead.

What would become of them is said before a rollout begins.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from fleet.protocol.errors import VariantUnsupported, VersionRevoked
from fleet.rollout.events import Assign, DevicesDetoured
from fleet.rollout.state.masks import Test
from fleet.rollout.state.rollout import Kind, Rollout, Warned
from fleet.sentences import devices
from hub.registry.lookups import Released
from hub.rollouts.proven import proven_of
from hub.store.rows import OrderChange
from hub.variants import Offers, OfferStore


class Refused(NamedTuple):
    """An order that cannot be given, and why."""

    command: Assign
    error: VersionRevoked


class Detours(NamedTuple):
    """What is ordered in place of revoked versions, what the engine is told of it, and what stays refused."""

    changes: list[OrderChange]
    events: list[DevicesDetoured]
    refused: list[Refused]


def detours(
    store: OfferStore, released: Released, offers: Offers, state: Rollout, refused: Iterable[Refused]
) -> Detours:
    """Return where devices are led whose way back was refused because the version was revoked.

    Args:
        store: Keeps rollouts.
        released: Looks up versions that may be rolled out.
        offers: Of this step.
        state: Of the rollout.
        refused: What was refused.
    """
    found = Detours([], [], [])
    back: dict[int, list[Refused]] = {}
    for each in refused:
        version = each.command.version
        if version is None or version == state.version or state.kind is Kind.ROLLBACK:
            found.refused.append(each)  # it leads forward
        else:
            back.setdefault(version, []).append(each)
    proven = proven_of(store, released, state.model) if back else None
    for version, those in back.items():
        assert proven is not None
        ways = proven.ways_back([each.command.device_id for each in those], version, but=state.version)
        led: dict[str, int] = {}
        for command, error in those:
            change = _first(offers, state.model, command, ways[command.device_id])
            if change is None:
                found.refused.append(Refused(command, _nowhere(state.model, error)))
                continue
            assert change.order is not None
            led[command.device_id] = change.order.version
            found.changes.append(change)
        if led:
            found.events.append(DevicesDetoured(led, those[0].error.message))
    return found


def _first(offers: Offers, model: str, command: Assign, versions: Iterable[int]) -> OrderChange | None:
    """Return the order of the first version that the device can run; None if it can run none of them."""
    for version in versions:
        try:
            return OrderChange(command.device_id, model, offers.order(command, version))
        except VariantUnsupported:
            continue
    return None


def _nowhere(model: str, error: VersionRevoked) -> VersionRevoked:
    return VersionRevoked(
        f"{error.message} No older version is proven that the device can run.",
        remedy=f"`muster rollback {model} --to VERSION --target …` brings it to one that you choose.",
    )


def foreseen(store: OfferStore, released: Released, rollout: Rollout) -> tuple[Warned, ...]:
    """Return what is to be said of devices that run a revoked version and would be taken back.

    Args:
        store: Keeps rollouts and knows devices.
        released: Looks up versions that may be rolled out.
        rollout: As the engine created it.
    """
    found: list[Warned] = []
    for version in sorted(rollout.deployments.previous_versions()):
        try:
            released(rollout.model, version)
        except VersionRevoked:
            whom = [part.device_id for part in rollout.deployments.where(_ran(version))]
            heading = _heading(store, released, rollout, version, whom)
            found.append(Warned(len(rollout.plan.stages) - 1, _foreseen_sentence(version, heading)))
    return tuple(found)


def _ran(version: int) -> Test:
    return lambda rows: np.asarray(rows["previous_version"] == version)


def _heading(
    store: OfferStore, released: Released, rollout: Rollout, version: int, device_ids: Sequence[str]
) -> Counter[int | None]:
    """Count devices by the version that they would go back to in place of one; None for none."""
    ways = proven_of(store, released, rollout.model).ways_back(device_ids, version, but=rollout.version)
    offers = Offers(store, released, rollout)
    offers.read(device_ids)
    found: Counter[int | None] = Counter()
    for device_id in device_ids:
        change = _first(offers, rollout.model, Assign(device_id, "", version), ways[device_id])
        found[change.order.version if change is not None and change.order is not None else None] += 1
    return found


def _foreseen_sentence(version: int, heading: Counter[int | None]) -> str:
    count = heading.total()
    lost = heading.pop(None, 0)
    text = f"{devices(count)} {'runs' if count == 1 else 'run'} version {version}, which was revoked: "
    parts = [f"{number:,} to version {to}" for to, number in sorted(heading.items(), reverse=True)]
    if len(parts) == 1 and not lost:
        (to,) = heading
        return f"{text}if this is taken back, {'it goes' if count == 1 else 'they go'} to version {to}."
    goes = f"if this is taken back, they go {', '.join(parts)}" if parts else ""
    stays = f"{f'{lost:,} of them' if parts else 'it' if count == 1 else 'they'} cannot be taken back"
    why = "because no older version is proven that would run there"
    return f"{text}{goes}{'; ' if parts else ''}{stays}, {why}."
