"""Which commands bring devices from a version that was revoked to another one, and nobody else.

A rollback by command leads all devices back that should run a newer version than it leads to. If some of
these run another version than the one that was revoked, it is narrowed to that; and since it is refused while
a rollout also has devices outside its target, what is held of the revoked version is ended before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fleet.alerts import commands
from fleet.rollout.state.rollout import Rollout


def ways_out(
    model: str, version: int, held: Sequence[Rollout], desired: Mapping[str, int], older: int | None
) -> list[str]:
    """Return the commands, in the order in which they are to be given.

    Args:
        model: Name of the model.
        version: The version that was revoked.
        held: Rollouts of it.
        desired: What each of the model's devices is to run.
        older: The proven version that those which are to run it go back to; None if there is none.
    """
    reason = f"version {version} was revoked"
    ended = [commands.rollout_abort(rollout.number, reason) for rollout in held]
    if older is None:
        return ended
    if not any(older < runs != version for runs in desired.values()):
        return [commands.rollback(model, older, reason)]  # it puts aside what is held
    running = [device_id for device_id, runs in desired.items() if runs == version]
    members = [rollout.deployments.members for rollout in held]
    if all(any(those.place(device_id) is not None for those in members) for device_id in running):
        return ended
    return [*ended, commands.rollback(model, older, reason, commands.running(model, version))]
