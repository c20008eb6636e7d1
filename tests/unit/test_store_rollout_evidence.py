"""What a step writes of the evidence, and that another process reads it as it is."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from fleet.protocol.errors import StorageCorrupt
from fleet.rollout.events import Pause, Promote
from hub.store.sqlite import SqliteStore
from tests.support.rollouts import Campaign, plan

PART = tuple[int, int]


def _parts(path: Path) -> dict[PART, bytes]:
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT stage, part, evidence FROM rollout_evidence").fetchall()
    return {(stage, part): data for stage, part, data in rows}


def test_a_step_writes_what_it_changed_and_a_hub_that_starts_anew_reads_it(tmp_path: Path) -> None:
    path, campaign = tmp_path / "hub.db", Campaign(plan(2, "50%", "all"))
    acts: list[tuple[Callable[[], object], set[PART]]] = [
        (campaign.observe, {(0, -1), (0, 1)}),  # nobody runs the version yet
        (lambda: campaign.succeed(0), set()),
        (campaign.observe, {(0, -1), (0, 0)}),
        (lambda: campaign.do(Pause("ann", "lunch")), set()),
        (lambda: campaign.do(Promote("ann", "well", 1)), {(0, 0), (0, 1), (1, -1)}),
        (campaign.observe, {(1, -1), (1, 1)}),
    ]
    with closing(SqliteStore(path)) as store:
        store.create_rollout(lambda _number: campaign.rollout, 1.0)
        for act, changed in acts:
            before, parts = campaign.rollout, _parts(path)
            act()
            store.apply_step(campaign.rollout, previous=before, position=0, changes=[])
            now = _parts(path)
            assert {key for key in now | parts if now.get(key) != parts.get(key)} == changed
            with closing(SqliteStore(path)) as other:
                assert other.rollouts()[0].state == campaign.rollout.summary
                assert other.rollout(campaign.rollout.number).state == campaign.rollout
    assert _parts(path).keys() == {(0, -1), (1, -1), (1, 1)}, "of a stage that has ended, no spans"


def test_evidence_that_is_missing_or_broken_is_corrupt(tmp_path: Path) -> None:
    path, campaign = tmp_path / "hub.db", Campaign()
    with closing(SqliteStore(path)) as store:
        store.create_rollout(lambda _number: campaign.rollout, 1.0)
    for damage in ("UPDATE rollout_evidence SET evidence = x'C1'", "DELETE FROM rollout_evidence"):
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute(damage)
        with closing(SqliteStore(path)) as store, pytest.raises(StorageCorrupt):
            store.rollout(campaign.rollout.number)
