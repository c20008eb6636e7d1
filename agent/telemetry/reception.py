"""What processes that embed models counted, taken over by the agent for the hub.

Such a process draws an id for each window and hands both over on the fast path::

    data of the request     id, 16 random bytes, then the window in MessagePack as records have it

The agent takes what it could have counted itself: of a version that is installed, in the layout of its
reference profile, and free of contradictions. The id makes it safe to hand a window over again when the
answer was lost: it is written in one transaction with the window.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from agent.life.models import Models
from agent.life.slots import Slots
from agent.life.terms import Release
from agent.telemetry.outbox import Outbox
from agent.threads import call_in_loop
from fleet.privacy.windows import whole
from fleet.protocol.errors import InvalidMessage, NotFound
from fleet.protocol.manifest import decode_manifest
from fleet.protocol.messages import decode, encode
from fleet.protocol.records import TelemetryWindow, packed
from fleet.protocol.windows import check_window, contradiction

ID_BYTES = 16
LOOP_TIMEOUT_S = 10.0


def pack_window(window_id: bytes, window: TelemetryWindow) -> bytes:
    """Return the data of the request that hands a window over."""
    return window_id + encode(packed(window))


class Reception:
    """Takes windows over.

    Args:
        models: Knows what is installed.
        slots: Has the manifests.
        outbox: Keeps windows for the hub.
        on_window: Told of each that was taken, in the event loop.
    """

    def __init__(self, models: Models, slots: Slots, outbox: Outbox, on_window: Callable[[], None]) -> None:
        self._models = models
        self._slots = slots
        self._outbox = outbox
        self._on_window = on_window
        self._loop = asyncio.get_running_loop()

    def take(self, data: bytes) -> None:
        """Keep a window, once. For other threads than the event loop's.

        Args:
            data: As `pack_window` returned it.

        Raises:
            InvalidMessage: It is none, or cannot be true.
            NotFound: The device does not have that version.
            StorageError: It cannot be kept now.
            Unavailable: The agent is too busy, or ends.
        """
        window_id, window = data[:ID_BYTES], decode(data[ID_BYTES:], TelemetryWindow)
        release = Release(window.version, window.manifest_sha256, window.variant)
        installed = call_in_loop(self._loop, lambda: self._models.installed(window.model), LOOP_TIMEOUT_S)
        manifest = self._slots.held_manifest(window.model, release) if release in installed else None
        if manifest is None:
            raise NotFound(f"Version {window.version} of model {window.model} is not on this device.")
        reference = decode_manifest(manifest).reference
        check_window(window, release.manifest_sha256, reference)
        why = contradiction(window)
        if why is not None:
            raise InvalidMessage(f"The window cannot be true: {why}.")
        if self._outbox.is_noised:
            window.profile = whole(window.profile, reference)

        def keep() -> None:
            self._outbox.put_once(window_id, window)
            self._on_window()

        call_in_loop(self._loop, keep, LOOP_TIMEOUT_S)
