"""The shell of explanations: reads what is known of the few devices that they need, see `concerned`."""

from __future__ import annotations

from typing import Protocol

from fleet.protocol.messages import ModelState
from fleet.rollout.explanation.explanation import Explanation, explain
from fleet.rollout.explanation.groups import concerned
from fleet.rollout.explanation.reasons import Facts
from fleet.rollout.state.rollout import Rollout
from fleet.sentences import one_line, whole
from hub.store.protocols import DeviceStore, QuarantineStore, WishStore
from hub.store.rows import DeviceRow


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
        device_id: _facts(
            row,
            _said_of(row, rollout.model),
            is_held=device_id in held,
            is_quarantined=device_id in quarantined,
        )
        for device_id, row in store.devices_named(device_ids).items()
    }
    return explain(rollout, facts, now_s)


def _facts(row: DeviceRow, said: ModelState | None, *, is_held: bool, is_quarantined: bool) -> Facts:
    waits_for = one_line(said.waiting_for or "") if said is not None else ""
    return Facts(
        is_online=row.online,
        last_seen_s=row.last_seen_at_s,
        is_held=is_held,
        is_quarantined=is_quarantined,
        waits_for=whole(waits_for) if waits_for else "",
        waits_in=(said.deployment_id or "") if said is not None else "",
    )


def _said_of(row: DeviceRow, model: str) -> ModelState | None:
    """Return what a device said last that it holds of a model."""
    models = row.reported.models if row.reported is not None else ()
    return next((state for state in models if state.model == model), None)
