"""What devices do with orders: when they begin, how far they get, and what they report on the way.

::

    order ─► taken ──► fetched ──► staged ──► (swapped into shadow) ──► trial ──────────► done
             │ up      │ size /    │ install  │ maintenance window      │ the version      │
             │         │ bytes/s   │ time     │ opens                   │ answers          │
    reports  DOWNLOADING VERIFYING  STAGED     SHADOW                    TRIAL              SUCCEEDED

A failure cuts this short, with its own end. Of an order for what runs already only the end is reported. On
the way back nothing is downloaded: devices keep the version before. A later order ends the one before it: of
that, nothing is reported that would have happened after the later one was taken.

All of it is worked out for many devices at once, at the time of the order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fleet.protocol.deployment import DeploymentState
from fleet.protocol.errors import Cause
from fleet.protocol.maintenance import DAY_S, DAYS, Maintenance, minute_of
from fleet.rollout.plans.plan import Plan
from fleet.rollout.state.columns import CODES
from hub.simulation.calendar import Calendar, Rows
from hub.simulation.delivery import delivered
from hub.simulation.devices import Bools, Devices, Floats, Ints, some_devices
from hub.simulation.scenario import START_S, At, Scenario

REPORT = np.dtype(
    [
        ("arrives_s", "<f8"),
        ("happened_s", "<f8"),
        ("device", "<i4"),
        ("order", "<u4"),
        ("state", "u1"),
        ("cause", "u1"),
    ]
)
_STATE = DeploymentState
_WAY = (_STATE.DOWNLOADING, _STATE.VERIFYING, _STATE.STAGED, _STATE.SHADOW, _STATE.TRIAL, _STATE.SUCCEEDED)
_FAILS_BEFORE = {At.DOWNLOAD: 1, At.TEST: 3, At.TRIAL: 5}
"""Which report of the way a failure comes in place of."""
_NEVER = 99
_VERIFY_S = 1.0
_BACK_S = 5.0
"""Median time of the way back: the version before is still installed."""
_SPREAD = np.log(1.5)
_WEEK_S = len(DAYS) * DAY_S
_FIRST_MONDAY_S = 4 * DAY_S
"""1970 began on a Thursday."""


class Installs:
    """What becomes of orders.

    Attributes:
        order: Number of the last order of each device, from 1; 0 before the first.
        taken_s: When the device took it.
        runs_from_s: When the version began to answer; infinite for not yet.
        runs_until_s: When it ceased to.
        received_bytes: What devices have downloaded, and will have if nothing stops them.
        reports: What will be reported.

    Args:
        devices: The fleet.
        scenario: What it is like.
        plan: Of the rollout.
        version: That the rollout brings.
        rng: Draws what is left to chance.

    Raises:
        InvalidPlan: The scenario's failures are of devices that it does not have.
    """

    def __init__(
        self, devices: Devices, scenario: Scenario, plan: Plan, version: int, rng: np.random.Generator
    ) -> None:
        count = len(devices)
        self._devices, self._scenario, self._plan, self._rng = devices, scenario, plan, rng
        self._version = version
        self.order = np.zeros(count, dtype=np.uint32)
        self.taken_s = np.full(count, -np.inf)
        self.runs_from_s = np.full(count, np.inf)
        self.runs_until_s = np.full(count, np.inf)
        self.received_bytes = 0
        self.reports = Calendar(REPORT)
        failures = scenario.version.failures
        self._failing: list[Bools] = [some_devices(devices, failure.where) for failure in failures]
        self.causes: Sequence[Cause | None] = (
            None,
            *(Cause(failure.code, "It failed as the scenario says.") for failure in failures),
        )

    def take(self, devices: Ints, versions: Sequence[int | None], now_s: float) -> None:
        """Let devices take orders that the hub gave now.

        Args:
            devices: Their numbers, each once.
            versions: What each is to run; None for no version.
            now_s: Hub time.
        """
        self.order[devices] += 1
        taken_s = self._devices.up_from(devices, now_s + self._rng.exponential(0.2, len(devices)))
        self.taken_s[devices] = taken_s
        wanted = np.array([-1 if version is None else version for version in versions])
        runs = (self.runs_from_s[devices] <= taken_s) & (taken_s < self.runs_until_s[devices])
        never = self.runs_from_s[devices] > taken_s
        self.runs_from_s[devices[never]] = np.inf  # a later order came first
        forward = wanted == self._version
        self._end(devices[forward & runs], taken_s[forward & runs], _STATE.SUCCEEDED)
        self._go(devices[forward & ~runs], taken_s[forward & ~runs])
        self._end(devices[wanted < 0], taken_s[wanted < 0], _STATE.REMOVED)
        gone = devices[(wanted < 0) & runs]
        self.runs_until_s[gone] = self.taken_s[gone]
        back = ~forward & (wanted >= 0)
        self._end(devices[back & ~runs], taken_s[back & ~runs], _STATE.SUCCEEDED)
        self._return(devices[back & runs], taken_s[back & runs])

    def _go(self, devices: Ints, taken_s: Floats) -> None:
        if len(devices) == 0:
            return
        version, rng, count = self._scenario.version, self._rng, len(devices)
        load_s = version.size_bytes / self._devices.bytes_per_s[devices]
        fetched_s = self._devices.up_after(devices, taken_s, load_s)
        install_s = version.install_s * np.exp(_SPREAD * rng.standard_normal(count))
        staged_s = fetched_s + _VERIFY_S + install_s
        swapped_s = self._opens_s(devices, staged_s)
        trial_s = swapped_s + self._plan.shadow_s
        times = np.stack(
            [taken_s, fetched_s, staged_s, swapped_s, trial_s, trial_s + version.trial_s], axis=1
        )
        fails, failure = self._failures(devices)
        started = fails > _WAY.index(_STATE.TRIAL)
        self.runs_from_s[devices] = np.where(started, trial_s, np.inf)
        self.runs_until_s[devices] = np.where(started & (fails < _NEVER), times[:, -1], np.inf)
        finite = np.isfinite(fetched_s) & (fails > 1)
        self.received_bytes += int(finite.sum()) * version.size_bytes
        for place, state in enumerate(_WAY):
            on = fails > place
            if state is _STATE.SHADOW and self._plan.shadow_s == 0:
                on = np.zeros(count, dtype=bool)
            self._report(devices[on], times[on, place], np.full(int(on.sum()), CODES[state]), 0)
            off = fails == place
            ends = np.array([0, *(CODES[f.outcome.state] for f in version.failures)])[failure[off]]
            self._report(devices[off], times[off, place], ends, failure[off])

    def _return(self, devices: Ints, taken_s: Floats) -> None:
        back_s = taken_s + _BACK_S * np.exp(_SPREAD * self._rng.standard_normal(len(devices)))
        self.runs_until_s[devices] = back_s
        for state, at_s in ((_STATE.DOWNLOADING, taken_s), (_STATE.TRIAL, back_s)):
            self._report(devices, at_s, np.full(len(devices), CODES[state]), 0)
        self._end(devices, back_s + self._scenario.version.trial_s, _STATE.SUCCEEDED)

    def _end(self, devices: Ints, at_s: Floats, state: DeploymentState) -> None:
        self._report(devices, at_s, np.full(len(devices), CODES[state]), 0)

    def _failures(self, devices: Ints) -> tuple[Ints, Ints]:
        """Return in place of which report each device fails, `_NEVER` for none, and by which failure."""
        fails = np.full(len(devices), _NEVER)
        failure = np.zeros(len(devices), dtype=np.intp)
        for number, kind in enumerate(self._scenario.version.failures):
            place = _FAILS_BEFORE[kind.at]
            hit = (
                self._failing[number][devices]
                & (self._rng.random(len(devices)) < kind.share)
                & (place < fails)
            )
            fails[hit], failure[hit] = place, number + 1
        return fails, failure

    def _opens_s(self, devices: Ints, at_s: Floats) -> Floats:
        """Return when the plan's maintenance window is open, at a time or as soon as possible after it."""
        window = self._plan.maintenance
        if window is None:
            return at_s
        wall_s = START_S + at_s + self._devices.zone_s[devices] + self._devices.ahead_s[devices]
        return at_s + until_open_s(window, wall_s)

    def _report(self, devices: Ints, at_s: Floats, states: Ints, causes: Ints | int) -> None:
        if len(devices) == 0:
            return
        rows = np.zeros(len(devices), REPORT)
        rows["happened_s"], rows["device"], rows["order"] = at_s, devices, self.order[devices]
        rows["state"], rows["cause"] = states, causes
        self.reports.put(delivered(rows, self._devices, self._scenario.reports, self._rng))

    def is_true(self, rows: Rows) -> Bools:
        """Tell which reports were really sent: not those of an order that a later one ended before."""
        devices = rows["device"]
        last = rows["order"] == self.order[devices]
        return np.asarray(last | (rows["happened_s"] <= self.taken_s[devices]))


def until_open_s(window: Maintenance, wall_s: Floats) -> Floats:
    """Return how long it takes until a maintenance window is open; 0 where it is.

    Args:
        window: It opens at some time.
        wall_s: Clocks on devices' walls, seconds since 1970-01-01 in their own zone, shape (n,).
    """
    with np.errstate(invalid="ignore"):  # the clock of who is never there
        into_s = np.mod(wall_s - _FIRST_MONDAY_S, _WEEK_S)
    length_s, begin_s = window.length_minutes * 60.0, minute_of(window.from_) * 60.0
    waits_s = np.full(len(wall_s), np.inf)
    for day in window.days:
        since_s = np.mod(into_s - (DAYS.index(day) * DAY_S + begin_s), _WEEK_S)
        waits_s = np.minimum(waits_s, np.where(since_s < length_s, 0.0, _WEEK_S - since_s))
    return np.where(np.isfinite(wall_s), waits_s, 0.0)
