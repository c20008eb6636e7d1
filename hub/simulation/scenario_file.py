"""Reading a scenario's text, YAML or JSON, with line and column of what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from fleet.protocol.errors import InvalidConfiguration, InvalidPlan, InvalidTarget
from fleet.rollout.plans.plan import MAX_PLAN_SIZE_BYTES
from fleet.rollout.plans.reading import refused_by_type
from fleet.rollout.plans.refusals import refused_target
from fleet.targets.evaluation import compile_target
from fleet.targets.parser import parse_target
from hub.plan_file import placing, read_values
from hub.simulation.ready import READY
from hub.simulation.scenario import Scenario


def find_scenario(name: str) -> Scenario:
    """Return the ready scenario of that name, or else the one in that file.

    Raises:
        InvalidConfiguration: There is neither, or the file is refused.
    """
    ready = READY.get(name)
    if ready is not None:
        return ready
    try:
        with Path(name).open("rb") as stream:
            data = stream.read(MAX_PLAN_SIZE_BYTES + 1)
        return read_scenario(data.decode("utf-8"))
    except FileNotFoundError as error:
        raise InvalidConfiguration(
            f"There is no scenario {name!r:.80}, and no file of that name.",
            remedy=f"Ready are: {', '.join(READY)}.",
        ) from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InvalidConfiguration(f"The scenario {name!r:.80} cannot be read: {reason}.") from error


def read_scenario(text: str) -> Scenario:
    """Return the scenario in a text, checked.

    Raises:
        InvalidConfiguration: The message names line and column, the field and the reason.
    """
    try:
        values, marks = read_values(text)
        with placing(marks):
            return _checked(values)
    except InvalidPlan as error:
        raise InvalidConfiguration(f"Scenario: {error.message}", remedy=error.remedy) from error


def _checked(values: Any) -> Scenario:
    try:
        scenario = msgspec.convert(values, Scenario)
    except (msgspec.ValidationError, RecursionError) as error:
        raise refused_by_type(error, Scenario, values) from error
    for field, where in _targets(scenario):
        try:
            compile_target(parse_target(where))
        except InvalidTarget as error:
            raise refused_target(field, error) from error
    times = [deed.at_s for deed in scenario.operators]
    if times != sorted(times):
        raise InvalidPlan("operators: they do not stand in the order of their times.", field="operators")
    ends = 0.0
    for number, away in enumerate(scenario.hub_away):
        if away.at_s < ends:
            raise InvalidPlan("hub_away: it overlaps the one before.", field=f"hub_away[{number}]")
        ends = away.at_s + away.duration_s
    gone = scenario.fleet.offline.share + scenario.fleet.days.share + scenario.fleet.flapping.share
    if gone > 1.0:
        raise InvalidPlan(
            f"fleet: offline, days and flapping exclude each other; their shares are {gone:g} together.",
            field="fleet",
        )
    if not scenario.fleet.utc_offset_hours:
        raise InvalidPlan("fleet.utc_offset_hours: there is no zone in it.", field="fleet.utc_offset_hours")
    return scenario


def _targets(scenario: Scenario) -> list[tuple[str, str]]:
    found = [(f"harm[{n}].where", harm.where) for n, harm in enumerate(scenario.harm)]
    failures = scenario.version.failures
    found += [(f"version.failures[{n}].where", failure.where) for n, failure in enumerate(failures)]
    return [(field, where) for field, where in found if where is not None]
