"""Time in which the hub was off or asleep: no deadline of a rollout counts it.

The rollouts are told first, and only then the heartbeat goes on: a hub that is killed in between finds the
same silence again, grown by a little. A rollout that was told of its beginning adds what has grown alone.
"""

from __future__ import annotations

from hub.heartbeat import Heartbeat
from hub.rollouts.shell import Rollouts

AWAY_AFTER_S = 10.0
"""A longer gap between two looks at the fleet means that the hub was off or asleep, or its clock was set."""


def excuse_absence(heartbeat: Heartbeat, rollouts: Rollouts) -> None:
    """Tell the rollouts if the hub was away, and let the heart beat.

    Raises:
        StorageError: It could not be stored; the silence lasts.
    """
    silence = heartbeat.silence()
    if silence.duration_s > AWAY_AFTER_S:
        rollouts.excuse(silence.duration_s, since_s=silence.since_s)
    heartbeat.beat()
