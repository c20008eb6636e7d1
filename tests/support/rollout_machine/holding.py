"""What holds at all times, and how every rollout comes to its end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hypothesis.stateful import invariant

from fleet.protocol.errors import Cause
from fleet.protocol.maintenance import Mode
from fleet.rollout.claims import claims_of
from fleet.rollout.events import Abort, Approve, Event, Promote, Resume
from fleet.rollout.state.columns import Deployment
from fleet.rollout.state.rollout import CauseCode, Rollout, Status
from tests.support.rollout_machine.counted import Counted
from tests.support.rollout_machine.devices import SUCCEEDED, TRANSPORT, Senders
from tests.support.rollout_machine.fleet import OLD_AGENT, UNABLE
from tests.support.rollout_rules import Following, Given

Tables = dict[str, list[tuple[Any, ...]]]

LOSSES = frozenset({TRANSPORT.code, CauseCode.TIMED_OUT.value})
"""After which a deployment may be tried again; whatever else a device said, it is not asked again."""


class Holding(Senders):
    """Looks at both hubs after every step.

    Args:
        template: The file that both begin with.
    """

    def __init__(self, template: Path) -> None:
        super().__init__(template)
        self.counted = Counted()
        self.following: dict[int, Following] = {}
        self.wanted: dict[tuple[str, str], tuple[str, int]] = {}
        self.sequences: dict[str, int] = {}
        self.waits: dict[str, float] = {}

    @invariant()
    def all_that_must_hold(self) -> None:
        """Look once, at all: reading both hubs costs more than what is checked."""
        tables, undisturbed = self.world.tables(), self.twin.tables()
        for name, rows in tables.items():
            assert rows == undisturbed[name], f"a fault changed more than time in {name}"
        self.counted.read(self.world.store)
        for row in reversed(self.world.store.rollouts()):
            stored = self.world.store.rollout(row.state.number)
            rollout = stored.state
            assert rollout == self.twin.store.rollout(rollout.number).state
            self.counted.check(rollout, stored.position)
            self._follow(rollout)
            self._check_tries(rollout)
        self._check_orders(tables)
        self._check_claims(tables)

    def _follow(self, rollout: Rollout) -> None:
        """Check a rollout, also beside what it was, and note what it ordered."""
        for order in self.following.setdefault(rollout.number, Following()).follow(rollout, self.latest_s):
            key = order.device_id, rollout.model
            if order.version is None:
                self.wanted.pop(key, None)
            elif self._is_sent(rollout, order):
                self.wanted[key] = order.deployment_id, order.version

    def _is_sent(self, rollout: Rollout, order: Given) -> bool:
        """Whether the hub sends an order, or refuses it in the device's place."""
        unable = order.device_id == UNABLE or (
            order.device_id == OLD_AGENT and rollout.plan.maintenance is not None
        )
        return not (order.forward and unable) and (rollout.model, order.version) not in self.world.revoked

    def _check_tries(self, rollout: Rollout) -> None:
        """What was lost on its way waits its time, each time twice as long; nothing else is tried again."""
        retries = rollout.plan.retries
        for d in rollout.deployments:
            attempt, deployment_id = d.attempt, d.attempt.deployment_id
            if (due_s := self.waits.get(deployment_id)) is not None and attempt.ordered_s is not None:
                assert attempt.ordered_s >= due_s, "it was tried again too soon"
            if _waits_to_try_again(d):
                assert attempt.cause is not None and attempt.cause.code in LOSSES, "it is tried again blindly"
                assert d.tries <= retries.attempts
                if d.due_s is not None:
                    assert d.due_s >= attempt.since_s + retries.backoff_s * 2 ** (d.tries - 1)
                    self.waits[deployment_id] = d.due_s

    def _check_orders(self, tables: Tables) -> None:
        """What devices should run is what was ordered last, and when they may is as its plan says."""
        desired = {(row[0], row[1]): (row[5], row[2]) for row in tables["desired"]}
        assert desired == self.wanted, "what devices should run is what was ordered last"
        sequences: dict[str, int] = dict(tables["devices"])
        assert all(sequences[device] >= known for device, known in self.sequences.items())
        self.sequences = sequences
        plans = {row.state.number: row.state.plan for row in self.world.store.rollouts()}
        for device_id in self.devices:
            for order in self.world.store.desired(device_id).orders:
                number, _, way = order.deployment_id.removeprefix("r").partition("-")
                plan = plans[int(number)]
                goes_back = way.endswith("b")
                assert order.maintenance == (None if goes_back else plan.maintenance)
                known = device_id != OLD_AGENT and not goes_back
                assert order.mode is (plan.mode if known else Mode.SOFT)

    def _check_claims(self, tables: Tables) -> None:
        """A device is in one rollout of a model at most, and who was taken by another one was never asked."""
        held = [
            (row.state.model, claim.device_id)
            for row in self.world.store.open_rollouts()
            for claim in claims_of(row.state)
        ]
        assert len(held) == len(set(held)), "a device is in two rollouts of a model"
        assert {row[:2] for row in tables["rollout_claims"]} == set(held)
        for row in self.world.store.open_rollouts():
            for d in row.state.deployments:
                if _was_taken(d.attempt.cause):
                    assert d.attempt.ordered_s is None and d.restore is None and d.tries == 0

    def teardown(self) -> None:
        """Left to devices that obey and to an operator who promotes, every rollout ends."""
        try:
            if self.following:
                self._come_to_an_end()
        finally:
            self.close()

    def _come_to_an_end(self) -> None:
        """Let everything go well, on one of the hubs."""
        world = self.world
        for _ in range(60):
            rows = world.store.open_rollouts()
            if not rows:
                return
            for row in rows:
                for word in _helping_words(row.state):
                    world.rollouts.act(row.state.number, word)
            self.follow_orders(world, self.devices, SUCCEEDED)
            world.store.add_records(self.windows(30))
            world.now_s += 20.0
            world.rollouts.advance()
        raise AssertionError(f"{[row.state.number for row in rows]} did not end")


def _helping_words(rollout: Rollout) -> Iterator[Event]:
    """Yield what operators say to a rollout that waits for them."""
    if rollout.status is Status.ROLLING_BACK:
        return
    if rollout.revoked:
        yield Abort("ann", "it was revoked", roll_back=False)
    elif rollout.awaits_since_s is not None:
        if rollout.status is Status.PAUSED:
            yield Resume("ann")
        yield Approve("bob", "")
    elif rollout.status is Status.PAUSED:
        ended = rollout.stages[-1].ended_s is not None
        yield Resume("ann") if ended else Promote("ann", "end it")


def _waits_to_try_again(deployment: Deployment) -> bool:
    attempt = deployment.attempt
    return deployment.tries > 0 and attempt.ordered_s is None and not attempt.state.is_terminal


def _was_taken(cause: Cause | None) -> bool:
    return cause is not None and cause.code == CauseCode.SUPERSEDED
