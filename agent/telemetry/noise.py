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

The operator's word is kept in a file of its own: it holds from the first moment on, also where the last
assignment cannot be verified after a restart. A file that cannot be read stands for the most noise there is.

The random bits are the operating system's (`os.urandom`).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

from agent.durable import remove_file, write_file
from agent.hosting.host import Host
from agent.telemetry.outbox import Outbox
from fleet.privacy.noise import Draw
from fleet.privacy.windows import noised
from fleet.protocol.errors import StorageError
from fleet.protocol.records import RecordBody, ShadowReport, TelemetryWindow
from fleet.protocol.wishes import MOST_NOISE_EPSILON, THOUSAND

log = logging.getLogger(__name__)

WORD_FILE = "count-noise"
_MOST_NOISE = 1


class CountNoise:
    """Decides how private counts are, and makes them so.

    Args:
        own_epsilon: Of the owner's setting; 0 for none.
        host: What counts.
        outbox: What keeps counts for the hub.
        draw: Where chance comes from.
        word: The file in which the operator's word is kept; None not to keep it.
    """

    def __init__(
        self,
        own_epsilon: float,
        host: Host,
        outbox: Outbox,
        draw: Draw = os.urandom,
        *,
        word: Path | None = None,
    ) -> None:
        self._own = own_epsilon
        self._word = word
        self._host = host
        self._outbox = outbox
        self._draw = draw
        self.epsilon = 0.0
        """In force; 0 for none."""
        self._enforce(self._smallest(None if word is None else _read(word)))

    def hear_hub(self, thousandths: int | None, keep_windows: Callable[[], None]) -> None:
        """Take the operator's word, in place of the one before.

        Args:
            thousandths: Epsilon; None for no word.
            keep_windows: Ends the windows under way, and puts them into the outbox.
        """
        self._keep(thousandths)
        epsilon = self._smallest(thousandths)
        if epsilon == self.epsilon:
            return
        if self.epsilon:
            keep_windows()  # what was counted under the old word is told by it
        self._enforce(epsilon)

    def _smallest(self, thousandths: int | None) -> float:
        asked = [epsilon for epsilon in (self._own, (thousandths or 0) / THOUSAND) if epsilon]
        return min(asked, default=0.0)

    def _keep(self, thousandths: int | None) -> None:
        """Keep the operator's word for the next start."""
        if self._word is None:
            return
        try:
            if thousandths == _read(self._word):
                return
            if thousandths is None:
                remove_file(self._word)
            else:
                write_file(self._word, str(thousandths).encode())
        except StorageError as error:
            log.error("The word on noise is not kept over a restart: %s", error)

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


def _read(word: Path) -> int | None:
    """Return the word that was kept; None if there was none."""
    try:
        said = word.read_bytes()
    except FileNotFoundError:
        return None
    except OSError:
        return _MOST_NOISE
    if not said.isdigit() or len(said) > len(str(MOST_NOISE_EPSILON)):
        return _MOST_NOISE
    return min(max(int(said), _MOST_NOISE), MOST_NOISE_EPSILON)
