"""Rollbacks by command: which version devices go back to, which devices, and whom that puts aside.

Without a version, it is the newest proven one below the newest that any of the devices meant should run, as
`fleet.rollout.proven` finds it. A version that people name need only be released; what speaks against it is
said before anything moves, and kept.
With a target, only devices that match it go back; a rollout under way that also has devices outside the
target is in the way then: to put it aside would leave those without anybody who watches them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Protocol

import msgspec

from fleet.protocol.errors import Conflict, InvalidPlan
from fleet.rollout.claims import claims_of
from fleet.rollout.state.rollout import Rollout, Warned
from hub.query.devices import Searches, SearchStore
from hub.registry.lookups import Released
from hub.rollouts.proven import Proven, proven_of
from hub.store.protocols import RolloutStore
from hub.store.rows import RolloutRow

_NAMED = 3
"""Most versions that a refusal names one by one."""


class RetreatStore(SearchStore, RolloutStore, Protocol):
    """What a rollback needs of the store."""


class Retreat(msgspec.Struct, frozen=True):
    """A rollback by command that is thought through and has not begun.

    Attributes:
        model: Name of the model.
        to: The version that devices go back to.
        devices: Which devices.
        leaves: How many of them should run each version now.
        in_the_way: Rollouts under way that are put aside.
        doubt: Why the version would not be found without its name, a sentence; empty if it would.
    """

    model: str
    to: int
    devices: tuple[str, ...]
    leaves: dict[int, int]
    in_the_way: tuple[RolloutRow, ...]
    doubt: str = ""

    @property
    def sentence(self) -> str:
        """What it does, for people."""
        versions = ", ".join(
            f"{count:,} from version {v}" for v, count in sorted(self.leaves.items(), reverse=True)
        )
        number = len(self.devices)
        devices = f"{number:,} device goes" if number == 1 else f"{number:,} devices go"
        text = f"{devices} back to version {self.to} of {self.model}: {versions}."
        aside = ", ".join(str(row.state.number) for row in self.in_the_way)
        return f"{text} Put aside: rollout {aside}." if aside else text

    def noted(self, rollout: Rollout) -> Rollout:
        """Return the rollback with what speaks against it."""
        warned = (Warned(0, self.doubt),) if self.doubt else ()
        return msgspec.structs.replace(rollout, warned=warned)


def retreat(
    store: RetreatStore,
    find: Searches,
    released: Released,
    model: str,
    *,
    to: int | None,
    target: str | None,
) -> Retreat:
    """Return the rollback that an operator means.

    Args:
        store: Knows devices, what they should run, and rollouts.
        find: Searches devices.
        released: Looks up versions that may be rolled out.
        model: Name of the model.
        to: A released version; None for the newest proven one below what the devices should run.
        target: An expression of `fleet.targets`; None for every device.

    Raises:
        NotFound: There is no such version.
        Conflict: It was not released, or a rollout under way also has devices outside the target.
        InvalidTarget: The target cannot be understood, or asks for what nobody has.
        InvalidPlan: No device should run a newer one, or no older one is proven.
    """
    if to is not None:
        released(model, to)
    desired = store.desired_versions(model)
    if target is not None:
        meant = {row.device_id for row in find(target).devices()}
        desired = {device_id: version for device_id, version in desired.items() if device_id in meant}
    proven = proven_of(store, released, model)
    if to is None:
        to = proven.way_back(desired)
        if to is None:
            raise _nowhere(proven, model, max(desired.values(), default=0))
    devices = tuple(device_id for device_id, version in desired.items() if version > to)
    if not devices:
        where = " that the target means" if target is not None else ""
        raise InvalidPlan(
            f"No device{where} runs a newer version of {model} than {to}: there is nothing to roll back.",
            remedy="To bring a newer version, create a rollout: it is judged by a gate.",
        )
    in_the_way = [row for row in store.open_rollouts() if row.state.model == model]
    if target is not None:
        in_the_way = list(_within(in_the_way, meant))
    leaves = Counter(desired[device_id] for device_id in devices)
    return Retreat(model, to, devices, dict(leaves), tuple(in_the_way), proven.doubt(to, devices))


def _nowhere(proven: Proven, model: str, newest: int) -> InvalidPlan:
    """Return that no older version is proven, and which could be named all the same."""
    older = list(proven.released_below(newest))
    if not older:
        return InvalidPlan(
            f"There is no released version of {model} to go back to{f' from {newest}' * (newest > 0)}.",
            remedy="`muster model list` shows those there are.",
        )
    known = ((version, proven.standing(version).rejected) for version in older[:_NAMED])
    told = ", ".join(f"{v} ({why or 'no rollout of it succeeded'})" for v, why in known)
    return InvalidPlan(
        f"No released version of {model} below {newest} is proven: {told}.",
        remedy="Name with `--to` the one that you choose; `muster rollout list` shows what became of each.",
    )


def _within(rollouts: Iterable[RolloutRow], meant: set[str]) -> Iterable[RolloutRow]:
    """Yield the rollouts that have devices which the target means.

    Raises:
        Conflict: One has others besides.
    """
    for row in rollouts:
        held = [claim.device_id for claim in claims_of(row.state)]
        outside = sum(device_id not in meant for device_id in held)
        if outside == len(held):
            continue
        if outside:
            raise Conflict(
                f"Rollout {row.state.number} of {row.state.model} is under way and has {outside:,} devices "
                "outside the target as well.",
                remedy=f"End it with `muster rollout abort {row.state.number}`, or leave the target out.",
            )
        yield row
