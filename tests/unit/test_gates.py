"""Verdicts: what passes, what fails, what is left open, and the sentences."""

from __future__ import annotations

import msgspec
import pytest

from fleet.rollout.gates.comparison import Basis
from fleet.rollout.gates.evidence import Arm, Evidence, Tally
from fleet.rollout.gates.gate import Outcome, Verdict, judge
from fleet.rollout.plans.plan import Metric, MetricGate, Plan
from tests.support.rollouts import plan

LABELS = MetricGate(metric=Metric.LABEL_ERRORS, margin=0.1, limit=0.3)
ERRORS = MetricGate(metric=Metric.INFERENCE_ERRORS, margin=0.02, limit=0.02)
FOUR = (
    LABELS,
    ERRORS,
    MetricGate(metric=Metric.UNSURE, margin=0.2, limit=0.5, threshold=0.5),
    MetricGate(metric=Metric.SLOW, margin=0.1, limit=0.2, budget_us=20_000.0),
)


def arm(*tallies: tuple[int, int], devices: int = 1, unusable: int = 0, windows: int = 5) -> Arm:
    return Arm(devices, windows, unusable, tuple(Tally(*t) for t in tallies))


def verdict(canary: Arm, control: Arm, the_plan: Plan | None = None, *, has_control: bool = True) -> Verdict:
    return judge(
        the_plan or plan(), (Evidence(canary, control),), has_control=has_control, heard=1, expected=1
    )


def test_harm_is_said_with_the_numbers_that_show_it() -> None:
    said = verdict(arm((570, 800)), arm((168, 5600), devices=7))
    assert said.outcome is Outcome.FAIL
    assert said.sentence == (
        "FAIL: label errors 71.2% of 800 on 1 canary against 3.0% of 5,600 on 7 controls; "
        "e-value over a million ≥ 300"
    )
    assert said.metrics[0].harm > 1e100
    assert said.metrics[0].needed == pytest.approx(300.0)


def test_the_sentence_says_the_evidence_that_was_enough() -> None:
    said = verdict(arm((38, 120)), arm((168, 5600), devices=7))
    assert said.outcome is Outcome.FAIL
    assert said.sentence == (
        "FAIL: label errors 31.7% of 120 on 1 canary against 3.0% of 5,600 on 7 controls; "
        f"e-value {said.metrics[0].harm:,.0f} ≥ 300"
    )


def test_a_harmless_version_passes_on_five_seconds_of_the_demo() -> None:
    said = verdict(arm((15, 500)), arm((105, 3500), devices=7))
    assert said.outcome is Outcome.PASS
    assert said.metrics[0].safety >= said.metrics[0].needed
    assert "margin 10.0 points, e-value" in said.sentence


def test_four_metrics_pass_on_five_seconds_of_the_demo() -> None:
    canary = arm((15, 500), (0, 500), (40, 500), (5, 500))
    control = arm((105, 3500), (0, 3500), (280, 3500), (35, 3500), devices=7)
    said = verdict(canary, control, plan(metrics=(FOUR[0], *FOUR[2:])))
    assert said.outcome is Outcome.PASS


def test_a_version_with_most_labels_wrong_fails_on_one_second_of_the_demo() -> None:
    assert verdict(arm((70, 100)), arm((21, 700), devices=7)).outcome is Outcome.FAIL


def test_a_difference_within_the_margin_never_fails_however_certain() -> None:
    said = verdict(arm((90_000, 1_000_000)), arm((30_000, 1_000_000)))
    assert said.metrics[0].harm < 1.0
    assert said.outcome is Outcome.PASS


def test_a_difference_at_the_margin_stays_open() -> None:
    assert verdict(arm((1300, 10_000)), arm((300, 10_000))).outcome is Outcome.INCONCLUSIVE


@pytest.mark.parametrize(
    ("canary", "control"), [((99, 99), (0, 5000)), ((500, 500), (0, 99)), ((0, 0), (0, 0))]
)
def test_too_few_samples_on_either_side_say_nothing(
    canary: tuple[int, int], control: tuple[int, int]
) -> None:
    said = verdict(arm(canary), arm(control))
    assert said.outcome is Outcome.INCONCLUSIVE
    assert "each side needs 100" in said.sentence


def test_the_worst_metric_decides_and_is_named() -> None:
    two = plan(metrics=(LABELS, ERRORS))
    good, bad, open_ = (15, 5000), (3500, 5000), (0, 50)
    control = arm((15, 5000), (15, 5000))
    assert verdict(arm(good, (0, 5000)), control, two).outcome is Outcome.PASS
    failed = verdict(arm(good, bad), control, two)
    assert failed.outcome is Outcome.FAIL
    assert "inference errors" in failed.sentence
    assert "label errors" not in failed.sentence
    assert verdict(arm(good, open_), control, two).outcome is Outcome.INCONCLUSIVE
    assert verdict(arm(open_, bad), control, two).outcome is Outcome.FAIL


def test_without_any_control_the_limit_decides() -> None:
    for bad, outcome in [(15, Outcome.PASS), (350, Outcome.FAIL), (150, Outcome.INCONCLUSIVE)]:
        said = verdict(arm((bad, 500)), arm((0, 0), devices=0), has_control=False)
        assert said.metrics[0].basis is Basis.LIMIT
        assert said.outcome is outcome
        assert "no control" in said.sentence


def test_once_everybody_is_a_canary_the_earlier_controls_count() -> None:
    stages = (
        Evidence(arm((15, 500)), arm((15, 500), devices=7)),
        Evidence(arm((15, 500)), arm((15, 500), devices=4)),
        Evidence(arm((350, 500), devices=8), arm((0, 0), devices=0)),
    )
    said = judge(plan(), stages, has_control=False, heard=1, expected=1)
    assert said.outcome is Outcome.FAIL
    assert said.metrics[0].basis is Basis.EARLIER
    assert said.metrics[0].control == Tally(30, 1000)
    assert "on 7 controls during the earlier stages" in said.sentence


def test_earlier_controls_that_said_too_little_leave_the_limit() -> None:
    stages = (
        Evidence(arm((15, 500)), arm((1, 99), devices=7)),
        Evidence(arm((15, 500), devices=8), arm((0, 0), devices=0)),
    )
    assert judge(plan(), stages, has_control=False, heard=1, expected=1).metrics[0].basis is Basis.LIMIT


def test_controls_that_are_silent_are_waited_for() -> None:
    said = verdict(arm((15, 500)), arm((0, 0), devices=0), has_control=True)
    assert said.outcome is Outcome.INCONCLUSIVE
    assert said.metrics[0].basis is Basis.CONCURRENT


def test_mostly_nonsense_is_an_error_unless_harm_is_shown_anyway() -> None:
    control = arm((15, 5000))
    assert verdict(arm((15, 5000), unusable=6), control).outcome is Outcome.ERROR
    assert verdict(arm((15, 5000), unusable=5), control).outcome is Outcome.PASS
    assert verdict(arm((0, 0), unusable=2, windows=0), control).outcome is Outcome.INCONCLUSIVE
    assert verdict(arm((4000, 5000), unusable=6), control).outcome is Outcome.FAIL


@pytest.mark.parametrize("tally", [(6, 5), (-1, 5), (0, -1)])
def test_stored_evidence_that_cannot_be_is_an_error(tally: tuple[int, int]) -> None:
    assert verdict(arm(tally), arm((15, 5000))).outcome is Outcome.ERROR
    assert verdict(arm((15, 5000)), arm(tally)).outcome is Outcome.ERROR


def test_more_stages_and_metrics_make_each_verdict_harder_to_reach() -> None:
    canary, control = arm((15, 500)), arm((105, 3500))
    few = verdict(canary, control, plan("all")).metrics[0]
    many = verdict(canary, control, plan(1, 2, 3, 4, 5, "all")).metrics[0]
    assert many.needed == pytest.approx(6 * few.needed)
    assert (many.harm, many.safety) == (few.harm, few.safety)


def test_a_verdict_is_stored_without_loss() -> None:
    said = verdict(arm((570, 800)), arm((168, 5600)))
    assert msgspec.json.decode(msgspec.json.encode(said), type=Verdict) == said


def test_a_stage_does_not_pass_while_most_of_its_devices_are_silent() -> None:
    evidence = (Evidence(arm((15, 500)), arm((105, 3500), devices=7)),)
    silent = judge(plan(), evidence, has_control=True, heard=1, expected=4)
    assert silent.outcome is Outcome.INCONCLUSIVE
    assert "1 of the stage's 4 devices" in silent.sentence
    assert judge(plan(), evidence, has_control=True, heard=2, expected=4).outcome is Outcome.PASS
    harmful = (Evidence(arm((400, 500)), arm((105, 3500), devices=7)),)
    assert judge(plan(), harmful, has_control=True, heard=0, expected=4).outcome is Outcome.FAIL
