"""What operators wish of one device: its log level, held updates, noise on counts, a diagnostic bundle.

A wish is a change of the device's desired state: it travels in the next assignment, which is sent at once if
the device is connected and when it announces itself if not. What was done, by whom, is kept with it.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Protocol

import msgspec

from fleet.protocol.errors import Conflict
from fleet.protocol.wishes import THOUSAND, LogLevel
from hub.store.protocols import DeviceStore, DiagnosticsStore, WishStore
from hub.store.rows import Action, DeviceWishes, Hold


class WishingStore(DeviceStore, WishStore, DiagnosticsStore, Protocol):
    """What wishes need of the store."""


class Wishing:
    """Changes what is wished of devices. Its methods block on the store: call them in a thread.

    Args:
        store: Keeps wishes.
        on_orders: Called after a wish was stored: assignments wait to be sent.
    """

    def __init__(self, store: WishingStore, *, on_orders: Callable[[], None]) -> None:
        self._store = store
        self._on_orders = on_orders

    def set_log_level(self, device_id: str, level: LogLevel | None, *, by: str) -> DeviceWishes:
        """Let the device log from a level on; None for its own setting.

        Raises:
            NotFound: There is no such device.
            Conflict: It carries out no wishes.
        """
        text = f"Log level {level.value}." if level else "Log level as the device is set."
        return self._wish(device_id, lambda w: msgspec.structs.replace(w, log_level=level), text, by)

    def hold(self, device_id: str, *, by: str, reason: str) -> DeviceWishes:
        """Let the device swap in no version until `release`; raises like `set_log_level`."""
        hold = Hold(time.time(), by, reason)
        text = f"Updates held: {reason}" if reason else "Updates held."
        return self._wish(device_id, lambda w: msgspec.structs.replace(w, held=hold), text, by)

    def release(self, device_id: str, *, by: str) -> DeviceWishes:
        """Let the device swap versions in again; raises like `set_log_level`."""
        return self._wish(device_id, lambda w: msgspec.structs.replace(w, held=None), "Updates released.", by)

    def set_count_noise(self, device_id: str, epsilon: float | None, *, by: str) -> DeviceWishes:
        """Let the device put noise on its counts, see `fleet.privacy`; None for as it is set by its owner.

        Args:
            device_id: The device.
            epsilon: How private its counts have to be at least.
            by: Who asks.

        Raises:
            NotFound: There is no such device.
            Conflict: Its agent cannot put noise on counts.
        """
        if epsilon is not None and not self._store.device(device_id).capabilities.noises_counts:
            raise Conflict(
                f"The agent of {device_id} is of a release that puts no noise on counts: it would go on"
                " sending exact ones.",
                remedy="Update it first.",
            )
        thousandths = None if epsilon is None else max(1, int(epsilon * THOUSAND))
        text = "Noise on counts as the device is set."
        if epsilon is not None:
            text = f"Noise on counts: ε = {epsilon:g}."
        return self._wish(device_id, lambda w: msgspec.structs.replace(w, count_noise=thousandths), text, by)

    def diagnose(self, device_id: str, *, by: str) -> str:
        """Ask the device for a diagnostic bundle and return the request's id; raises like `set_log_level`."""
        request_id = f"d-{secrets.token_hex(6)}"
        text = f"Diagnostic bundle {request_id} requested."
        self._wish(device_id, lambda w: msgspec.structs.replace(w, diagnostics=request_id), text, by)
        return request_id

    def diagnostics(self, device_id: str, request_id: str, *, by: str) -> bytes:
        """Return a diagnostic bundle's bytes, and remember who took it; raises `NotFound`."""
        data = self._store.diagnostics_data(device_id, request_id)
        text = f"Diagnostic bundle {request_id} downloaded."
        self._store.add_action(device_id, Action(time.time(), by, text))
        return data

    def _wish(
        self, device_id: str, change: Callable[[DeviceWishes], DeviceWishes], text: str, by: str
    ) -> DeviceWishes:
        takes_back = change(DeviceWishes()) == DeviceWishes()  # which is always allowed
        if not takes_back and not self._store.device(device_id).capabilities.obeys_wishes:
            raise Conflict(
                f"The agent of {device_id} is of a release that would refuse an assignment with wishes.",
                remedy="Update it first.",
            )
        wishes = self._store.wish(device_id, change, Action(time.time(), by, text))
        self._on_orders()
        return wishes
