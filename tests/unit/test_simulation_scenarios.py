"""Scenarios are read strictly, and refused with line, field and reason."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from fleet.protocol.errors import InvalidConfiguration
from hub.simulation.ready import READY
from hub.simulation.scenario import Action, Scenario
from hub.simulation.scenario_file import find_scenario, read_scenario


def test_a_scenario_says_what_differs_from_a_calm_fleet() -> None:
    read = read_scenario(
        """
        about: harm
        fleet: {devices: 12, attributes: {hardware: {pi4: 3, jetson: 1}}, offline: {share: 0.25}}
        harm: [{where: 'hardware == "jetson"', errors: 0.1}]
        operators: [{at_s: 5, action: pause}, {at_s: 9, action: roll_back, by: ana}]
        """
    )
    assert read.ought_to_stop
    assert read.fleet.offline.share == 0.25
    assert [deed.action for deed in read.operators] == [Action.PAUSE, Action.ROLL_BACK]
    assert read.telemetry == Scenario().telemetry


@pytest.mark.parametrize("name", READY)
def test_ready_scenarios_pass_their_own_checks(name: str) -> None:
    text = msgspec.json.encode(READY[name]).decode()
    assert read_scenario(text) == READY[name]
    assert find_scenario(name) is READY[name]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fleet: {offline: {share: 2}}", "Line 1, column 26: .*fleet.offline.share"),
        ("fleet: {}\nfleeet: {}", "Line 2, column .*no field 'fleeet' here.*Did you mean fleet"),
        ("harm: [{where: 'hardware =='}]", "Line 1, column 16: harm\\[0\\].where"),
        ("harm: [{latency: 0}]", "Line 1.*harm\\[0\\].latency"),
        ("operators: [{at_s: 9, action: pause}, {at_s: 5, action: resume}]", "order of their times"),
        ("operators: [{at_s: 9, action: shout}]", "Line 1.*shout"),
        ("hub_away: [{at_s: 9, duration_s: 9}, {at_s: 10, duration_s: 1}]", "overlaps"),
        ("fleet: {offline: {share: 0.6}, days: {share: 0.6}}", "exclude each other"),
        ("fleet: {utc_offset_hours: []}", "no zone"),
        ("fleet: {devices: 0}", "fleet.devices"),
        ("a: &b 1", "anchors"),
        ("", "empty"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_place(text: str, message: str) -> None:
    with pytest.raises(InvalidConfiguration, match=message):
        read_scenario(text)


def test_a_file_that_is_not_there_or_not_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration, match="no file of that name"):
        find_scenario(str(tmp_path / "none.yaml"))
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidConfiguration, match="not UTF-8"):
        find_scenario(str(tmp_path / "bytes"))
    with pytest.raises(InvalidConfiguration, match="cannot be read"):
        find_scenario(str(tmp_path))
