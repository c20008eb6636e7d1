"""What is found in drift, rollouts, devices and the hub; and the commands that alerts state are commands."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pytest
import typer.main
from typer.core import TyperGroup

from fleet.alerts import commands
from fleet.alerts.alert import KINDS, Finding, Severity
from fleet.alerts.found import rollouts
from fleet.alerts.found.concept import ConceptDrift, concept_finding
from fleet.alerts.found.devices import (
    UnwellDevices,
    offline_finding,
    quarantine_finding,
    throttled_finding,
    unhealthy_finding,
)
from fleet.alerts.found.drift import by_cause, drift_finding
from fleet.alerts.found.hub import HubFacts, hub_findings
from fleet.alerts.found.revoked import RevokedVersion, revoked_finding
from fleet.alerts.thresholds import Thresholds
from fleet.drift.affected import SharedTrait
from fleet.drift.fleet_alarms import FleetAlarm
from fleet.protocol.board import BoardWindow, Gauge
from fleet.protocol.errors import Cause
from fleet.quality.concept import ConceptState
from fleet.rollout.engine import step
from fleet.rollout.events import Abort, Approve, Pause, Revoke, Start
from fleet.rollout.state.rollout import Kind, Rollout, Status
from hub.cli.app import app
from tests.support.stores import new_rollout

RULES = Thresholds()
RAISED = ConceptState(looks=3, raised=True, last_labelled=40, last_wrong=17)
HOT = BoardWindow(1.0, 61.0, 6, 4, Gauge.of([81_200, 84_500]))
SHARED = SharedTrait({"camera": "cam-b"}, holders=2, affected=2, other_holders=0, others=8, p=0.02)


def _alarm(devices: int, *, feature: str = "input.mean", versions: tuple[int, ...] = (4,)) -> FleetAlarm:
    names = tuple(f"cam-{number:02}" for number in range(devices))
    return FleetAlarm(
        model="digits",
        feature=feature,
        versions=versions,
        devices=names,
        of_devices=10,
        since_s=None,
        until_s=None,
        strongest=names[-1],
        evidence=f"{feature}: 71.0% of 300 values below 0.2, in the reference 4.0%",
        shared=(SHARED,),
    )


def _drift(alarm: FleetAlarm, previous: int | None = 3) -> Finding:
    return _drifting([alarm], previous)


def _drifting(
    alarms: Sequence[FleetAlarm], previous: int | None = 3, by_version: Mapping[int, int] | None = None
) -> Finding:
    running = by_version or {4: 10}
    return drift_finding(alarms, previous=lambda *_: previous, by_version=running, thresholds=RULES)


def _of_rollout(rollout: Rollout, now_s: float, previous: int | None = 1) -> Finding | None:
    return rollouts.rollout_finding(rollout, now_s, previous=lambda *_: previous, thresholds=RULES)


def _paused(by_operator: bool) -> Rollout:
    started = step(new_rollout(7), Start(by="ana"), 2.0)[0]
    if by_operator:
        return step(started, Pause(by="ana", reason="lunch"), 3.0)[0]
    return msgspec.structs.replace(
        started, status=Status.PAUSED, pause_reason="Stage 1: too little was observed."
    )


def _awaiting() -> Rollout:
    new = new_rollout(7)
    stages = tuple(msgspec.structs.replace(stage, approval=True) for stage in new.plan.stages)
    asking = msgspec.structs.replace(new, plan=msgspec.structs.replace(new.plan, stages=stages))
    return step(asking, Start(by="ana"), 2.0)[0]


def _ended(status: Status, *, kind: Kind = Kind.UPDATE, code: str = "gate_failed") -> Rollout:
    started = step(new_rollout(7), Start(by="ana"), 2.0)[0]
    return msgspec.structs.replace(
        started, kind=kind, status=status, cause=Cause(code, "Too many errors."), ended_s=10.0
    )


def _all_findings() -> list[Finding]:
    unwell = UnwellDevices(6, {"cam-01": "not connected"})
    found = [
        _drift(_alarm(2)),
        _drift(_alarm(8, feature="output.class")),
        concept_finding(ConceptDrift("digits", 4, RAISED, {}, 10), RULES),
        concept_finding(ConceptDrift("digits", 4, None, {"cam-01": RAISED}, 10), RULES),
        revoked_finding(RevokedVersion("digits", 4, "ann revoked it: It leaks.", 3, {4: 2}), RULES),
        revoked_finding(RevokedVersion("digits", 4, "ann revoked it: It leaks.", 3, {4: 1, 5: 2}), RULES),
        revoked_finding(RevokedVersion("digits", 4, "ann revoked it: It leaks.", None, {4: 1}), RULES),
        _of_rollout(_paused(by_operator=False), 5.0),
        _of_rollout(_awaiting(), 5.0),
        *(
            _of_rollout(_ended(status, kind=kind), 20.0)
            for status in (Status.ROLLED_BACK, Status.FAILED)
            for kind in Kind
        ),
        offline_finding(unwell, 10, RULES),
        unhealthy_finding(UnwellDevices(3, {}), 10, RULES),
        throttled_finding({"cam-01": HOT}, 2, 10, RULES),
        quarantine_finding({"cam-01": "in quarantine for 600 s"}, RULES),
        *hub_findings(HubFacts(False, refused=50, taken=7, backlog=10**6), RULES),
    ]
    return [finding for finding in found if finding is not None]


FOUND = _all_findings()


def test_every_rule_finds_something_of_a_known_kind() -> None:
    assert {finding.matter.kind for finding in FOUND} == set(KINDS)


@pytest.mark.parametrize("finding", FOUND, ids=lambda finding: finding.matter.title)
def test_every_finding_has_evidence_and_commands_that_can_be_run(finding: Finding) -> None:
    assert finding.matter.evidence
    assert all(finding.matter.evidence)
    assert finding.matter.sentence.endswith((".", "%)."))
    for line in (finding.matter.command, finding.matter.inspect):
        _parse(line)


@pytest.mark.parametrize(
    "line",
    [
        commands.fleet_health(),
        commands.fleet_alarms("digits"),
        commands.fleet_quality("digits", by="device"),
        commands.device_list(),
        commands.device_show("cam-03"),
        commands.device_lift_quarantine("cam-03"),
        commands.rollback("digits", 3, 'it\'s "odd"; $(rm -rf /) `x`\n--to 9'),
        commands.rollout_status(7),
        commands.rollout_explain(7),
        commands.rollout_approve(7, 2),
        commands.rollout_abort(7, "--help"),
    ],
)
def test_commands_are_copied_as_they_stand(line: str) -> None:
    _parse(line)
    assert shlex.split(line)[0] == "muster"


def test_a_reason_is_one_word_for_the_shell() -> None:
    reason = "drift; rm -rf / & 'x'"
    assert _parse(commands.rollback("digits", 3, reason)) == {"model": "digits", "to": 3, "reason": reason}


def _parse(line: str) -> dict[str, Any]:
    """Have the command line parse a command, to the last option; return what was given."""
    words = shlex.split(line)
    command: Any = typer.main.get_command(app)
    context = command.make_context(words[0], words[1:])
    while isinstance(command, TyperGroup):
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        assert command is not None, name
        context = command.make_context(name, rest, parent=context)
    return {
        name: value
        for name, value in context.params.items()
        if context.get_parameter_source(name).name == "COMMANDLINE"
    }


def test_drift_of_inputs_on_some_devices_leads_to_the_strongest() -> None:
    matter = _drift(_alarm(2)).matter
    assert matter.severity is Severity.WARNING
    assert matter.key == "drift:digits:input.mean"
    assert matter.command == "muster device show cam-01"
    assert matter.affected == (SHARED.sentence,)
    assert (matter.model, matter.version, matter.device_count) == ("digits", 4, 2)


def test_drift_of_answers_on_most_devices_is_taken_back() -> None:
    matter = _drift(_alarm(8, feature="output.class")).matter
    assert matter.severity is Severity.CRITICAL
    assert shlex.split(matter.command)[:5] == ["muster", "rollback", "digits", "--to", "3"]
    for alarm, previous in (
        (_alarm(8), 3),  # of inputs
        (_alarm(8, feature="output.class"), None),  # nothing to go back to
        (_alarm(2, feature="output.class"), 3),  # on few
        (_alarm(8, feature="output.class", versions=(3, 4)), 2),  # whatever the version
    ):
        assert _drift(alarm, previous).matter.command.startswith("muster device show ")


def test_what_operators_do_is_no_news_to_them() -> None:
    assert _of_rollout(_paused(by_operator=True), 5.0) is None
    aborted = step(_paused(by_operator=False), Abort(by="ana", reason="no", roll_back=True), 4.0)[0]
    assert _of_rollout(aborted, 5.0) is None
    assert _of_rollout(_ended(Status.ROLLED_BACK, code="aborted"), 20.0) is None
    assert _of_rollout(_ended(Status.SUCCEEDED), 20.0) is None


def test_a_rollout_is_alerted_while_somebody_may_act() -> None:
    paused = _of_rollout(_paused(by_operator=False), 5.0)
    assert paused is not None
    assert paused.matter.key == "rollout:7:paused"
    assert paused.matter.evidence[0] == "Stage 1: too little was observed."
    waits = _of_rollout(_awaiting(), 5.0)
    assert waits is not None
    assert waits.matter.key == "rollout:7:approval"
    assert waits.matter.command == "muster rollout approve 7 --stage 1"
    assert waits.matter.evidence[0] == "a second person is who is not ana"
    assert _of_rollout(step(_awaiting(), Approve(by="ben"), 3.0)[0], 5.0) is None
    revoked = _of_rollout(step(_awaiting(), Revoke("Version 2 was revoked."), 3.0)[0], 5.0)
    assert revoked is not None
    assert revoked.matter.sentence == "Rollout 7 of digits version 2 never goes forward again: abort it."
    assert revoked.matter.command.startswith("muster rollout abort 7 --rollback ")
    failed = _of_rollout(_ended(Status.FAILED), 20.0)
    assert failed is not None
    assert failed.matter.severity is Severity.CRITICAL
    assert shlex.split(failed.matter.command)[:5] == ["muster", "rollback", "digits", "--to", "1"]
    assert "--target" in failed.matter.command, "nobody else is led there"
    for ended, previous in ((_ended(Status.FAILED), None), (_ended(Status.FAILED, kind=Kind.ROLLBACK), 1)):
        found = _of_rollout(ended, 20.0, previous)
        assert found is not None
        assert found.matter.command == "muster rollout status 7", "there is nowhere to lead them, or nobody"
    assert _of_rollout(_ended(Status.FAILED), 10.0 + RULES.rollout_for_s) is None


@pytest.mark.parametrize(
    ("offline", "devices", "severity"),
    [(0, 0, None), (0, 10, None), (1, 11, None), (1, 10, Severity.WARNING), (5, 10, Severity.CRITICAL)],
)
def test_a_share_of_the_devices_is_an_alert(offline: int, devices: int, severity: Severity | None) -> None:
    reasons = {f"cam-{number}": "not connected" for number in range(offline)}
    found = offline_finding(UnwellDevices(offline, reasons), devices, RULES)
    assert (found.matter.severity if found else None) == severity
    assert found is None or found.matter.device_count == offline


def test_devices_that_are_not_known_by_name_are_counted() -> None:
    found = unhealthy_finding(UnwellDevices(900, {"cam-1": "drift"}), 1000, RULES)
    assert found is not None
    assert (found.matter.device_count, found.devices) == (900, ("cam-1",))


def test_a_hub_that_is_well_is_no_alert() -> None:
    assert hub_findings(HubFacts(True, refused=19, taken=5, backlog=99_999), RULES) == []


def _alarms(*of: tuple[str, str, float]) -> list[FleetAlarm]:
    """Return alarms: a feature, the devices by their letters, and since when."""
    return [
        msgspec.structs.replace(
            _alarm(1, feature=feature), devices=tuple(devices), strongest=devices[0], since_s=since_s
        )
        for feature, devices, since_s in of
    ]


def test_features_that_move_on_the_same_devices_are_one_finding() -> None:
    dirty = _alarms(
        ("input.contrast", "abc", 20.0), ("input.mean", "ab", 10.0), ("output.class", "bcd", 30.0)
    )
    other = _alarms(("input.sharpness", "xyz", 5.0))
    groups = by_cause([*dirty, *other])
    assert [[alarm.feature for alarm in group] for group in groups] == [
        ["input.sharpness"],
        ["input.mean", "input.contrast", "output.class"],
    ]
    found = _drifting(groups[1])
    assert found.matter.key == "drift:digits:input.mean"
    assert found.devices == ("a", "b", "c", "d")
    assert found.matter.sentence == (
        "4 of 10 devices drift in input.mean, input.contrast and output.class of digits version 4."
    )
    assert len(found.matter.evidence) == 3
    assert found.matter.affected == (SHARED.sentence,)


def test_a_finding_keeps_its_name_while_features_and_devices_follow() -> None:
    (first,) = by_cause(_alarms(("input.mean", "a", 10.0)))
    (later,) = by_cause(_alarms(("input.contrast", "abcd", 11.0), ("input.mean", "abc", 10.0)))
    keys = {_drifting(one).matter.key for one in (first, later)}
    assert keys == {"drift:digits:input.mean"}


def test_a_version_is_taken_back_only_where_its_answers_moved_on_many_devices() -> None:
    inputs = ("input.mean", "abcdefgh", 1.0)
    for devices, is_back in (("ab", False), ("abcdef", True)):
        (group,) = by_cause(_alarms(inputs, ("output.class", devices, 2.0)))
        command = _drifting(group).matter.command
        assert command.startswith("muster rollback") == is_back


@pytest.mark.parametrize(
    ("by_version", "is_narrowed"),
    [
        ({4: 10}, False),
        ({3: 2, 4: 10}, False),
        ({4: 10, 5: 0}, False),
        ({4: 10, 5: 1}, True),
        ({2: 1, 4: 9, 5: 3}, True),
    ],
    ids=str,
)
def test_a_version_that_drifts_is_taken_back_from_nobody_who_runs_another_newer_one(
    by_version: dict[int, int], is_narrowed: bool
) -> None:
    command = _drifting([_alarm(8, feature="output.class")], 3, by_version).matter.command
    words = shlex.split(command)
    assert words[:5] == ["muster", "rollback", "digits", "--to", "3"]
    target = words[words.index("--target") + 1] if "--target" in words else None
    assert target == ('version("digits") == 4' if is_narrowed else None)


def test_many_features_are_told_in_few_words() -> None:
    (group,) = by_cause(_alarms(*((f"input.{number}", "ab", float(number)) for number in range(1, 7))))
    found = _drifting(group, None)
    assert found.matter.title == "drift of digits in input.1, input.2 and 4 more features"


def test_throttled_boards_are_an_alert_from_a_share_of_the_fleet_on() -> None:
    assert throttled_finding({"cam-01": HOT}, 1, 11, RULES) is None
    assert throttled_finding({}, 0, 0, RULES) is None
    found = throttled_finding({"cam-01": HOT}, 1, 10, RULES)
    assert found is not None
    assert found.matter.evidence == ("cam-01: throttled at 4 of 6 readings, 84.5 °C at most",)
    assert (found.matter.severity, found.hold_s) == (Severity.WARNING, RULES.throttled_hold_s)
    most = throttled_finding({}, 5, 10, RULES)
    assert most is not None
    assert most.matter.severity is Severity.CRITICAL
