"""The simulated devices, in columns: what they are, when they are there, and what became of them.

A device has a number; its id follows from it. Each is one *kind*: a combination of values of the scenario's
attributes. What is asked of attributes, by targets, cohorts and strata, is asked once for each kind, by the
same code that the hub asks it with.

**Being there.** A device is up for the first ``up_s`` of every ``period_s``, by a phase of its own::

    up    ████████░░░░░░░████████░░░░░░░████████       always up: up_s = period_s
          ├ up_s ─┤                                     never up:  up_s = 0
          ├── period_s ──┤
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fleet.protocol.errors import InvalidPlan, InvalidTarget
from fleet.protocol.messages import Capabilities
from fleet.rollout.plans.plan import Plan
from fleet.targets.evaluation import DeviceProfile, compile_target
from fleet.targets.parser import parse_target
from fleet.targets.tree import Attribute, BuiltIn, Drifts, Fact, Runs, Tagged, VersionOf, operands, tests
from hub.rollouts.members import strata_of
from hub.simulation.scenario import Fleet
from hub.store.rows import DeviceRow

MAX_KINDS = 4096
SAID = ("hardware", "architecture")
"""Attributes that devices say of themselves; the others are given to them."""
MODEL = "model"
_PREFIX = "device-"
_EVER_S = 1e9
_UNANSWERED = {BuiltIn.ID, BuiltIn.AGENT_VERSION, BuiltIn.ONLINE, BuiltIn.HEALTH, BuiltIn.FREE_BYTES}

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
Bools = NDArray[np.bool_]


class Kind(NamedTuple):
    """A combination of values of the attributes."""

    attributes: dict[str, str]

    @property
    def profile(self) -> DeviceProfile:
        """What targets can ask."""
        given = {name: value for name, value in self.attributes.items() if name not in SAID}
        return DeviceProfile(
            id="",
            attributes=given,
            hardware=self.attributes.get("hardware", ""),
            architecture=self.attributes.get("architecture", ""),
        )

    def row(self, device_id: str) -> DeviceRow:
        """Return what the hub's store would say of a device of this kind."""
        profile = self.profile
        return DeviceRow(
            device_id,
            dict(profile.attributes),
            Capabilities("0.1.0", profile.architecture, {}, 2**31, 2**34, profile.hardware),
            0.0,
            online=True,
            sequence=0,
            accepted_sequence=0,
        )


class Devices:
    """All devices, see the head of this file.

    Attributes:
        ids: The id of each.
        kinds: The kinds there are.
        kind: That of each device, shape (n,), like all that follow.
        joins_s: When it is enrolled; 0 at the start.
        is_fresh: Whether it runs no version before.
        is_silent: Whether it sends no telemetry.
        period_s: See the head of this file, like the next two.
        up_s: Likewise.
        phase_s: Likewise.
        bytes_per_s: How fast it downloads.
        ahead_s: How much its clock is ahead.
        zone_s: How far its wall clock is from UTC.

    Args:
        fleet: Of the scenario.
        count: How many devices.
        rng: Draws them.
    """

    def __init__(self, fleet: Fleet, count: int, rng: np.random.Generator) -> None:
        self.ids = [f"{_PREFIX}{number:07d}" for number in range(count)]
        self.kinds, shares = _kinds(fleet.attributes)
        self.kind = rng.choice(len(self.kinds), count, p=shares).astype(np.uint16)
        self.joins_s = _for_some(rng, fleet.joining.share, rng.uniform(0.0, fleet.joining.over_s, count), 0.0)
        self.is_fresh = rng.random(count) < fleet.fresh_share
        self.is_silent = rng.random(count) < fleet.silent_share
        self._draw_presence(fleet, rng)
        self.bytes_per_s = fleet.links.bytes_per_s * np.exp(fleet.links.spread * rng.standard_normal(count))
        off_s = rng.uniform(-fleet.clocks.off_s, fleet.clocks.off_s, count)
        self.ahead_s = _for_some(rng, fleet.clocks.share, off_s, 0.0)
        zones = np.array(fleet.utc_offset_hours) * 3600.0
        self.zone_s = zones[rng.integers(len(zones), size=count)]

    def __len__(self) -> int:
        return len(self.ids)

    def _draw_presence(self, fleet: Fleet, rng: np.random.Generator) -> None:
        count, lot = len(self.ids), rng.random(len(self.ids))
        self.period_s = np.full(count, _EVER_S)
        self.up_s = np.full(count, _EVER_S)
        self.phase_s = np.zeros(count)
        chance = rng.random(count)
        begin = fleet.offline.share
        self.up_s[lot < begin] = 0.0
        for pattern in (fleet.days, fleet.flapping):
            some = (lot >= begin) & (lot < begin + pattern.share)
            self.period_s[some] = pattern.period_s
            self.up_s[some] = pattern.period_s * pattern.up_share
            self.phase_s[some] = chance[some] * pattern.period_s
            begin += pattern.share

    def up_from(self, devices: Ints, at_s: Floats) -> Floats:
        """Return when devices are there, at a time or as soon as possible after it; infinite for never."""
        return self.up_after(devices, at_s, np.zeros(len(devices)))

    def up_after(self, devices: Ints, at_s: Floats, work_s: Floats) -> Floats:
        """Return when devices have been there for a while since a time, in all; infinite for never.

        Args:
            devices: Numbers, shape (n,).
            at_s: Since when, shape (n,).
            work_s: For how long, shape (n,).
        """
        period_s, up_s = self.period_s[devices], self.up_s[devices]
        with np.errstate(invalid="ignore", divide="ignore"):
            into_s = np.mod(at_s + self.phase_s[devices], period_s)
            is_up = into_s < up_s
            begin_s = np.where(is_up, at_s, at_s + period_s - into_s)
            pauses = np.floor((np.where(is_up, into_s, 0.0) + work_s) / up_s)
            done_s = begin_s + work_s + pauses * (period_s - up_s)
        return np.where((up_s > 0.0) & np.isfinite(at_s), done_s, np.inf)

    def matching(self, target: str | None, field: str = "target") -> Bools:
        """Return which devices a target means.

        Args:
            target: An expression; None for all.
            field: Where it stands, for the refusal.

        Raises:
            InvalidPlan: It asks for what no simulated device has.
        """
        if target is None:
            return np.ones(len(self), dtype=bool)
        parsed = parse_target(target)
        known = {name for kind in self.kinds for name in kind.attributes if name not in SAID}
        asked = operands(parsed)
        names = {operand.name for operand in asked if isinstance(operand, Attribute)}
        unknown = [shown for shown in map(_unanswered, (*asked, *tests(parsed))) if shown]
        if names - known:
            raise InvalidPlan(
                f"{field}: no device has the attribute {min(names - known)!r:.80}.", field=field
            )
        if unknown:
            raise InvalidPlan(
                f"{field}: simulated devices have attributes, hardware and architecture, and nothing else; "
                f"the target asks for {unknown[0]:.80}.",
                remedy="Leave that out, or ask for an attribute that the scenario gives them.",
                field=field,
            )
        test = compile_target(parsed)
        return np.array([test(kind.profile) for kind in self.kinds])[self.kind]

    def strata(self, plan: Plan) -> list[str]:
        """Return the stratum of each kind, as the hub would name it."""
        rows = [kind.row(str(number)) for number, kind in enumerate(self.kinds)]
        names = strata_of(rows, plan, [name for name in self.kinds[0].attributes if name not in SAID])
        return [names[str(number)] for number in range(len(rows))]


def _unanswered(asked: object) -> str:
    """Return what a target asks for that no simulated device has, as it is written; else nothing."""
    match asked:
        case Fact(name) if name in _UNANSWERED:
            return f"`{name.value}`"
        case Tagged(tag):
            return f'`tag("{tag}")`'
        case Drifts(feature):
            return f'`drifts("{feature}")`'
        case Runs(model):
            return f'`runs("{model}")`'
        case VersionOf(model):
            return f'`version("{model}")`'
        case _:
            return ""


def number_of(device_id: str) -> int:
    """Return the number of a device."""
    return int(device_id[len(_PREFIX) :])


def some_devices(devices: Devices, where: str | None) -> Bools:
    """Return which devices a scenario's ``where`` means.

    Raises:
        InvalidPlan: It asks for what no simulated device has.
    """
    try:
        return devices.matching(where, "where")
    except InvalidTarget as error:
        raise InvalidPlan(f"where: {error.message}", remedy=error.remedy) from error


def _kinds(attributes: dict[str, dict[str, float]]) -> tuple[list[Kind], Floats]:
    """Return every combination of values, and its share of the devices.

    Raises:
        InvalidPlan: There are too many.
    """
    count = int(np.prod([float(len(values)) for values in attributes.values()]))
    if not 1 <= count <= MAX_KINDS:
        raise InvalidPlan(f"fleet.attributes: {count:,} combinations of values are not 1 to {MAX_KINDS:,}.")
    kinds, weights = [], []
    for chosen in itertools.product(*(values.items() for values in attributes.values())):
        names = (value for value, _ in chosen)
        kinds.append(Kind(dict(zip(attributes, names, strict=True))))
        weights.append(float(np.prod([weight for _, weight in chosen])))
    shares = np.array(weights)
    return kinds, shares / shares.sum()


def _for_some(rng: np.random.Generator, share: float, values: Floats, otherwise: float) -> Floats:
    return np.where(rng.random(len(values)) < share, values, otherwise)
