"""Noise on counts where the owner of the device or its operator wants it, whoever of them wants more privacy.

Both have a word: the owner by the setting ``count_noise_epsilon``, the operator by a wish of the signed
assignment. Nothing that counts inferences reaches the outbox but through the shield of it, so what the hub
gets, now or when a record is sent again, is what was noised once. Drawing again would give the count away.

=====================  ==================================================================================
body of a record       with noise in force
=====================  ==================================================================================
telemetry window       noised, see `fleet.privacy.windows`
report of a shadow     left out: its counts are of the same inferences
all others             as they are; incidents and reports of deployments tell that a version failed
=====================  ==================================================================================

When noise comes into force, exact counts that the hub does not have are given up; when it is taken back, what
was counted under it is noised still.

The random bits are the operating system's (`os.urandom`).
"""

from __future__ import annotations

import os
from collections.abc import Callable

from agent.hosting import Host
from agent.telemetry.outbox import Outbox
from fleet.privacy.noise import Draw
from fleet.privacy.windows import noised
from fleet.protocol.records import RecordBody, ShadowReport, TelemetryWindow
from fleet.protocol.wishes import THOUSAND


class CountNoise:
    """Decides how private counts are, and makes them so.

    Args:
        own_epsilon: Of the owner's setting; 0 for none.
        host: What counts.
        outbox: What keeps counts for the hub.
        draw: Where chance comes from.
    """

    def __init__(self, own_epsilon: float, host: Host, outbox: Outbox, draw: Draw = os.urandom) -> None:
        self._own = own_epsilon
        self._host = host
        self._outbox = outbox
        self._draw = draw
        self.epsilon = 0.0
        """In force; 0 for none."""
        self._enforce(own_epsilon)

    def hear_hub(self, thousandths: int | None, keep_windows: Callable[[], None]) -> None:
        """Take the operator's word, in place of the one before.

        Args:
            thousandths: Epsilon; None for no word.
            keep_windows: Ends the windows under way, and puts them into the outbox.
        """
        asked = [epsilon for epsilon in (self._own, (thousandths or 0) / THOUSAND) if epsilon]
        epsilon = min(asked, default=0.0)
        if epsilon == self.epsilon:
            return
        if self.epsilon:
            keep_windows()  # what was counted under the old word is told by it
        self._enforce(epsilon)

    def _shielded(self, body: RecordBody) -> RecordBody | None:
        """Return what may be told in place of a body; None if nothing may."""
        if isinstance(body, TelemetryWindow):
            return noised(body, self.epsilon, self._draw)
        return None if isinstance(body, ShadowReport) else body

    def _enforce(self, epsilon: float) -> None:
        if epsilon and not self.epsilon:
            self._host.forget_counts()
        self.epsilon = epsilon
        self._host.is_noised = bool(epsilon)
        self._outbox.noise(self._shielded if epsilon else None)
