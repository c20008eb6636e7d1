"""Plans as files: YAML and JSON alike, and a refusal names line, column, field and reason."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.protocol.errors import InvalidPlan
from fleet.protocol.maintenance import Day, Maintenance
from fleet.rollout.plans.plan import MAX_PLAN_SIZE_BYTES, Membership, Metric
from hub.plan_file import read_plan, read_values

PLAN = """\
# who, when, how far
target: site in ["lyon", "oslo"] and not tag("lab")
membership: continuous
stages:
  - {name: canary, devices: 1%, minimum_devices: 2, minimum_bake_s: 60, maximum_bake_s: 3600}
  - name: lyon
    cohort: site == "lyon"
    minimum_bake_s: 60
    maximum_bake_s: 3600
    approval: true
  - devices: all
    minimum_bake_s: 0
    maximum_bake_s: 3600
devices_per_minute: 600
maintenance: {days: [sat, sun], from: 22:00, to: 02:00}
deployment_timeout_s: 604800
gate:
  metrics:
    - {metric: inference_errors, margin: 0.02, limit: 0.02}
"""


def changed(old: str, new: str) -> str:
    assert PLAN.count(old) == 1
    return PLAN.replace(old, new)


def test_a_plan_in_yaml_is_the_plan_in_json() -> None:
    plan, _ = read_plan(PLAN)
    assert plan.membership is Membership.CONTINUOUS
    assert [stage.devices for stage in plan.stages] == ["1%", None, "all"]
    assert plan.stages[1].approval and plan.stages[1].cohort == 'site == "lyon"'
    assert plan.maintenance == Maintenance(days=(Day.SAT, Day.SUN), from_="22:00", to="02:00")
    assert plan.gate.metrics[0].metric is Metric.INFERENCE_ERRORS
    fields = msgspec.to_builtins(plan)
    assert read_plan(json.dumps(fields))[0] == plan
    assert read_plan(json.dumps(fields, indent="\t"))[0] == plan


BAD = [
    ("Line 5, column 29: Stage 1: devices '101%'", "devices: 1%", "devices: 101%"),
    ("Line 5, column 29: Stage 1: 0 devices would be an empty", "devices: 1%", "devices: 0"),
    ("Line 5, column 50: Stage 1: minimum_devices", "minimum_devices: 2", "minimum_devices: 0"),
    ("Line 9, column 21: Stage 2: maximum_bake_s 1 is below", "3600\n    approval", "1\n    approval"),
    ("Line 7, column 13: stages[1].cohort: ", 'site == "lyon"', 'site = "lyon"'),
    ("Line 2, column 9: target: ", "not tag", "tag tag"),
    ("Line 6, column 5: Stage 2: it needs either", '    cohort: site == "lyon"\n', ""),
    (
        "Line 10, column 15: stages[1].approval: a text stands where true or false belongs.",
        "approval: true",
        "approval: yes",
    ),
    ("Line 14, column 21: devices_per_minute: nan", "minute: 600", "minute: .nan"),
    (
        "Line 14, column 21: devices_per_minute: NaN is not a finite number.",
        "minute: 600",
        "minute: NaN",
    ),
    (
        "Line 14, column 21: devices_per_minute: 1e+300 is not a number from 0.0166667 to 10,000,000.",
        "minute: 600",
        "minute: 1e300",
    ),
    (
        "Line 5, column 29: Stage 1: no rollout has more than 10,000,000 devices.",
        "devices: 1%",
        f"devices: {'9' * 35}",
    ),
    (
        "Line 16, column 23: deployment_timeout_s: 40,000,000 is not a number from 1 to 31,622,400.",
        "604800",
        "40000000",
    ),
    (
        "Line 17, column 36: retries.backoff_s: each wait is twice as long as the one before, so 10 more "
        "tries wait for 32,349,715,200 s in all; no stage waits for more than 31,622,400.",
        "gate:",
        "retries: {attempts: 10, backoff_s: 31622400}\ngate:",
    ),
    ("Line 15, column 21: maintenance.days", "[sat, sun]", "[]"),
    ("Line 15, column 21: maintenance.days: a day is named twice", "[sat, sun]", "[sat, sat]"),
    ("Line 15, column 50: maintenance.to: it ends when it begins", "to: 02:00", "to: 22:00"),
    ("Line 15, column 39: maintenance.from: the text does not have the form", "from: 22:00", "from: 25:00"),
    ("Line 16, column 23: deployment_timeout_s: 3,600 s are over", "604800", "3600"),
    ("Line 14, column 10: we[i.rd: there is no field 'we[i.rd' here.", "devices_per_minute", "we[i.rd"),
    ("Line 19, column 42: gate.metrics, inference_errors: margin", "margin: 0.02", "margin: 2"),
    ("Line 3, column 13: anchors and aliases", "continuous", "&a continuous"),
    ("Line 3, column 13: tags are not read", "continuous", "!!python/name:os.system x"),
    ("Line 3, column 1: the field 'target' stands here twice", "membership", "target"),
    ("Line 3, column 23: the plan is neither YAML nor JSON", "continuous", "continuous: x"),
    ("Line 20, column 1: a plan is one document", "limit: 0.02}\n", "limit: 0.02}\n---\na: 1\n"),
]


@pytest.mark.parametrize(("said", "old", "new"), BAD)
def test_a_refusal_names_line_column_field_and_reason(said: str, old: str, new: str) -> None:
    with pytest.raises(InvalidPlan) as refused:
        read_plan(changed(old, new))
    assert refused.value.message.startswith(said)


def test_json_is_refused_with_its_line_too() -> None:
    fields = msgspec.to_builtins(read_plan(PLAN)[0])
    fields["stages"][0]["devices"] = "0%"
    text = json.dumps(fields, indent="\t")
    line = next(n for n, each in enumerate(text.splitlines(), 1) if '"0%"' in each)
    with pytest.raises(InvalidPlan, match=f"^Line {line}, column [0-9]+: Stage 1: devices '0%'"):
        read_plan(text)


def test_what_json_does_not_have_is_refused_as_the_number_that_it_is_not() -> None:
    fields = msgspec.to_builtins(read_plan(PLAN)[0])
    fields["gate"]["error_budget"] = float("nan")
    with pytest.raises(InvalidPlan, match=r"gate\.error_budget: NaN is not a finite number"):
        read_plan(json.dumps(fields))


def test_scalars_are_read_by_the_core_schema() -> None:
    values, _ = read_values('a: no\nb: 22:00\nc: 0o7\nd: 1e3\ne: "1"\nf: 012\ng: ~\nh: .nan\n<<: x\n')
    assert math.isnan(values.pop("h"))
    assert values == {
        "a": "no",
        "b": "22:00",
        "c": "0o7",
        "d": 1000.0,
        "e": "1",
        "f": 12,
        "g": None,
        "<<": "x",
    }


@pytest.mark.parametrize(
    "text", ["", "# nothing", "[]", "null", "3", "\x00", "a: \ud800", "- " * 5000, "{" * 5000, "? [a]\n: b"]
)
def test_what_is_no_plan_is_refused(text: str) -> None:
    with pytest.raises(InvalidPlan):
        read_plan(text)


def test_a_plan_too_long_is_not_read() -> None:
    with pytest.raises(InvalidPlan, match="bytes"):
        read_plan(PLAN + "#" * MAX_PLAN_SIZE_BYTES)


def test_a_bomb_of_aliases_is_refused_before_it_grows() -> None:
    with pytest.raises(InvalidPlan, match="anchors"):
        read_plan("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n")


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        read_values(text)
    except InvalidPlan:
        return


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=40)
@given(st.dictionaries(st.text(), JSON, max_size=4), st.sampled_from([None, 2, "\t"]))
def test_json_keeps_its_values(value: Any, indent: int | str | None) -> None:
    try:
        assert read_values(json.dumps(value, indent=indent))[0] == value
    except InvalidPlan as error:
        assert "Line" in error.message or "neither" in error.message  # nested deeper than any plan
