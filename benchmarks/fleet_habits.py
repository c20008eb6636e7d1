"""What simulated devices share: how they behave, what befalls them, and the director's key."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from benchmarks.fleet_link import Traffic
from fleet.protocol import cose
from fleet.protocol.assignment import EXTERNAL_AAD, Assignment, decode_assignment
from fleet.protocol.records import TelemetryWindow

if TYPE_CHECKING:
    from benchmarks.fleet_device import Device


class Fate(Enum):
    """What befalls a device during its update."""

    NONE = "nothing"
    FAILS = "its trial fails"
    AWAY = "is cut off in its trial and comes back"
    RECONNECTS = "loses its connection while it downloads"


class Habits(NamedTuple):
    """How all devices behave.

    Attributes:
        heartbeat_s: Between two state reports.
        window_s: Between two telemetry windows.
        trial_s: How long a trial lasts.
        away_s: How long a device that is cut off stays away.
        verify: Whether signatures are checked.
    """

    heartbeat_s: float = 30.0
    window_s: float = 15.0
    trial_s: float = 2.0
    away_s: float = 3.0
    verify: bool = True


class Fleet:
    """What the devices of one process share.

    Args:
        key: The director's raw public key.
        windows: Bodies of windows by version.
        habits: How devices behave.
        reconnect: Called by a device that wants a connection after so many seconds.
    """

    def __init__(
        self,
        key: bytes,
        windows: Mapping[int, Sequence[TelemetryWindow]],
        habits: Habits,
        reconnect: Callable[[Device, float], None],
    ) -> None:
        self.windows = windows
        self.habits = habits
        self.reconnect = reconnect
        self.traffic = Traffic()
        self.verified = 0
        self.verifying_s = 0.0
        self.ordered_s: list[float] = []
        self._key_id = cose.key_id(key)
        self._key = Ed25519PublicKey.from_public_bytes(key)

    def opened(self, message: bytes) -> Assignment:
        """Return an assignment, its signature checked; raises what refuses it."""
        envelope = cose.open1(message, external_aad=EXTERNAL_AAD)
        assert envelope.key_id == self._key_id
        if self.habits.verify:
            begun_s = time.perf_counter()
            self._key.verify(envelope.signature, envelope.signed)
            self.verifying_s += time.perf_counter() - begun_s
            self.verified += 1
        return decode_assignment(envelope.payload)
