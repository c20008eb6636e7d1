"""Removals: orders that a device may have nothing to report about.

An order to remove a model is an assignment without it, so it has no deployment id to echo, and a device that
never had the model has nothing to do. What the device reports to hold says all the same when it is done.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fleet.protocol.messages import StateReport
from fleet.rollout.state.columns import NO_VERSION, Attempt, Deployment, Mask, Rows
from fleet.rollout.state.masks import is_under_way_back
from fleet.rollout.state.rollout import Rollout


def open_removals(rollout: Rollout) -> Iterator[tuple[Deployment, Attempt]]:
    """Yield the deployments whose way back is a removal that was not confirmed, with that attempt."""
    if rollout.open_removals == 0:
        return
    for deployment in rollout.deployments.where(_is_open_removal):
        assert deployment.restore is not None
        yield deployment, deployment.restore


def _is_open_removal(rows: Rows) -> Mask:
    return np.asarray(is_under_way_back(rows) & (rows["previous_version"] == NO_VERSION))


def is_removed(model: str, *, sequence: int, report: StateReport | None) -> bool:
    """Tell whether a device's own state shows that it has the model no more.

    Args:
        model: Name of the model.
        sequence: Of the assignment that leaves the model out, or of a later one.
        report: The device's last state; None if there was none.
    """
    if report is None or report.sequence < sequence:
        return False
    return all(held.model != model or held.version is None for held in report.models)
