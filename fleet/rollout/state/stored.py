"""How a rollout is stored: all but the devices as JSON, and whole again with them."""

from __future__ import annotations

import msgspec

from fleet.protocol.errors import StorageCorrupt
from fleet.rollout.state.deployments import Deployments
from fleet.rollout.state.rollout import Rollout, Summary

_DECODER = msgspec.json.Decoder(Summary)  # made once: two threads that were the first to use a type crash


def encode_summary(rollout: Summary) -> bytes:
    """Return the rollout without its devices as JSON, without loss."""
    return msgspec.json.encode(rollout.summary if isinstance(rollout, Rollout) else rollout)


def decode_summary(data: bytes) -> Summary:
    """Return what `encode_summary` encoded.

    Raises:
        StorageCorrupt: The bytes are not a stored rollout.
    """
    try:
        return _DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise StorageCorrupt(f"A stored rollout cannot be read: {error}.") from error


def whole(summary: Summary, deployments: Deployments) -> Rollout:
    """Return the rollout of which this is the summary.

    Raises:
        StorageCorrupt: The deployments are not as many as the summary counts.
    """
    if len(deployments) != summary.device_count:
        raise StorageCorrupt(
            f"Rollout {summary.number} has {summary.device_count:,} devices; {len(deployments):,} are stored."
        )
    fields = {name: getattr(summary, name) for name in Summary.__struct_fields__}
    return Rollout(**fields, deployments=deployments)
