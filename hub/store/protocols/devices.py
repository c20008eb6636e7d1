"""The members of the fleet, what is wished of them, and the diagnostic bundles that they sent."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from hub.store.rows import Action, Desired, DeviceChange, DeviceRow, DeviceWishes, DiagnosticsRow, NewDevice


class DeviceStore(Protocol):
    """The members of the fleet, what they said last (`RecordStore.take_in`), and what they should run."""

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

    def devices_named(self, device_ids: Iterable[str]) -> dict[str, DeviceRow]:
        """Return devices by id; those that there are not are left out."""
        ...

    def devices(self, *, after: str = "", limit: int = 100) -> list[DeviceRow]:
        """Return devices by id."""
        ...

    def device_changes(self, *, after: int = 0, limit: int = 100) -> list[DeviceChange]:
        """Return the last change of what each device is, oldest first; what it does and reports is none.

        Whoever has read up to a number has missed nothing if it goes on after that number: what changes
        meanwhile moves to the end.

        Args:
            after: Only changes of a higher number.
            limit: At most so many.
        """
        ...

    def password_hashes(self) -> dict[str, str]:
        """Return every device's broker password hash."""
        ...

    def count_throttled(self) -> int:
        """Return how many connected devices were throttled in the window that their boards told of last."""
        ...

    def throttled_devices(self, *, limit: int) -> list[DeviceRow]:
        """Return those of them that are first by id."""
        ...

    def desired(self, device_id: str) -> Desired:
        """Return what the device should run."""
        ...

    def desired_of(self, device_ids: Iterable[str]) -> dict[str, Desired]:
        """Return what each of the devices should run; those that there are not are left out."""
        ...

    def sequences(self, device_ids: Iterable[str]) -> dict[str, int]:
        """Return the number of each device's current assignment; those that there are not are left out."""
        ...

    def desired_versions(self, model: str, device_ids: Iterable[str] | None = None) -> dict[str, int]:
        """Return the version of a model that each device should run, for the devices that should run one.

        Args:
            model: The model.
            device_ids: Only of these devices; None for all.
        """
        ...

    def behind(self) -> dict[str, int]:
        """Return the connected devices that have not accepted their current assignment, and its number."""
        ...


class WishStore(Protocol):
    """What operators wish of devices, and what they did: a change and its action are one transaction."""

    def wishes(self, device_id: str) -> DeviceWishes:
        """Return what is wished of a device; nothing if there is no such device."""
        ...

    def held_devices(self) -> set[str]:
        """Return the devices whose updates are held."""
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


class DiagnosticsStore(Protocol):
    """Diagnostic bundles that devices sent, from `RecordStore.take_in`: of each device the newest few."""

    def diagnostics(self, device_id: str) -> list[DiagnosticsRow]:
        """Return what there is of a device, newest first, without the bytes."""
        ...

    def diagnostics_data(self, device_id: str, request_id: str) -> bytes:
        """Return a bundle's bytes; raises `NotFound`."""
        ...
