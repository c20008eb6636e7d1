"""How devices are: a state row for each, kept up to date and counted, so that no question reads history.

Whatever health rests on (`fleet.health`) marks the device in the transaction that changes it. A refresh
judges the marked devices, and those whose judgement ended, and changes rows and counts together: a question
costs what its answer is long, whatever the number of devices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from fleet.health import DeviceFacts, FleetHealth
from hub.store.rows import DriftRow
from hub.store.state_rows import DeviceState, Groups, StateRules


class StateStore(Protocol):
    """How devices are; answers are as old as the last refresh."""

    def adopt_rules(self, rules: StateRules) -> None:
        """Judge by these rules from now on; if they are others than before, every device is marked."""
        ...

    def refresh_states(self, *, now_s: float, limit: int = 500) -> int:
        """Judge devices that are marked or whose judgement ended; return how many, at most ``limit``.

        Args:
            now_s: Hub time.
            limit: Most devices; the store's writer works for so long.

        Raises:
            Unavailable: No rules were adopted.
        """
        ...

    def waiting(self) -> int:
        """Return how many devices are marked."""
        ...

    def facts(self, device_ids: Sequence[str]) -> list[DeviceFacts]:
        """Return what is known of devices now, by id; unknown ones are left out."""
        ...

    def fleet_health(self) -> FleetHealth:
        """Return the counts of the whole fleet."""
        ...

    def grouped_by_trait(self, attribute: str, *, model: str | None = None, limit: int = 100) -> Groups:
        """Return the devices by the value of an attribute.

        Args:
            attribute: One that the rules group by.
            model: Only devices that run or should run it.
            limit: Most groups of their own.
        """
        ...

    def grouped_by_status(self, *, model: str | None = None) -> Groups:
        """Return the devices by health; args like `grouped_by_trait`."""
        ...

    def grouped_by_version(self, *, model: str | None = None, limit: int = 100) -> Groups:
        """Return the devices by the version that they report, ``digits 3``, a device once for each model."""
        ...

    def device_states(self, device_ids: Sequence[str]) -> dict[str, DeviceState]:
        """Return the states of devices, by id; those that were never judged are left out."""
        ...

    def unwell(self, *, model: str | None = None, after: str = "", limit: int = 100) -> list[DeviceState]:
        """Return devices that are UNHEALTHY or OFFLINE, by id; of those that run a model, if one is given."""
        ...

    def drifting_devices(self, model: str, *, limit: int = 100) -> list[str]:
        """Return devices whose drift alarm is raised, by id."""
        ...

    def drifting_features(self, device_ids: Sequence[str]) -> dict[str, frozenset[str]]:
        """Return the features, of any model, that the drift alarms of devices name, by id; of those alarmed.

        Args:
            device_ids: The devices that are asked about.
        """
        ...

    def alarming(self, *, model: str | None = None) -> list[DriftRow]:
        """Return the drift bookkeeping of devices whose alarm is raised for the version they run, by id."""
        ...

    def traits(self, model: str) -> dict[str, dict[str, str]]:
        """Return what devices that run a model are, by id, for `fleet.drift.affected`.

        Their attributes; their ``hardware`` and ``architecture``; the releases of agent and runtimes, as
        ``agent`` and ``runtime.onnxruntime``; the ``version`` and ``variant`` of the model.
        """
        ...
