"""The shell of explanations: reads what is known of the few devices that they need, see `concerned`."""

from __future__ import annotations

from typing import Protocol

from fleet.rollout.explanation.explanation import Explanation, explain
from fleet.rollout.explanation.groups import concerned
from fleet.rollout.explanation.reasons import Facts
from fleet.rollout.state.rollout import Rollout
from hub.store.protocols import DeviceStore, QuarantineStore, WishStore


class FactStore(DeviceStore, QuarantineStore, WishStore, Protocol):
    """What explanations need of the store."""


def explanation_of(store: FactStore, rollout: Rollout, now_s: float) -> Explanation:
    """Return why a rollout is where it is.

    Args:
        store: Knows the devices.
        rollout: As stored.
        now_s: Hub time, Unix seconds.
    """
    device_ids = concerned(rollout)
    quarantined = {row.device_id for row in store.quarantines()} if device_ids else set()
    held = store.held_devices() if device_ids else set()
    facts = {
        device_id: Facts(
            is_online=row.online,
            last_seen_s=row.last_seen_at_s,
            is_held=device_id in held,
            is_quarantined=device_id in quarantined,
        )
        for device_id, row in store.devices_named(device_ids).items()
    }
    return explain(rollout, facts, now_s)
