"""The capture policy: which inputs a device may put aside for people to label, and how much of them.

Part of an order of the assignment, signed with it; in the assignment a CBOR map::

    { 1: expires at (uint, s), 2: bytes a day (uint), 3: most bytes of one sample (uint),
      ? 4: captured below this confidence (uint, millionths), ? 5: drifted inputs too (true),
      ? 6: share captured at random (uint, millionths), ? 7: redaction that is required (tstr) }

At least one of 4, 5 and 6 is there. Shares are whole numbers, so that there is one form for each content. A
device without a policy captures nothing, and its owner's settings can only take away from what one allows.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from fleet.protocol.errors import InvalidAssignment
from fleet.protocol.fields import Count
from fleet.protocol.names import Name, checked_name

MILLION = 1_000_000
MAX_SAMPLE_SIZE_BYTES = 192 * 1024
"""Largest sample, all inputs together; with what stands beside it, it is below what a message may have."""
MAX_BYTES_PER_DAY = 2**30
MAX_LIFETIME_S = 400 * 86400
"""A policy ends: what is captured for ever is captured by nobody's will."""

Millionths = Annotated[int, msgspec.Meta(ge=0, le=MILLION)]

MAX_CAUSES = 32
"""For which samples are dropped."""

_NEEDED = frozenset({1, 2, 3})
_KNOWN = frozenset({1, 2, 3, 4, 5, 6, 7})


class CapturePolicy(msgspec.Struct, frozen=True):
    """What a device may capture of one model's inputs.

    Attributes:
        expires_at_s: Unix time from which nothing is captured any more.
        bytes_per_day: Most bytes of samples in a day of the device.
        sample_bytes: Most bytes of one sample; larger ones are not captured.
        uncertain_below: Classifiers: answers of a confidence below so many millionths; 0 for none.
        drifted: Inputs of which a feature is where the reference sample had nothing.
        random_share: So many millionths of all inputs; 0 for none.
        redaction: Name of the redaction without which nothing may be captured; empty for none.
    """

    expires_at_s: Annotated[int, msgspec.Meta(ge=1, lt=2**53)]
    bytes_per_day: Annotated[int, msgspec.Meta(ge=1, le=MAX_BYTES_PER_DAY)]
    sample_bytes: Annotated[int, msgspec.Meta(ge=1, le=MAX_SAMPLE_SIZE_BYTES)]
    uncertain_below: Millionths = 0
    drifted: bool = False
    random_share: Millionths = 0
    redaction: Name | None = None

    @property
    def captures_anything(self) -> bool:
        """Whether any input comes into question."""
        return self.uncertain_below > 0 or self.drifted or self.random_share > 0


class SampleCounts(msgspec.Struct, frozen=True):
    """How capturing goes on a device.

    Attributes:
        waiting: Samples that the hub does not have yet.
        dropped: Samples that would have been captured and were not, by cause, since the agent's start.
    """

    waiting: Count
    dropped: Annotated[dict[Name, Count], msgspec.Meta(max_length=MAX_CAUSES)] = {}


def capture_fields(policy: CapturePolicy) -> dict[int, Any]:
    """Return the map to be encoded."""
    fields: dict[int, Any] = {1: policy.expires_at_s, 2: policy.bytes_per_day, 3: policy.sample_bytes}
    if policy.uncertain_below:
        fields[4] = policy.uncertain_below
    if policy.drifted:
        fields[5] = True
    if policy.random_share:
        fields[6] = policy.random_share
    if policy.redaction is not None:
        fields[7] = policy.redaction
    return fields


def read_capture(fields: Any) -> CapturePolicy:
    """Return the policy in a decoded map.

    Args:
        fields: As it was decoded.

    Raises:
        InvalidAssignment: It is not of the form at the head of this file.
        InvalidName: The redaction's name breaks the naming rule.
    """
    if not isinstance(fields, dict) or not _NEEDED <= fields.keys() <= _KNOWN:
        raise InvalidAssignment("The assignment's capture policy is not a map of known parts.")
    if 5 in fields and fields[5] is not True:
        raise InvalidAssignment("The capture policy's part for drifted inputs is not true.")
    policy = CapturePolicy(
        expires_at_s=_number(fields[1], 2**53 - 1),
        bytes_per_day=_number(fields[2], MAX_BYTES_PER_DAY),
        sample_bytes=_number(fields[3], MAX_SAMPLE_SIZE_BYTES),
        uncertain_below=_number(fields[4], MILLION) if 4 in fields else 0,
        drifted=5 in fields,
        random_share=_number(fields[6], MILLION) if 6 in fields else 0,
        redaction=_redaction(fields[7]) if 7 in fields else None,
    )
    if not policy.captures_anything:
        raise InvalidAssignment("The assignment's capture policy captures nothing.")
    return policy


def _number(value: Any, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise InvalidAssignment(f"The capture policy has a number that is not a whole one from 1 to {most}.")
    return value


def _redaction(value: Any) -> str:
    if not isinstance(value, str):
        raise InvalidAssignment("The capture policy's redaction is not text.")
    return checked_name(value, "redaction")
