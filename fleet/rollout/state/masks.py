"""Which devices are where on their way: questions that are asked of many rows at once.

::

    forward:  waits ──── order ──→ is_under_way ─────→ SUCCEEDED, or has_failed
    back:     waits_back ─ order ─→ is_under_way_back ─→ back, or is_not_back
              └──────── goes_back ────────────────┘

Rows are those of `fleet.rollout.state.columns`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fleet.rollout.state.columns import (
    IS_TERMINAL,
    NO_VERSION,
    NOT_BACK,
    QUEUED,
    REMOVED,
    STATES,
    SUCCEEDED,
    Mask,
    Rows,
)

Test = Callable[[Rows], Mask]
"""Tells for each of many rows whether something is so."""
_IS_FAILURE = np.array([state.is_failure for state in STATES])


def waits(rows: Rows) -> Mask:
    """Tell which devices wait for their order forward, the first or that of another try."""
    return np.asarray((rows["state"] == QUEUED) & np.isnan(rows["ordered_s"]))


def is_under_way(rows: Rows) -> Mask:
    """Tell which devices have their order forward and have not ended."""
    return np.asarray(~IS_TERMINAL[rows["state"]] & ~np.isnan(rows["ordered_s"]))


def was_sent(rows: Rows) -> Mask:
    """Tell which devices were sent the version, now or in a try before."""
    return np.asarray(~np.isnan(rows["ordered_s"]) | (rows["tries"] > 0))


def can_be_sent_back(rows: Rows) -> Mask:
    """Tell which devices were sent the version and were not sent back since."""
    return np.asarray(was_sent(rows) & (rows["back_state"] == NOT_BACK))


def has_failed(rows: Rows) -> Mask:
    """Tell which devices ended the way forward without running what was ordered."""
    return np.asarray(_IS_FAILURE[rows["state"]])


def goes_back(rows: Rows) -> Mask:
    """Tell which devices have a way back that has not ended, ordered or not."""
    return np.asarray((rows["back_state"] != NOT_BACK) & ~IS_TERMINAL[rows["back_state"]])


def waits_back(rows: Rows) -> Mask:
    """Tell which devices wait for their order back."""
    return np.asarray((rows["back_state"] == QUEUED) & np.isnan(rows["back_ordered_s"]))


def is_under_way_back(rows: Rows) -> Mask:
    """Tell which devices have their order back and have not ended."""
    return np.asarray(goes_back(rows) & ~np.isnan(rows["back_ordered_s"]))


def is_not_back(rows: Rows) -> Mask:
    """Tell which devices are to go back and do not run again what they ran before."""
    arrived = np.where(rows["previous_version"] == NO_VERSION, REMOVED, SUCCEEDED)
    return np.asarray((rows["back_state"] != NOT_BACK) & (rows["back_state"] != arrived))
