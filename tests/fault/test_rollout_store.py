"""A step of a rollout is stored whole or not at all, wherever SQLite is stopped within it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from fleet.protocol.deployment import DeploymentState
from fleet.protocol.errors import Cause, Conflict, StorageError
from fleet.rollout.engine import create, step
from fleet.rollout.events import Assign, DeploymentReported, DeploymentsReported, Promote, Start
from fleet.rollout.state.rollout import Kind, Rollout
from hub.store.rows import OrderChange
from hub.store.sqlite import SqliteStore
from tests.support.rollouts import NEW, plan
from tests.support.stores import add_device, order

DEVICES = [f"cam-{number}" for number in range(6)]
STRIDE = 37
"""Instructions of SQLite's machine between two points at which it is stopped."""


def _created(number: int) -> Rollout:
    return create(
        number=number,
        kind=Kind.UPDATE,
        model="digits",
        version=2,
        manifest_sha256=NEW,
        plan=plan(2, "all", maximum_failed_share=0.9),
        seed=0,
        devices=dict.fromkeys(DEVICES, 1),
        now_s=1.0,
    )


def _everything(store: SqliteStore) -> dict[str, Any]:
    """Return all that a step may change, as another process would read it."""
    row = store.rollout(1)
    return {
        "row": row,
        "parts": list(row.state.deployments),
        "decisions": store.decisions(1),
        "orders": {name: store.desired(name) for name in DEVICES},
    }


def _stop_after(store: SqliteStore, instructions: int | None) -> None:
    left, writer = instructions, store._database._writer.conn

    def is_time() -> int:
        nonlocal left
        if left is None or not writer.in_transaction:  # what is asked as COMMIT returns comes too late
            return 0
        left -= 1
        return int(left == -1)

    writer.set_progress_handler(is_time, 1)


def _is_stopped(
    store: SqliteStore, instructions: int, after: Rollout, before: Rollout, changes: list[OrderChange]
) -> bool:
    """Store a step, and stop SQLite once after so many instructions; tell whether that came to pass."""
    _stop_after(store, instructions)
    try:
        store.apply_step(after, previous=before, position=7, changes=changes)
    except StorageError:
        return True
    finally:
        _stop_after(store, None)
    return False


def test_a_step_that_is_stopped_anywhere_leaves_nothing_and_can_be_repeated(tmp_path: Path) -> None:
    path = tmp_path / "hub.db"
    with closing(SqliteStore(path)) as store:
        for name in DEVICES:
            add_device(store, name)
        before = store.create_rollout(_created, 1.0).state
        started = step(before, Start("ana"), 2.0)[0]
        store.apply_step(started, previous=before, position=0, changes=[])
        failed = DeploymentReported(
            started.deployments[0].device_id, "r1-0f", DeploymentState.FAILED, 3.0, Cause("no_space", "Full.")
        )
        after, first = step(started, DeploymentsReported((failed,)), 3.0)
        after, second = step(after, Promote("ana", "a test"), 3.0)
        changes = [
            OrderChange(c.device_id, "digits", order(c.version or 1, deployment_id=c.deployment_id))
            for c in (*first, *second)
            if isinstance(c, Assign)
        ]
        assert len(changes) == 5
        untouched = _everything(store)
        stops = 0
        while _is_stopped(store, STRIDE * stops, after, started, changes):
            stops += 1
            assert _everything(store) == untouched, f"stopped after {STRIDE * stops} instructions"
            with closing(SqliteStore(path)) as anew:
                assert _everything(anew) == untouched
        assert stops > 10
        assert store.rollout(1).state == after
        with closing(SqliteStore(path)) as anew:
            assert _everything(anew) == _everything(store)
            assert anew.rollout(1).state == after
        with pytest.raises(Conflict):
            store.apply_step(after, previous=started, position=8, changes=changes)
