"""The store protocols: everything that the hub remembers, behind narrow interfaces.

Services depend on these protocols only. `hub.store.sqlite` implements them; another database is a second
implementation that passes the same contract suite (``tests/contract/test_store_*.py``). Methods are
synchronous and each is one transaction: what it says happens whole or not at all, also when the process
is killed. Callers in asyncio code run them in a thread.

Times are Unix seconds. Pages are keyset pages: pass the last key seen as ``after``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from fleet.protocol.assignment import ModelOrder
from fleet.protocol.errors import Cause
from fleet.protocol.messages import (
    Capabilities,
    StateReport,
)
from fleet.rollout.state import Rollout
from hub.store.rows import (
    Action,
    ApiToken,
    DatasetRow,
    DeadLetter,
    Desired,
    DeviceRow,
    DeviceWishes,
    DiagnosticsRow,
    DriftRow,
    IncomingRecord,
    MeasurementRow,
    NewDevice,
    OrderChange,
    RolloutRow,
    ShadowTotals,
    StoredRecord,
    Superseded,
    VersionRow,
    VersionTotals,
)


class TokenStore(Protocol):
    """API tokens of people and one-time tokens of devices, by the SHA-256 of their secrets."""

    def add_api_token(self, secret_sha256: str, token: ApiToken) -> None:
        """Add a token; raises `Conflict` if its name is taken."""
        ...

    def api_token(self, secret_sha256: str) -> ApiToken | None:
        """Return the token with that hash."""
        ...

    def add_enrolment_token(self, secret_sha256: str, *, created_at_s: float, expires_at_s: float) -> None:
        """Add a one-time token for a device."""
        ...


class RegistryStore(Protocol):
    """Datasets and model versions."""

    def add_dataset(self, dataset: DatasetRow) -> None:
        """Add a dataset; raises `Conflict` if its name stands for other bytes already."""
        ...

    def dataset(self, name: str) -> DatasetRow:
        """Return a dataset; raises `NotFound`."""
        ...

    def datasets(self, *, after: str = "", limit: int = 100) -> list[DatasetRow]:
        """Return datasets by name."""
        ...

    def begin_version(
        self,
        model: str,
        *,
        dataset: str,
        estimator: str,
        hyperparameters: Mapping[str, Any],
        seed: int,
        now_s: float,
    ) -> VersionRow:
        """Reserve the model's next version number for a training; raises `NotFound` for the dataset."""
        ...

    def finish_version(
        self, model: str, version: int, *, manifest_sha256: str, report: Mapping[str, Any]
    ) -> None:
        """Training → registered."""
        ...

    def add_version(self, version: VersionRow) -> bool:
        """Add a version that is complete; its dataset need not be registered here.

        Returns:
            False if its number is not the model's next one; nothing was changed.
        """
        ...

    def fail_version(self, model: str, version: int, cause: Cause) -> None:
        """Training → failed."""
        ...

    def release_version(self, model: str, version: int, now_s: float) -> None:
        """Registered → released; raises `Conflict` from any other status but released."""
        ...

    def abandon_trainings(self, cause: Cause) -> int:
        """Mark every version in training as failed: the process that trained them is gone."""
        ...

    def version(self, model: str, version: int) -> VersionRow:
        """Return a version; raises `NotFound`."""
        ...

    def versions(
        self, model: str | None = None, *, after: tuple[str, int] = ("", 0), limit: int = 100
    ) -> list[VersionRow]:
        """Return versions by model and number."""
        ...


class DeviceStore(Protocol):
    """The members of the fleet, what they report, and what they should run."""

    def enrol(self, device: NewDevice, *, token_sha256: str, now_s: float) -> None:
        """Use up the token and add the device.

        Until the device was first heard of, the same token enrols the same device again, with another
        password: the answer to the first time may have been lost.

        Raises:
            NotAuthenticated: The token is unknown, used or expired.
            Conflict: The name is taken.
        """
        ...

    def device(self, device_id: str) -> DeviceRow:
        """Return a device; raises `NotFound`."""
        ...

    def devices(self, *, after: str = "", limit: int = 100) -> list[DeviceRow]:
        """Return devices by id."""
        ...

    def password_hashes(self) -> dict[str, str]:
        """Return every device's broker password hash."""
        ...

    def set_online(self, device_id: str, online: bool, now_s: float) -> None:
        """Remember whether the device is connected."""
        ...

    def hello(self, device_id: str, capabilities: Capabilities, accepted_sequence: int, now_s: float) -> None:
        """Remember an announcement.

        If the device has accepted a higher sequence number than the store has given out (the store was
        restored from a copy), the device's number is raised above it, so that orders are obeyed again.
        """
        ...

    def report(self, device_id: str, report: StateReport, now_s: float) -> None:
        """Remember a heartbeat."""
        ...

    def desired(self, device_id: str) -> Desired:
        """Return what the device should run."""
        ...

    def desired_versions(self, model: str) -> dict[str, int]:
        """Return the version of a model that each device should run, for the devices that should run one."""
        ...

    def all_desired(self) -> dict[str, tuple[ModelOrder, ...]]:
        """Return what every device should run, for the devices that should run anything."""
        ...

    def behind(self) -> dict[str, int]:
        """Return the connected devices that have not accepted their current assignment, and its number."""
        ...


class WishStore(Protocol):
    """What operators wish of devices, and what they did: a change and its action are one transaction."""

    def wishes(self, device_id: str) -> DeviceWishes:
        """Return what is wished of a device; nothing if there is no such device."""
        ...

    def wish(
        self, device_id: str, change: Callable[[DeviceWishes], DeviceWishes], action: Action
    ) -> DeviceWishes:
        """Change what is wished of a device.

        If what the device is told changes, it gets the next sequence number; if nothing changes, no action
        is remembered.

        Args:
            device_id: Which device.
            change: Gives the new wishes from those before.
            action: What is remembered of it.

        Returns:
            The new wishes.

        Raises:
            NotFound: There is no such device.
        """
        ...

    def add_action(self, device_id: str, action: Action) -> None:
        """Remember what an operator did; raises `NotFound`."""
        ...

    def actions(self, device_id: str, *, limit: int = 20) -> list[Action]:
        """Return what operators did about a device, newest first."""
        ...


class MeasurementStore(Protocol):
    """What devices measured of variants: the newest of each device and bundle."""

    def measurements(
        self, *, manifest_sha256: str | None = None, device_id: str | None = None
    ) -> list[MeasurementRow]:
        """Return what was measured of a bundle, by a device, or both, by device and model."""
        ...


class ShadowStore(Protocol):
    """What devices reported of candidates in the shadow; `add_records` adds it up here."""

    def shadows(self, model: str, version: int) -> list[ShadowTotals]:
        """Return what was reported of a version in the shadow, by device and deployment."""
        ...


class DiagnosticsStore(Protocol):
    """Diagnostic bundles that devices sent: of each device the newest few; `add_records` puts them here."""

    def diagnostics(self, device_id: str) -> list[DiagnosticsRow]:
        """Return what there is of a device, newest first, without the bytes."""
        ...

    def diagnostics_data(self, device_id: str, request_id: str) -> bytes:
        """Return a bundle's bytes; raises `NotFound`."""
        ...


class RecordStore(Protocol):
    """What devices reported, each record exactly once."""

    def add_records(self, records: Sequence[IncomingRecord]) -> int:
        """Store the records that are not stored yet; return how many were new."""
        ...

    def add_dead_letter(self, letter: DeadLetter) -> None:
        """Keep a message that could not be taken in."""
        ...

    def dead_letters(self, *, limit: int = 100) -> list[DeadLetter]:
        """Return the newest dead letters, newest first."""
        ...

    def count_dead_letters(self) -> int:
        """Return how many dead letters there are."""
        ...

    def records_after(
        self, position: int, *, model: str | None = None, limit: int = 1000
    ) -> list[StoredRecord]:
        """Return records in the order they were stored; incidents have no model."""
        ...

    def timeline(self, device_id: str, *, before: int | None = None, limit: int = 100) -> list[StoredRecord]:
        """Return one device's reports and incidents (no windows), newest first."""
        ...

    def last_reports(self, *, device_id: str | None = None) -> list[StoredRecord]:
        """Return the newest deployment report of each device and model."""
        ...

    def last_position(self) -> int:
        """Return the position of the newest record; 0 for none."""
        ...

    def totals(self, *, device_id: str | None = None, model: str | None = None) -> list[VersionTotals]:
        """Return what devices reported about versions, added up."""
        ...


class RolloutStore(Protocol):
    """Rollouts: state, position and orders change in one transaction."""

    def create_rollout(self, build: Callable[[int], Rollout], now_s: float) -> RolloutRow:
        """Number and store a new rollout.

        Args:
            build: Makes the rollout from its number.
            now_s: Unix time.

        Raises:
            Conflict: It is under way already, and so is another rollout of the model.
        """
        ...

    def apply_step(
        self,
        state: Rollout,
        *,
        previous_revision: int,
        position: int,
        changes: Sequence[OrderChange],
    ) -> None:
        """Store a step: the new state, and the orders that follow from it.

        Every device in ``changes`` gets the next sequence number.

        Raises:
            Conflict: The stored rollout no longer has ``previous_revision``, or the step starts it while
                another rollout of the model is under way.
        """
        ...

    def begin_rollback(
        self,
        build: Callable[[int], tuple[Rollout, Sequence[OrderChange]]],
        *,
        superseded: Sequence[Superseded],
        position: int,
        now_s: float,
    ) -> RolloutRow:
        """Put rollouts aside and begin another with its orders, all at once: there is no moment between.

        Args:
            build: Makes the new rollout, already started, and its orders from its number.
            superseded: The rollouts that are put aside.
            position: From where the new rollout reads the records.
            now_s: Unix time.

        Raises:
            Conflict: One of the rollouts was changed by someone else, or another one is under way.
        """
        ...

    def rollout(self, number: int) -> RolloutRow:
        """Return a rollout; raises `NotFound`."""
        ...

    def rollouts(
        self, *, model: str | None = None, before: int | None = None, limit: int = 100
    ) -> list[RolloutRow]:
        """Return rollouts, newest first."""
        ...

    def open_rollouts(self) -> list[RolloutRow]:
        """Return the rollouts that were started and have not ended."""
        ...


class DriftStore(Protocol):
    """Bookkeeping of drift alarms."""

    def drift_position(self) -> int:
        """Return how far drift has read the records."""
        ...

    def save_drift(self, position: int, rows: Sequence[DriftRow]) -> None:
        """Store the rows and the position that they include."""
        ...

    def drift(self, *, model: str | None = None, device_id: str | None = None) -> list[DriftRow]:
        """Return drift bookkeeping."""
        ...


class Store(
    TokenStore,
    RegistryStore,
    DeviceStore,
    WishStore,
    RecordStore,
    DiagnosticsStore,
    MeasurementStore,
    ShadowStore,
    RolloutStore,
    DriftStore,
    Protocol,
):
    """All of it, as the hub opens it."""

    def close(self) -> None:
        """Finish what is under way and close."""
        ...
