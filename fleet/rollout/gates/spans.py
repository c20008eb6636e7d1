"""Spans of a stage, in each of which canaries are compared with controls of the same time.

While orders go out there are ever more canaries and ever fewer controls. What the canaries say is then of a
later hour than what the controls say, on average, and an hour has its own share of errors: an outage late in
a release would meet nearly canaries alone. In a span the number of canaries for each control changes by a
factor of two at most, but for the first span, which has few of the stage's canaries. The comparison is
standardized over spans as it is over classes (`fleet.rollout.gates.comparison`).

====  ==========================================================================
span  canaries for each control, of how many there are when all orders are out
====  ==========================================================================
3     up to an eighth
2     an eighth to a quarter
1     a quarter to a half
0     a half and more; also all of the bake
====  ==========================================================================

A span follows from how far the release is, never from what was observed, so evidence stays valid.
"""

from __future__ import annotations

import math

MOST_SPANS = 4


def span_of(canaries: int, controls: int, *, canaries_at_end: int, controls_at_end: int) -> int:
    """Return in which span of a stage evidence is gathered now.

    Args:
        canaries: Devices that run the version.
        controls: Devices that wait for it.
        canaries_at_end: How many will run it when the stage's orders are out.
        controls_at_end: How many will wait for a later stage.
    """
    now, end = max(1, canaries) / max(1, controls), max(1, canaries_at_end) / max(1, controls_at_end)
    return min(MOST_SPANS - 1, int(math.log2(max(1.0, end / now))))
