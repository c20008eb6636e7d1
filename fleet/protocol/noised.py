"""The window of a device that noises its counts, as it travels; what it says is in `fleet.privacy.windows`.

It is a record of a kind of its own, so that nothing that reads telemetry windows takes noise for counts: a
release that does not know it, of hub or device, refuses it.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from fleet.drift.encoding import MAX_SENT_COUNT
from fleet.privacy.noise import LEAST_EPSILON, MOST_EPSILON
from fleet.protocol.fields import Count, UnixTime
from fleet.protocol.names import Name, Sha256

MAX_NUMBER = MAX_SENT_COUNT // 2
"""In zigzag, twice that is sent."""
MAX_VARIANCE = 1e18

Noised = Annotated[int, msgspec.Meta(ge=-MAX_NUMBER, le=MAX_NUMBER)]
Epsilon = Annotated[float, msgspec.Meta(ge=LEAST_EPSILON, le=MOST_EPSILON)]


class NoisedWindow(msgspec.Struct, frozen=True, tag="noised"):
    """What one version did over a span of time, as counts with noise.

    Attributes:
        started_at_s: Device time, Unix seconds.
        ended_at_s: Likewise.
        model: Name of the model.
        version: The version that answered.
        manifest_sha256: Its bundle.
        variant: Its variant.
        epsilon: How private it is, for each row that was answered, see `fleet.privacy.noise`.
        variance: Of the noise on each of its numbers.
        predictions: Answers given, noised.
        errors: Requests that the runtime failed on, noised.
        labelled: Answers for which a label came back, noised.
        correct: Those of them that were right, noised.
        counts: All features, noised, in zigzag, see `fleet.drift.encoding`; nothing of it is checked.
    """

    started_at_s: UnixTime
    ended_at_s: UnixTime
    model: Name
    version: Count
    manifest_sha256: Sha256
    variant: Name
    epsilon: Epsilon
    variance: Annotated[float, msgspec.Meta(ge=0, le=MAX_VARIANCE)]
    predictions: Noised
    errors: Noised
    labelled: Noised
    correct: Noised
    counts: bytes
