"""Plans: what is understood, and what is refused with its place and reason."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fleet.protocol.errors import InvalidPlan
from fleet.rollout.engine import create
from fleet.rollout.gates.groups import LEAST_DEVICES
from fleet.rollout.plans.checks import check_plan
from fleet.rollout.plans.fit import check_members
from fleet.rollout.plans.plan import (
    Gate,
    Membership,
    Metric,
    MetricGate,
    Plan,
    Stage,
    default_plan,
    rollback_plan,
    share_of,
)
from fleet.rollout.plans.reading import plan_of
from fleet.rollout.state.rollout import CauseCode, Kind
from fleet.rollout.targeting import cohort_ends


def written() -> dict[str, Any]:
    return {
        "stages": [
            {"devices": 1, "minimum_bake_s": 2, "maximum_bake_s": 60},
            {"devices": "50%", "minimum_bake_s": 2, "maximum_bake_s": 60},
            {"devices": "all", "minimum_bake_s": 2, "maximum_bake_s": 60},
        ],
        "gate": {
            "error_budget": 0.01,
            "maximum_failed_share": 0.05,
            "metrics": [
                {"metric": "label_errors", "margin": 0.1, "limit": 0.3, "minimum_samples": 50},
                {"metric": "unsure", "margin": 0.2, "limit": 0.5, "threshold": 0.35},
                {"metric": "slow", "margin": 0.1, "limit": 0.2, "budget_us": 20000},
            ],
        },
        "deployment_timeout_s": 60,
        "on_inconclusive": "roll_back",
    }


def decoded(fields: dict[str, Any]) -> Plan:
    return plan_of(fields)


def test_a_plan_is_read_as_it_is_written_and_back() -> None:
    plan = decoded(written())
    assert [stage.devices for stage in plan.stages] == [1, "50%", "all"]
    assert plan.gate.metrics[1].threshold == 0.35
    assert plan_of(msgspec.to_builtins(plan)) == plan


BAD: list[tuple[str, list[str | int], Any]] = [
    ("Stage 2: devices '101%'", ["stages", 1, "devices"], "101%"),
    ("Stage 1: devices '0%'", ["stages", 0, "devices"], "0%"),
    ("Stage 1: devices 'half'", ["stages", 0, "devices"], "half"),
    ("Stage 1: devices '-5%'", ["stages", 0, "devices"], "-5%"),
    ("Stage 1: devices 'nan%'", ["stages", 0, "devices"], "nan%"),
    ("Stage 1: devices '1e1%'", ["stages", 0, "devices"], "1e1%"),
    ("Stage 1: devices '٥%'", ["stages", 0, "devices"], "٥%"),
    ("Stage 1: 0 devices would be an empty stage", ["stages", 0, "devices"], 0),
    ("Stage 1: -1 devices would be an empty stage", ["stages", 0, "devices"], -1),
    ("Stage 2: 1 adds nobody", ["stages", 1, "devices"], 1),
    ("Stage 3: 40% adds nobody", ["stages", 2, "devices"], "40%"),
    ("Stage 3: 50% adds nobody", ["stages", 2, "devices"], "50%"),
    ("Stage 3: the last stage must reach all", ["stages", 2, "devices"], "90%"),
    (r"stages\[1\].devices", ["stages", 1, "devices"], 0.5),
    (r"stages\[1\].devices", ["stages", 1, "devices"], True),
    ("Stage 2: it needs either devices or a cohort", ["stages", 1, "devices"], None),
    ("Stage 1: minimum_bake_s", ["stages", 0, "minimum_bake_s"], -1),
    ("Stage 1: maximum_bake_s", ["stages", 0, "maximum_bake_s"], 1e12),
    ("Stage 1: maximum_bake_s 1 is below", ["stages", 0, "maximum_bake_s"], 1),
    ("0 stages", ["stages"], []),
    ("33 stages", ["stages"], [{"devices": i, "minimum_bake_s": 0, "maximum_bake_s": 0} for i in range(33)]),
    ("deployment_timeout_s", ["deployment_timeout_s"], 0),
    ("shadow_s", ["shadow_s"], -1),
    ("shadow_s", ["shadow_s"], 0.5),
    ("shadow_s: 604,801", ["shadow_s"], 7 * 86400 + 1),
    ("on_inconclusive", ["on_inconclusive"], "promote"),
    ("gate.error_budget", ["gate", "error_budget"], 0),
    ("gate.error_budget", ["gate", "error_budget"], 1),
    ("gate.maximum_failed_share", ["gate", "maximum_failed_share"], -0.1),
    ("gate.maximum_failed_share: 1 would let", ["gate", "maximum_failed_share"], 1),
    ("label_errors: margin", ["gate", "metrics", 0, "margin"], 0),
    ("label_errors: margin", ["gate", "metrics", 0, "margin"], 1),
    ("label_errors: limit", ["gate", "metrics", 0, "limit"], 1.5),
    (
        "label_errors: minimum_samples: 0 is not a number from 1 to 1,000,000,000",
        ["gate", "metrics", 0, "minimum_samples"],
        0,
    ),
    ("label_errors: budget_us", ["gate", "metrics", 0, "budget_us"], 5),
    ("label_errors: threshold", ["gate", "metrics", 0, "threshold"], 0.5),
    ("unsure: threshold 0.33", ["gate", "metrics", 1, "threshold"], 0.33),
    ("unsure: threshold 0 ", ["gate", "metrics", 1, "threshold"], 0),
    ("unsure: threshold belongs", ["gate", "metrics", 1, "threshold"], None),
    ("slow: budget_us belongs", ["gate", "metrics", 2, "budget_us"], None),
    ("slow: budget_us", ["gate", "metrics", 2, "budget_us"], 0),
    ("slow: budget_us", ["gate", "metrics", 2, "budget_us"], 1e300),
    (r"gate.metrics\[0\].metric", ["gate", "metrics", 0, "metric"], "vibes"),
    ("judged twice", ["gate", "metrics", 2], {"metric": "label_errors", "margin": 0.2, "limit": 0.2}),
    (
        "gate.metrics: 33 metrics; no gate judges more than 32",
        ["gate", "metrics"],
        [{"metric": "input_drift", "feature": f"input.{i}", "margin": 0.1} for i in range(33)],
    ),
    ("there is no field 'pause' here", ["pause"], True),
    ("there is no field 'bake_s' here", ["stages", 0, "bake_s"], 5),
    ("there is no field 'budget' here", ["gate", "budget"], 5),
    ("there is no field 'minimum' here", ["gate", "metrics", 0, "minimum"], 5),
]


@pytest.mark.parametrize(("said", "place", "value"), BAD)
def test_what_cannot_be_understood_is_refused_with_its_place(
    said: str, place: list[str | int], value: Any
) -> None:
    fields = written()
    target: Any = fields
    for key in place[:-1]:
        target = target[key]
    target[place[-1]] = value
    with pytest.raises(InvalidPlan, match=said):
        decoded(fields)


@pytest.mark.parametrize(
    "values", [None, "", {}, [], 1.5, {"stages": math.nan}, {"stages": [[[]]]}, {1: 2}], ids=repr
)
def test_what_is_not_a_plan_is_refused(values: Any) -> None:
    with pytest.raises(InvalidPlan):
        plan_of(values)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_none_are_refused_in_plans_made_by_code(bad: float) -> None:
    metric = MetricGate(metric=Metric.LABEL_ERRORS, margin=0.1, limit=0.2)
    stage = Stage(devices="all", minimum_bake_s=0.0, maximum_bake_s=1.0)
    for stages, gate, timeout_s in [
        ((Stage(devices="all", minimum_bake_s=bad, maximum_bake_s=1.0),), Gate(), 60.0),
        ((Stage(devices="all", minimum_bake_s=0.0, maximum_bake_s=bad),), Gate(), 60.0),
        ((stage,), Gate(error_budget=bad), 60.0),
        ((stage,), Gate(maximum_failed_share=bad), 60.0),
        ((stage,), Gate(metrics=(MetricGate(metric=metric.metric, margin=bad, limit=0.2),)), 60.0),
        ((stage,), Gate(metrics=(MetricGate(metric=metric.metric, margin=0.1, limit=bad),)), 60.0),
        (
            (stage,),
            Gate(metrics=(MetricGate(metric=Metric.UNSURE, margin=0.1, limit=0.1, threshold=bad),)),
            60.0,
        ),
        (
            (stage,),
            Gate(metrics=(MetricGate(metric=Metric.SLOW, margin=0.1, limit=0.1, budget_us=bad),)),
            60.0,
        ),
        ((stage,), Gate(), bad),
    ]:
        with pytest.raises(InvalidPlan):
            check_plan(Plan(stages=stages, gate=gate, deployment_timeout_s=timeout_s))


@pytest.mark.parametrize(
    ("days", "hours"), [(["mon", "tue", "wed", "thu", "fri", "sat", "sun"], 46), (["sun"], 2 * (7 * 24 - 1))]
)
def test_a_deployment_outlives_a_window_that_summer_time_leaves_out(days: list[str], hours: int) -> None:
    window = {"days": days, "from": "02:00", "to": "03:00"}
    fields = {**written(), "maintenance": window, "deployment_timeout_s": hours * 3600}
    with pytest.raises(InvalidPlan, match="stays closed for up to") as refused:
        check_plan(plan_of(fields))
    assert refused.value.field == "deployment_timeout_s"
    check_plan(plan_of({**fields, "deployment_timeout_s": hours * 3600 + 1}))


@pytest.mark.parametrize(
    "place", ["devices", "minimum_devices", "priority", "shadow_s", "concurrency", "minimum_samples"]
)
@pytest.mark.parametrize("sign", [1, -1])
def test_whole_numbers_beyond_all_floats_are_refused(place: str, sign: int) -> None:
    fields, number = written(), sign * 10**400
    if place == "minimum_samples":
        fields["gate"]["metrics"][0][place] = number
    else:
        (fields["stages"][0] if place.endswith("devices") else fields)[place] = number
    with pytest.raises(InvalidPlan) as refused:
        plan_of(fields)
    assert refused.value.field.endswith(place)
    assert len(refused.value.message) < 200


@pytest.mark.parametrize(
    ("text", "share"),
    [("all", 1.0), ("100%", 1.0), ("12.5%", 0.125), ("%", None), (".%", None), ("5", None), ("5 %", None)],
)
def test_shares(text: str, share: float | None) -> None:
    assert share_of(text) == share


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 10, 11, 99, 100, 101, 190, 191, 5000])
def test_the_default_plan_fits_every_fleet(count: int) -> None:
    plan = default_plan(count)
    check_plan(plan)
    assert cohort_ends(plan.stages, count)[-1] == count
    devices: dict[str, int | None] = {f"d{i}": 1 for i in range(count)}
    create(
        number=1, kind=Kind.UPDATE, model="m", version=2, manifest_sha256="a" * 64, plan=plan, seed=1,
        devices=devices, now_s=0.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("count", "ends"),
    [
        (12, (1, 2, 6, 12)),
        (99, (1, 10, 50, 95, 99)),
        (100, (10, 50, 95, 100)),
        (190, (10, 95, 181, 190)),
        (200, (10, 20, 100, 190, 200)),
        (5000, (10, 500, 2500, 4750, 5000)),
    ],
)
def test_the_default_plan_of_a_large_fleet_begins_with_devices_of_which_one_may_lie(
    count: int, ends: tuple[int, ...]
) -> None:
    assert cohort_ends(default_plan(count).stages, count) == ends
    assert count < 100 or ends[0] >= LEAST_DEVICES


@pytest.mark.parametrize(
    ("target", "membership", "matching", "running", "said"),
    [
        (
            "all",
            Membership.SNAPSHOT,
            0,
            0,
            "target: no device matches, and a snapshot takes in nobody later.",
        ),
        ("all", Membership.CONTINUOUS, 0, 0, "target: no device matches; a continuous rollout takes in more"),
        (None, Membership.CONTINUOUS, 0, 0, "There is no device to bring version 4 to."),
        ("all", Membership.CONTINUOUS, 12, 12, "target: All 12 matching devices run version 4 already."),
        ("all", Membership.SNAPSHOT, 1, 1, "target: The one matching device runs version 4 already."),
        (None, Membership.SNAPSHOT, 1200, 1200, "All 1,200 devices run version 4 already."),
    ],
)
def test_a_plan_for_nobody_is_refused_with_what_is_true(
    target: str | None, membership: Membership, matching: int, running: int, said: str
) -> None:
    plan = msgspec.structs.replace(default_plan(3), target=target, membership=membership)
    with pytest.raises(InvalidPlan) as refused:
        check_members(plan, 4, matching, running)
    assert refused.value.message.startswith(said)
    assert refused.value.field == ("" if target is None else "target")
    assert "continuous" not in refused.value.remedy
    check_members(plan, 4, 12, 11)


def test_the_rollback_plan_is_valid_and_reaches_all() -> None:
    check_plan(rollback_plan())
    assert cohort_ends(rollback_plan().stages, 5) == (5,)


@pytest.mark.parametrize(
    ("devices", "count", "said"),
    [
        ([9, "all"], 8, "Stage 1: 9 devices are asked for; the rollout has 8"),
        ([1, "50%", "all"], 2, "Stage 2: 50% of 2 devices are 1, which adds nobody"),
        ([1, "all"], 1, "Stage 2"),
        (["50%", 4, "all"], 8, "Stage 2"),
        ([4], 8, "the last stage reaches 4 of 8"),
    ],
)
def test_stages_that_do_not_fit_the_devices_are_refused(
    devices: list[int | str], count: int, said: str
) -> None:
    stages = tuple(Stage(devices=d, minimum_bake_s=0.0, maximum_bake_s=1.0) for d in devices)
    with pytest.raises(InvalidPlan, match=said):
        cohort_ends(stages, count)


def test_shares_round_up_to_whole_devices_and_no_further() -> None:
    stages = tuple(Stage(devices=d, minimum_bake_s=0.0, maximum_bake_s=1.0) for d in ("7%", "50%", "all"))
    assert cohort_ends(stages, 100) == (7, 50, 100)
    assert cohort_ends(stages, 9) == (1, 5, 9)


REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "rollouts.md"


def test_the_plan_in_the_reference_is_a_plan() -> None:
    shown = re.search(r"```json\n(.*?)```", REFERENCE.read_text(encoding="utf-8"), re.DOTALL)
    assert shown is not None
    assert len(plan_of(json.loads(shown[1])).stages) == 3


def test_the_reference_explains_every_cause() -> None:
    text = REFERENCE.read_text(encoding="utf-8")
    explained = set(re.findall(r"^\| `([a-z_]+)` \| (?:rollout|deployment) \|", text, re.MULTILINE))
    assert explained == {code.value for code in CauseCode}
