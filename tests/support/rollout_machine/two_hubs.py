"""Two hubs with the same fleet: one to which nothing ever happens, and one that suffers."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine

from fleet.protocol.errors import StorageError
from fleet.rollout.events import Event
from fleet.rollout.plans.plan import Plan
from fleet.rollout.state.rollout import Rollout, Status
from hub.store.rows import IncomingRecord
from tests.support.rollout_machine.fleet import DEVICES, releases
from tests.support.rollout_world import Died, Fault, Outcome, World

FAULTS = st.sampled_from([None, None, Fault.KILLED, Fault.FULL])


class TwoHubs(RuleBasedStateMachine):
    """A world that suffers, its undisturbed twin, and how work is done on both.

    Args:
        template: The file that both begin with.
    """

    def __init__(self, template: Path) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        for name in ("world", "twin"):
            (self.folder / name).mkdir()
        self.world = World(self.folder / "world", template, releases())
        self.twin = World(self.folder / "twin", template, releases())
        self.latest_s = self.world.now_s
        self.devices = list(DEVICES)
        self.sent: list[IncomingRecord] = []

    def close(self) -> None:
        """Let go of both."""
        self.world.close()
        self.twin.close()
        shutil.rmtree(self.folder)

    def both(self, data: st.DataObject, work: Callable[[World], object], *, whole: bool = False) -> Outcome:
        """Do work on both hubs, on one of them perhaps with a fault, after which it is done again.

        Args:
            data: Draws the fault.
            work: What is done.
            whole: Whether it is one transaction: after a fault nothing of it is stored, or all.
        """
        fault = data.draw(FAULTS, label="fault")
        before = self.world.tables() if whole and fault else None
        if fault:
            self.world.forget()
            self.twin.forget()
        outcome = self.twin.do(work)
        if fault is None or outcome.statements == 0:
            assert self.world.do(work).refusal == outcome.refusal
            return outcome
        break_at = data.draw(st.integers(0, outcome.statements - 1), label="at statement")
        with contextlib.suppress(Died, StorageError):
            self.world.do(work, break_at=break_at, fault=fault)
        if whole:
            now = self.world.tables()
            if now == self.twin.tables():
                return outcome
            assert now == before, "half of it is stored"
        assert self.world.do(work).refusal == outcome.refusal
        return outcome

    def make(
        self, plan: Plan, model: str, version: int, *, devices: list[str] | None = None, seed: int = 0
    ) -> int | None:
        """Draw a rollout up, and return its number if it was not refused."""
        outcomes = [
            world.do(
                lambda world: world.rollouts.create(
                    model, version, plan=plan, devices=devices, seed=seed, by="ann"
                )
            )
            for world in (self.world, self.twin)
        ]
        assert outcomes[0] == outcomes[1]
        return None if outcomes[0].refusal else self.world.store.rollouts(limit=1)[0].state.number

    def act(self, data: st.DataObject, number: int, word: Event) -> None:
        """Say a word."""
        self.both(data, lambda world: world.rollouts.act(number, word), whole=True)

    def advance(self, data: st.DataObject) -> None:
        """Let both hubs have a turn."""
        self.both(data, lambda world: world.rollouts.advance())

    def take_in(self, data: st.DataObject, records: list[IncomingRecord]) -> None:
        """Let records arrive."""
        self.sent += records
        self.both(data, lambda world: world.store.add_records(records))

    def pass_time(self, seconds: float) -> None:
        """Move the clocks of both hubs."""
        for world in (self.world, self.twin):
            world.now_s += seconds
        self.latest_s = max(self.latest_s, self.world.now_s)

    def rollout(self, number: int) -> Rollout:
        """Return a rollout as it is stored."""
        return self.world.store.rollout(number).state

    def with_status(self, *statuses: Status) -> list[int]:
        """Return the numbers of the rollouts in some statuses, the latest first."""
        return [row.state.number for row in self.world.store.rollouts() if row.state.status in statuses]
