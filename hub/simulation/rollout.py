"""One simulated rollout: the hub's steps, second by second, on the engine that the hub runs.

As in the hub's shell, what arrived is read in batches of `RECORDS_PER_STEP`; a batch is one event of all
reports, one of all windows, and a tick, and is read again until there is less than a batch. Devices that come
to match a continuous rollout are looked for every `JOIN_LOOK_S`. Orders reach devices after the step. While
the hub is away nothing is stepped; after it the engine is told how long that was.
"""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from fleet.protocol.errors import Conflict
from fleet.rollout import engine
from fleet.rollout.events import (
    Abort,
    Approve,
    Assign,
    DeploymentReported,
    DeploymentsReported,
    DevicesJoined,
    Event,
    EvidenceObserved,
    Joiner,
    Pause,
    Promote,
    Resume,
    Start,
    Ticked,
    WasAway,
)
from fleet.rollout.plans.fit import check_members, check_sizes
from fleet.rollout.plans.plan import Membership, Plan
from fleet.rollout.state.columns import STATES
from fleet.rollout.state.rollout import Kind, Rollout
from hub.rollouts.absence import AWAY_AFTER_S
from hub.rollouts.advancing import RECORDS_PER_STEP
from hub.rollouts.joiners import JOIN_LOOK_S
from hub.simulation.account import Account, waits_for_people
from hub.simulation.calendar import Rows
from hub.simulation.devices import MODEL, Devices, Ints, number_of
from hub.simulation.installs import Installs
from hub.simulation.keeping import InMemory, Keeping
from hub.simulation.outcome import Outcome
from hub.simulation.scenario import START_S, Action, Deed, Scenario
from hub.simulation.telemetry import NEW_DIGEST, NEW_VERSION, OLD_VERSION, Telemetry


class SimulatedRollout:
    """One rollout in one simulated fleet.

    Args:
        plan: As an operator wrote it, checked.
        scenario: The fleet, and what happens.
        seed: Of fleet, chance and cohorts.
        devices: How many; None for as many as the scenario says.

    Raises:
        InvalidPlan: The plan does not fit the fleet, or asks for what is not simulated.
    """

    def __init__(self, plan: Plan, scenario: Scenario, *, seed: int, devices: int | None = None) -> None:
        self._plan, self._scenario, self._seed = plan, scenario, seed
        streams = np.random.SeedSequence(seed).spawn(3)
        draws = [np.random.Generator(np.random.PCG64(stream)) for stream in streams]
        self.devices = Devices(scenario.fleet, devices or scenario.fleet.devices, draws[0])
        self._installs = Installs(self.devices, scenario, plan, NEW_VERSION, draws[1])
        self._telemetry = Telemetry(self.devices, self._installs, scenario, plan, draws[2])
        self._matching = self.devices.matching(plan.target)
        cohorts = {
            number: self.devices.matching(stage.cohort, f"stages[{number}].cohort")
            for number, stage in enumerate(plan.stages)
            if stage.cohort is not None
        }
        self._cohorts = cohorts
        self._strata = self.devices.strata(plan)
        self._order_ids = [""] * len(self.devices)
        self._ids_before = [""] * len(self.devices)
        self._deeds = deque(scenario.operators)
        self._joined_until_s = 0.0
        self._look_s = 0.0
        self._keeping: Keeping = InMemory()
        self._refused: list[str] = []
        self._account = Account(plan, scenario, self._installs, self._telemetry, self._matching)
        self._counted = dict.fromkeys(("orders", "reports", "windows", "steps"), 0)
        self._rollout = self._created()

    @property
    def state(self) -> Rollout:
        """The rollout as it stands."""
        return self._rollout

    @property
    def records(self) -> int:
        """How many reports and windows have arrived."""
        return self._counted["reports"] + self._counted["windows"]

    def run(self, *, keeping: Keeping | None = None, look: Callable[[float], None] | None = None) -> Outcome:
        """Let the rollout run to its end, or that of the scenario.

        Args:
            keeping: Where steps are kept; None for nowhere.
            look: Called with the simulated time after every look of the hub.
        """
        with _without_collection():
            return self._run(keeping or InMemory(), look)

    def _run(self, keeping: Keeping, look: Callable[[float], None] | None) -> Outcome:
        self._keeping = keeping
        self._rollout = self._keeping.create(lambda _: self._rollout)
        running = {part: None if fresh else OLD_VERSION for part, fresh in self._members(0.0)}
        self._apply([Start("operator", running)], 0.0)
        now_s, since_s, waits_since_s = 0.0, 0.0, 0.0
        absences = deque(self._scenario.hub_away)
        while not self._rollout.status.is_final and now_s < self._scenario.lasts_s:
            now_s += self._scenario.tick_s
            if absences and now_s >= absences[0].at_s:
                away_s = absences.popleft().duration_s
                now_s += away_s
                if away_s > AWAY_AFTER_S:
                    self._apply([WasAway(away_s)], now_s)
            self._telemetry.pass_time(since_s, now_s)
            self._operate(now_s)
            self._advance(now_s)
            since_s = now_s
            if look is not None:
                look(now_s)
            waits = waits_for_people(self._rollout)
            waits_since_s = waits_since_s if waits else now_s
            if now_s - waits_since_s > self._scenario.waits_s and not self._deeds:
                break
        return self._account.outcome(
            self._rollout, now_s, seed=self._seed, refused=self._refused, counted=self._counted
        )

    def _members(self, since_s: float) -> list[tuple[str, bool]]:
        """Return the devices that the plan means at the start, and whether they run no version."""
        there = np.flatnonzero(self._matching & (self.devices.joins_s <= since_s))
        fresh = self.devices.is_fresh[there].tolist()
        return [(self.devices.ids[n], f) for n, f in zip(there.tolist(), fresh, strict=True)]

    def _created(self) -> Rollout:
        members = self._members(0.0)
        check_members(self._plan, NEW_VERSION, len(members), running=0)
        ids, kind = self.devices.ids, self.devices.kind.tolist()
        cohorts = {
            place: {ids[n] for n in np.flatnonzero(matching).tolist()}
            for place, matching in self._cohorts.items()
        }
        rollout = engine.create(
            number=1,
            kind=Kind.UPDATE,
            model=MODEL,
            version=NEW_VERSION,
            manifest_sha256=NEW_DIGEST,
            plan=self._plan,
            seed=self._seed,
            devices={device_id: None if fresh else OLD_VERSION for device_id, fresh in members},
            now_s=START_S,
            strata={device_id: self._strata[kind[number_of(device_id)]] for device_id, _ in members},
            cohorts=cohorts,
        )
        check_sizes(self._plan, rollout.stage_sizes)
        return rollout

    def _operate(self, now_s: float) -> None:
        while self._deeds and self._deeds[0].at_s <= now_s:
            deed = self._deeds.popleft()
            try:
                self._apply([_event(deed)], now_s)
            except Conflict as error:
                self._refused.append(f"{deed.action.value} by {deed.by}: {error.message}")

    def _advance(self, now_s: float) -> None:
        """Step through what has arrived, and the time."""
        reports = self._installs.reports.take(now_s)
        reports = reports[self._installs.is_true(reports)]
        windows = self._telemetry.windows.take(now_s)
        self._counted["reports"] += len(reports)
        self._counted["windows"] += len(windows)
        arrived_s = np.concatenate((reports["arrives_s"], windows["arrives_s"]))
        order = np.argsort(arrived_s, kind="stable")
        first = 0
        while not self._rollout.status.is_final:
            batch = order[first : first + RECORDS_PER_STEP]
            first += len(batch)
            events: list[Event] = []
            if len(some := reports[batch[batch < len(reports)]]):
                events.append(DeploymentsReported(tuple(self._read(some))))
            if len(some := windows[batch[batch >= len(reports)] - len(reports)]):
                events.append(EvidenceObserved(tuple(self._telemetry.read(some))))
            self._apply([*events, *self._joined(now_s), Ticked()], now_s, records=len(batch))
            if len(batch) < RECORDS_PER_STEP:
                return

    def _read(self, rows: Rows) -> list[DeploymentReported]:
        devices = rows["device"]
        at_s = (START_S + rows["happened_s"] + self.devices.ahead_s[devices]).tolist()
        behind = (self._installs.order[devices] - rows["order"]).tolist()
        ids, causes = (self._order_ids, self._ids_before), self._installs.causes
        named = self.devices.ids
        return [
            DeploymentReported(named[device], ids[late][device], STATES[state], at, causes[cause])
            for device, late, state, at, cause in zip(
                devices.tolist(), behind, rows["state"].tolist(), at_s, rows["cause"].tolist(), strict=True
            )
            if late < len(ids)
        ]

    def _joined(self, now_s: float) -> list[Event]:
        if self._plan.membership is not Membership.CONTINUOUS or now_s < self._look_s:
            return []
        self._look_s = now_s + JOIN_LOOK_S
        joins_s = self.devices.joins_s
        new = np.flatnonzero(self._matching & (joins_s > self._joined_until_s) & (joins_s <= now_s))
        self._joined_until_s = now_s
        joiners = tuple(self._joiner(number) for number in new.tolist())
        return [DevicesJoined(joiners)] if joiners else []

    def _joiner(self, number: int) -> Joiner:
        return Joiner(
            device_id=self.devices.ids[number],
            version=None if self.devices.is_fresh[number] else OLD_VERSION,
            stratum=self._strata[self.devices.kind[number]],
            matching=tuple(place for place, matching in self._cohorts.items() if matching[number]),
        )

    def _apply(self, events: list[Event], now_s: float, records: int = 0) -> None:
        """Step through events, keep what they led to, and let devices take the orders."""
        before = after = self._rollout
        orders: list[Assign] = []
        for event in events:
            after, commands = engine.step(after, event, START_S + now_s)
            orders += [command for command in commands if isinstance(command, Assign)]
        self._rollout = after
        self._counted["steps"] += 1
        if after is not before:
            self._account.note(before, after, now_s)
        if after is not before or records:
            self._keeping.keep(before, after, self.records, orders)
        if orders:
            self._counted["orders"] += len(orders)
            self._send(orders, now_s)

    def _send(self, orders: list[Assign], now_s: float) -> None:
        """Let devices take orders; of several to one device, the last is all that it should run."""
        last = {number_of(order.device_id): order for order in orders}
        for number, order in last.items():
            self._ids_before[number] = self._order_ids[number]
            self._order_ids[number] = order.deployment_id
        numbers: Ints = np.fromiter(last, dtype=np.intp, count=len(last))
        self._installs.take(numbers, [order.version for order in last.values()], now_s)


@contextmanager
def _without_collection() -> Iterator[None]:
    """Let nobody look for cycles: steps leave none behind, and millions of values take long."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _event(deed: Deed) -> Event:
    match deed.action:
        case Action.PAUSE:
            return Pause(deed.by, deed.reason)
        case Action.RESUME:
            return Resume(deed.by)
        case Action.PROMOTE:
            return Promote(deed.by, deed.reason)
        case Action.APPROVE:
            return Approve(deed.by, deed.reason)
        case Action.ABORT:
            return Abort(deed.by, deed.reason, roll_back=False)
        case Action.ROLL_BACK:
            return Abort(deed.by, deed.reason, roll_back=True)
