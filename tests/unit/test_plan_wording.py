"""What a decoder refuses is told in words: what stands there, what belongs there, what was meant."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from fleet.rollout.plans.plan import Plan
from fleet.rollout.plans.wording import Refusal, refusal
from hub.simulation.scenario import Scenario

STAGE: dict[str, Any] = {"devices": "all", "minimum_bake_s": 0, "maximum_bake_s": 1}
METRIC: dict[str, Any] = {"metric": "unsure"}


def refused(kind: type, values: Any) -> Refusal:
    with pytest.raises(msgspec.ValidationError) as error:
        msgspec.convert(values, kind)
    return refusal(str(error.value), kind, values)


PLAN: dict[str, Any] = {"stages": [STAGE], "gate": {"metrics": [METRIC]}}
SAID = [
    ({"priority": "high"}, Refusal("a text stands where a whole number belongs", "priority")),
    ({"priority": 1.5}, Refusal("a number with a fraction stands where a whole number belongs", "priority")),
    ({"priority": 1e35}, Refusal("1e+35 is too large", "priority")),
    ({"priority": float("inf")}, Refusal("the number is infinite, or too large", "priority")),
    ({"priority": float("nan")}, Refusal("NaN is not a finite number", "priority")),
    ({"priority": 100.0}, Refusal("write 100, not 100.0, for a whole number", "priority")),
    ({"deployment_timeout_s": "NaN"}, Refusal("NaN is not a finite number", "deployment_timeout_s")),
    (
        {"stages": [STAGE, {**STAGE, "minimum_bake_s": "-Infinity"}]},
        Refusal("-Infinity is not a finite number", "stages[1].minimum_bake_s"),
    ),
    ({"concurrency": "x"}, Refusal("a text stands where a whole number belongs", "concurrency")),
    ({"gate": None}, Refusal("nothing stands where a mapping of fields belongs", "gate")),
    ({"retries": 3}, Refusal("a whole number stands where a mapping of fields belongs", "retries")),
    (
        {"stages": [{**STAGE, "devices": True}]},
        Refusal("true or false stands where a whole number or a text belongs", "stages[0].devices"),
    ),
    ({"stages": [{"devices": 1}]}, Refusal("the field 'minimum_bake_s' is missing", "stages[0]")),
    (
        {"mode": "hard"},
        Refusal("'hard' cannot stand here", "mode", "Possible: soft, forced."),
    ),
    (
        {"maintenance": {"days": ["monday"], "from": "01:00", "to": "02:00"}},
        Refusal(
            "'monday' cannot stand here",
            "maintenance.days[0]",
            "Did you mean mon? Possible: mon, tue, wed, thu, fri, sat, sun.",
        ),
    ),
    (
        {"maintenance": {"days": ["mon"], "from": "25:00", "to": "02:00"}},
        Refusal(
            "the text does not have the form that belongs here",
            "maintenance.from",
            "A time on the clock on the wall, 00:00 to 24:00.",
        ),
    ),
    (
        {"retries": {"attempt": 3}},
        Refusal(
            "there is no field 'attempt' here",
            "retries.attempt",
            "Did you mean attempts? Possible: attempts, backoff_s.",
        ),
    ),
]


@pytest.mark.parametrize(("values", "said"), SAID)
def test_a_plan_is_refused_in_words(values: dict[str, Any], said: Refusal) -> None:
    assert refused(Plan, {**PLAN, **values}) == said


def test_a_bound_of_a_scenario_is_told_in_words() -> None:
    assert refused(Scenario, {"tick_s": 0}) == Refusal("a number of at least 1.0 belongs here", "tick_s")


def test_what_is_new_to_us_is_passed_on() -> None:
    assert refusal("Something else - at `$.gate`", Plan) == Refusal("Something else", "gate")
