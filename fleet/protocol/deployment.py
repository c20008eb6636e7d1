"""The states of a deployment: one device's part in a change of version.

::

    QUEUED → DOWNLOADING → VERIFYING → STAGED → (SHADOW →) TRIAL → SUCCEEDED
        └────────┴─────────────┴─────────┴─────────┴─────────┴→ FAILED | ROLLED_BACK | REJECTED | TIMED_OUT
                                                               | CANCELED
    (an order without the model)                  → REMOVED

The states on the right are terminal: a deployment reaches exactly one of them and stays there.
"""

from __future__ import annotations

from enum import StrEnum


class DeploymentState(StrEnum):
    """Where a deployment stands."""

    QUEUED = "QUEUED"
    DOWNLOADING = "DOWNLOADING"
    VERIFYING = "VERIFYING"
    STAGED = "STAGED"
    SHADOW = "SHADOW"
    TRIAL = "TRIAL"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    ROLLED_BACK = "ROLLED_BACK"
    REJECTED = "REJECTED"
    TIMED_OUT = "TIMED_OUT"
    CANCELED = "CANCELED"
    REMOVED = "REMOVED"

    @property
    def is_terminal(self) -> bool:
        """Whether the deployment has ended."""
        return self in TERMINAL

    @property
    def is_failure(self) -> bool:
        """Whether the deployment ended without the device running what was ordered."""
        return self in FAILURES


FAILURES = frozenset(
    {
        DeploymentState.FAILED,
        DeploymentState.ROLLED_BACK,
        DeploymentState.REJECTED,
        DeploymentState.TIMED_OUT,
    }
)
TERMINAL = FAILURES | {DeploymentState.SUCCEEDED, DeploymentState.CANCELED, DeploymentState.REMOVED}

PROGRESS = (
    DeploymentState.QUEUED,
    DeploymentState.DOWNLOADING,
    DeploymentState.VERIFYING,
    DeploymentState.STAGED,
    DeploymentState.SHADOW,
    DeploymentState.TRIAL,
)
"""The states before the end, in order. Reports may come late or twice: progress only moves forward."""
