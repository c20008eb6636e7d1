"""How the evidence of a stage is stored: its sums, and each span by itself, so that little is written anew.

::

    WHOLE   the evidence without spans: both sides, and those of each group          changes with every batch
    0 …     one span: both sides, and those of each group, as far as they are of it  changes while it lasts

A part is MessagePack, and every value of `evidence` an array of what it consists of, in the order in which
the attributes are declared there: of tallies in this number, names would take most of the room. No sum is
worked out anew when evidence is read, so what is read is what was stored, to the last bit.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from fleet.protocol.errors import StorageCorrupt
from fleet.rollout.gates.evidence import Evidence

WHOLE = -1
"""The number of the part that is no span."""

_DECODER = msgspec.msgpack.Decoder(Evidence)  # made once: two threads that were the first to use a type crash


def changed_parts(evidence: Evidence, before: Evidence | None) -> dict[int, bytes]:
    """Return the parts that have to be written, by number.

    Args:
        evidence: To be stored.
        before: What is stored; None for nothing. Spans that both share as values are not written again.
    """
    if evidence is before:
        return {}
    parts = {WHOLE: msgspec.msgpack.encode(evidence.sums)}
    for number, span in evidence.spans.items():
        if before is None or before.spans.get(number) is not span:
            parts[number] = msgspec.msgpack.encode(evidence.of_span(number))
    return parts


def from_parts(parts: Mapping[int, bytes]) -> Evidence:
    """Return the evidence whose parts these are.

    Raises:
        StorageCorrupt: They are not parts of evidence, or the whole is not among them.
    """
    try:
        read = {number: _DECODER.decode(data) for number, data in parts.items()}
    except (msgspec.DecodeError, RecursionError) as error:
        raise StorageCorrupt(f"Stored evidence cannot be read: {error}.") from error
    whole = read.pop(WHOLE, None)
    if whole is None:
        raise StorageCorrupt("Stored evidence lacks its sums.")
    return whole.with_spans(read)
