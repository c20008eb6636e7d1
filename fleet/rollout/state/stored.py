"""How a rollout is stored: as JSON what is small, and whole again with its devices and its evidence.

The evidence of each stage is kept apart (`fleet.rollout.gates.stored`): it is most of a summary, and most
steps change little of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from fleet.protocol.errors import StorageCorrupt
from fleet.rollout.gates.evidence import Evidence
from fleet.rollout.state.deployments import Deployments
from fleet.rollout.state.rollout import Rollout, Summary

_DECODER = msgspec.json.Decoder(Summary)  # made once: two threads that were the first to use a type crash
_KEPT_APART = Evidence.empty(0)


def encode_summary(rollout: Summary) -> bytes:
    """Return the rollout without its devices and the evidence of its stages as JSON, else without loss."""
    summary = rollout.summary if isinstance(rollout, Rollout) else rollout
    stages = tuple(msgspec.structs.replace(stage, evidence=_KEPT_APART) for stage in summary.stages)
    return msgspec.json.encode(msgspec.structs.replace(summary, stages=stages))


def decode_summary(data: bytes, evidence: Sequence[Evidence]) -> Summary:
    """Return what `encode_summary` encoded, with the evidence of its stages.

    Raises:
        StorageCorrupt: The bytes are not a stored rollout, or its stages are not as many.
    """
    try:
        summary = _DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise StorageCorrupt(f"A stored rollout cannot be read: {error}.") from error
    if len(summary.stages) != len(evidence):
        raise StorageCorrupt(
            f"{len(summary.stages)} stages of rollout {summary.number} have begun;"
            f" evidence of {len(evidence)} is stored."
        )
    stages = tuple(
        msgspec.structs.replace(stage, evidence=said)
        for stage, said in zip(summary.stages, evidence, strict=True)
    )
    return msgspec.structs.replace(summary, stages=stages)


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
