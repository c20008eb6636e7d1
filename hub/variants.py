"""Which variant of a version the hub orders for a device, and what it leaves to the device to choose.

The decision is `fleet.variants.offer`; here is what it asks of the store. A device that goes back to an
older version gets it by the policy of the rollout that brought that version: so it is offered the very
variant that it ran then and need not fetch or measure anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from fleet.protocol.assignment import ModelOrder, VariantPolicy
from fleet.protocol.errors import VariantUnsupported
from fleet.protocol.maintenance import Maintenance, Mode
from fleet.protocol.messages import Capabilities
from fleet.protocol.records import Measurement
from fleet.rollout.events import Assign
from fleet.rollout.state.rollout import Kind, Rollout
from fleet.variants import Peers, offer
from hub.registry.lookups import Released
from hub.store.protocols import DeviceStore, MeasurementStore, RolloutStore

ROLLOUTS_LOOKED_AT = 100
"""The latest of the model; a version that none of them brought is ordered in its first variant, and one that
another of them brought to the device as the newest says."""


class OfferStore(DeviceStore, MeasurementStore, RolloutStore, Protocol):
    """What offers need of the store."""


class Measured(NamedTuple):
    """What devices measured of a version: each of them, and all as they vote."""

    by_device: dict[str, Measurement]
    peers: Peers


_NOTHING = Measured({}, Peers())


def measured_of(store: MeasurementStore, manifest_sha256: str) -> Measured:
    """Return what devices measured of a version."""
    rows = store.measurements(manifest_sha256=manifest_sha256)
    return Measured({row.device_id: row.measurement for row in rows}, Peers(row.measurement for row in rows))


class Offers:
    """The orders of one step of a rollout. What is the same for all of its devices is read once.

    Args:
        store: Knows devices and what they measured.
        released: Looks up versions that may be rolled out.
        rollout: Gives the orders.
    """

    def __init__(self, store: OfferStore, released: Released, rollout: Rollout) -> None:
        self._store = store
        self._released = released
        self._rollout = rollout
        self._policies: dict[int, dict[int, VariantPolicy]] = {}
        self._bringers: dict[int, dict[str, int]] = {}
        self._measured: dict[str, Measured] = {}
        self._capabilities: dict[str, Capabilities] = {}

    def read(self, device_ids: Iterable[str]) -> None:
        """Read at once what devices can run to which orders are about to be given."""
        named = list(device_ids)
        found = self._store.devices_named(named) if named else {}
        self._capabilities = {device_id: row.capabilities for device_id, row in found.items()}
        self._bringers = {}

    def order(self, command: Assign, version: int) -> ModelOrder:
        """Return the order that carries out a command.

        Args:
            command: Names the device and the deployment.
            version: What the device should run.

        Raises:
            VariantUnsupported: The device can run none of the version's variants, or not as it is asked to.
        """
        digest, manifest = self._released(self._rollout.model, version)
        device = self._capabilities.get(command.device_id)
        if device is None:
            device = self._store.device(command.device_id).capabilities
        if command.shadow_s > 0 and not device.obeys_wishes:  # it came with the same release
            raise VariantUnsupported(
                f"The agent of {command.device_id} is of a release that knows no shadow.",
                remedy="Update it first, or leave the device to a rollout without a shadow.",
            )
        maintenance, mode = self._swap(command, version, device)
        policy = self._policy(command.device_id, version)
        measured = _NOTHING if policy is VariantPolicy.FIRST else self._measurements(digest)
        own = measured.by_device.get(command.device_id)
        offered = offer(manifest, device, policy, own=own, others=measured.peers)
        return ModelOrder(
            model=self._rollout.model,
            version=version,
            manifest_sha256=bytes.fromhex(digest),
            variant=offered.variant,
            deployment_id=command.deployment_id,
            alternatives=offered.alternatives,
            policy=offered.policy,
            shadow_s=command.shadow_s,
            maintenance=maintenance,
            mode=mode,
        )

    def _swap(self, command: Assign, version: int, device: Capabilities) -> tuple[Maintenance | None, Mode]:
        """Return when the version may be swapped in, and whom the device asks. Ways back wait for no window.

        Raises:
            VariantUnsupported: The device would not keep to the window. One that does not know what is
                forced asks everybody: that is slower, and harms nobody.
        """
        plan = self._rollout.plan
        if version != self._rollout.version or (plan.maintenance is None and plan.mode is Mode.SOFT):
            return None, Mode.SOFT
        if device.keeps_windows:
            return plan.maintenance, plan.mode
        if plan.maintenance is not None:
            raise VariantUnsupported(
                f"The agent of {command.device_id} is of a release that keeps to no plan's window.",
                remedy="Update it first, or leave the device to a rollout without one.",
            )
        return None, Mode.SOFT

    def _policy(self, device_id: str, version: int) -> VariantPolicy:
        rollout = self._rollout
        if rollout.kind is Kind.UPDATE and version == rollout.version:
            return rollout.plan.variant_policy
        if version not in self._policies:
            rows = self._store.rollouts(model=rollout.model, limit=ROLLOUTS_LOOKED_AT)
            brought = [r.state for r in rows if r.state.kind is Kind.UPDATE and r.state.version == version]
            self._policies[version] = {state.number: state.plan.variant_policy for state in brought}
        policies = self._policies[version]
        if len(set(policies.values())) > 1:  # it matters which of them brought it
            return policies[self._bringer(device_id, version)]
        return next(iter(policies.values()), VariantPolicy.FIRST)

    def _bringer(self, device_id: str, version: int) -> int:
        """Return the rollout that brought a version to a device; the newest of all if none did."""
        policies = self._policies[version]
        if device_id not in self._capabilities:
            return self._store.brought_by(policies, [device_id]).get(device_id, max(policies))
        if version not in self._bringers:
            self._bringers[version] = self._store.brought_by(policies, self._capabilities)
        return self._bringers[version].get(device_id, max(policies))

    def _measurements(self, manifest_sha256: str) -> Measured:
        if manifest_sha256 not in self._measured:
            self._measured[manifest_sha256] = measured_of(self._store, manifest_sha256)
        return self._measured[manifest_sha256]
