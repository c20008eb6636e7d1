"""How the part of one device is kept: a row of 67 bytes in a page, and the value that it stands for.

::

    stage tries state back_state counted_in | stratum cause back_cause | previous_version …
      u1    u1    u1      u1         i1     |    u2     u2      u2     |        i8

    … since_s ordered_s back_since_s back_ordered_s answers_since_s due_s
         f8       f8         f8           f8              f8          f8      NaN stands for None

``state`` is the place of the state in `STATES`, ``back_state`` likewise or `NOT_BACK`. A cause is a number in
the page's list of causes, from 1, and 0 for none: most devices have none, and a canceled stage has the same
one everywhere. Deployment ids are not kept, they follow from the rollout's number, the place and the
tries.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from fleet.protocol.deployment import DeploymentState
from fleet.protocol.errors import Cause

PAGE_SIZE = 32
"""Rows of a page: a report in a page of its own copies 2 kB."""

STATES = tuple(DeploymentState)
CODES = {state: code for code, state in enumerate(STATES)}
QUEUED = CODES[DeploymentState.QUEUED]
SUCCEEDED = CODES[DeploymentState.SUCCEEDED]
REMOVED = CODES[DeploymentState.REMOVED]
CANCELED = CODES[DeploymentState.CANCELED]
NOT_BACK = 255
NO_VERSION = -1

ROW = np.dtype(
    [
        ("stage", "u1"),
        ("tries", "u1"),
        ("state", "u1"),
        ("back_state", "u1"),
        ("counted_in", "i1"),
        ("stratum", "<u2"),
        ("cause", "<u2"),
        ("back_cause", "<u2"),
        ("previous_version", "<i8"),
        ("since_s", "<f8"),
        ("ordered_s", "<f8"),
        ("back_since_s", "<f8"),
        ("back_ordered_s", "<f8"),
        ("answers_since_s", "<f8"),
        ("due_s", "<f8"),
    ]
)
OPAQUE = np.dtype((np.void, ROW.itemsize))
"""A row as bytes: rows are copied and chosen as these, 20 times as fast as field by field."""
ROW_SIZE = ROW.itemsize
Rows = NDArray[np.void]
Places = NDArray[np.intp]
Mask = NDArray[np.bool_]

IS_TERMINAL = np.array([state.is_terminal for state in STATES] + [True] * (256 - len(STATES)))
"""By code; `NOT_BACK` counts as terminal: nothing is expected."""

WAITING = 0
KINDS = 1 + len(STATES)
"""Columns of a tally: devices whose way forward waits for its order, and the others by state."""


class Row(NamedTuple):
    """A row as Python values, in the order of `ROW`."""

    stage: int
    tries: int
    state: int
    back_state: int
    counted_in: int
    stratum: int
    cause: int
    back_cause: int
    previous_version: int
    since_s: float
    ordered_s: float
    back_since_s: float
    back_ordered_s: float
    answers_since_s: float
    due_s: float

    @property
    def kind(self) -> int:
        """The column of the tally that counts it."""
        return WAITING if self.state == QUEUED and math.isnan(self.ordered_s) else 1 + self.state


class Attempt(msgspec.Struct, frozen=True, omit_defaults=True):
    """One order to one device, and how far it got.

    Attributes:
        deployment_id: Echoed by the device in every report.
        state: Where it stands.
        since_s: When it came there, hub time.
        ordered_s: When the order was given, hub time; None while it was not.
        cause: Why it failed.
    """

    deployment_id: str
    state: DeploymentState
    since_s: float
    ordered_s: float | None = None
    cause: Cause | None = None

    @property
    def is_open(self) -> bool:
        """Whether the device was sent the order and has not ended it."""
        return self.ordered_s is not None and not self.state.is_terminal


class Deployment(msgspec.Struct, frozen=True, omit_defaults=True):
    """One device's part in a rollout.

    Attributes:
        index: Its place in the rollout's order.
        device_id: The device.
        stage: The stage that reaches it, from 0.
        previous_version: What the device ran before, and goes back to; None if it had no version.
        attempt: The way forward, to the rollout's version.
        restore: The way back; None unless it is to go.
        answers_since_s: When the new version began to answer, by the device's own clock.
        counted_in: Last stage in which the device's telemetry was counted; -1 for none.
        stratum: Its place in the rollout's strata.
        tries: How many ways forward ended before this one and are tried again.
        due_s: When time runs out for the order that is open, or the next try may be ordered; None for never.
    """

    index: int
    device_id: str
    stage: int
    previous_version: int | None
    attempt: Attempt
    restore: Attempt | None = None
    answers_since_s: float | None = None
    counted_in: int = -1
    stratum: int = 0
    tries: int = 0
    due_s: float | None = None

    @property
    def has_ended(self) -> bool:
        """Whether nothing is expected of the device any more."""
        return self.attempt.state.is_terminal and (self.restore is None or self.restore.state.is_terminal)

    @property
    def is_restored(self) -> bool:
        """Whether the way back was ordered and the device went it."""
        if self.restore is None:
            return False
        if self.previous_version is None:
            return self.restore.state is DeploymentState.REMOVED
        return self.restore.state is DeploymentState.SUCCEEDED


class Page(NamedTuple):
    """Some deployments.

    Attributes:
        data: Their rows, up to `PAGE_SIZE`, one after the other: of single ones in many pages bytes are
            taken ten times as fast as with an array for every page. Immutable by contract, as
            `fleet.rollout.state.editing` alone writes to those that it made.
        causes: What the rows' numbers of causes stand for, from 1.
    """

    data: bytes | bytearray
    causes: tuple[Cause, ...]

    @property
    def rows(self) -> Rows:
        """The rows; not writable."""
        return np.frombuffer(memoryview(self.data).toreadonly(), ROW)


def forward_id(number: int, index: int, tries: int = 0) -> str:
    """Return the deployment id of the way forward of a rollout's device."""
    return f"r{number}-{index}f{tries or ''}"


def back_id(number: int, index: int) -> str:
    """Return the deployment id of the way back."""
    return f"r{number}-{index}b"


def kinds(rows: Rows) -> NDArray[np.intp]:
    """Return the column of the tally that counts each row."""
    waiting = (rows["state"] == QUEUED) & np.isnan(rows["ordered_s"])
    return np.where(waiting, WAITING, 1 + rows["state"].astype(np.intp))


def chosen(rows: Rows, which: Places | Mask) -> Rows:
    """Return a copy of some rows."""
    return rows.view(OPAQUE)[which].view(ROW)


def unpack(number: int, index: int, device_id: str, row: Row, causes: Sequence[Cause]) -> Deployment:
    """Return the value that a row stands for.

    Args:
        number: Of the rollout.
        index: The row's place in the rollout.
        device_id: The device at that place.
        row: The row.
        causes: Of its page.
    """
    restore = None
    if row.back_state != NOT_BACK:
        restore = Attempt(
            back_id(number, index),
            STATES[row.back_state],
            row.back_since_s,
            _number(row.back_ordered_s),
            causes[row.back_cause - 1] if row.back_cause else None,
        )
    return Deployment(
        index,
        device_id,
        row.stage,
        None if row.previous_version == NO_VERSION else row.previous_version,
        Attempt(
            forward_id(number, index, row.tries),
            STATES[row.state],
            row.since_s,
            _number(row.ordered_s),
            causes[row.cause - 1] if row.cause else None,
        ),
        restore,
        _number(row.answers_since_s),
        row.counted_in,
        row.stratum,
        row.tries,
        _number(row.due_s),
    )


def pack(deployment: Deployment, causes: list[Cause]) -> Row:
    """Return the row that stands for a value; causes that are new are added to its page's."""
    attempt, restore = deployment.attempt, deployment.restore
    version = deployment.previous_version
    return Row(
        deployment.stage,
        deployment.tries,
        CODES[attempt.state],
        NOT_BACK if restore is None else CODES[restore.state],
        deployment.counted_in,
        deployment.stratum,
        cause_number(attempt.cause, causes),
        0 if restore is None else cause_number(restore.cause, causes),
        NO_VERSION if version is None else version,
        attempt.since_s,
        _float(attempt.ordered_s),
        math.nan if restore is None else restore.since_s,
        math.nan if restore is None else _float(restore.ordered_s),
        _float(deployment.answers_since_s),
        _float(deployment.due_s),
    )


def cause_number(cause: Cause | None, causes: list[Cause]) -> int:
    """Return the number of a cause in its page's, where it is put if it is new; 0 for none."""
    if cause is None:
        return 0
    if cause not in causes:
        causes.append(cause)
    return causes.index(cause) + 1


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _float(value: float | None) -> float:
    return math.nan if value is None else value
