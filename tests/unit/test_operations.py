"""What ``docs/operations`` gives to operators fits Prometheus, Grafana, and the metrics that there are."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from hub.cli.app import app
from tests.support.metrics import in_reference
from tests.support.promtool import promtool

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs/operations"
ALERTS, TESTS, DASHBOARD = (
    FOLDER / name for name in ("alerts.yml", "alerts.test.yml", "grafana-dashboard.json")
)
GUIDE = ROOT / "docs/guide/monitoring.md"
OWN_VARIABLES = {"__rate_interval": "5m", "__interval": "1m"}
"""Grafana's own variables, with values as it fills in."""


def _rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def _dashboard() -> dict[str, Any]:
    dashboard: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return dashboard


def _panels() -> list[dict[str, Any]]:
    return [panel for panel in _dashboard()["panels"] if panel["type"] != "row"]


def _dashboard_expressions() -> Iterator[str]:
    yield from (target["expr"] for panel in _panels() for target in panel["targets"])
    yield from (a["expr"] for a in _dashboard()["annotations"]["list"] if "expr" in a)
    for variable in _dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            asked = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["definition"])
            assert asked is not None
            yield f"count by ({asked[2]}) ({asked[1]})"


def _filled_in(expression: str) -> str:
    names = {variable["name"]: ".*" for variable in _dashboard()["templating"]["list"]} | OWN_VARIABLES
    return re.sub(r"\$(\w+)", lambda found: names[found[1]], expression)


def _metrics(expression: str) -> set[str]:
    return set(re.findall(r"\b((?:muster|process)_\w+)", expression))


def _unknown(expression: str) -> set[str]:
    """Return the series of an expression that no metric of the reference has."""
    known = {name for name, metric in in_reference().items() if metric.kind != "histogram"}
    for name, metric in in_reference().items():
        if metric.kind == "histogram":
            known |= {f"{name}_bucket", f"{name}_sum", f"{name}_count"}
    return _metrics(expression) - known


def test_the_scrape_configuration_and_the_rules_are_valid() -> None:
    promtool("check", "config", FOLDER / "prometheus.yml")
    promtool("check", "rules", ALERTS)


def test_alerts_fire_when_they_should_and_only_then() -> None:
    promtool("test", "rules", TESTS)


def test_every_alert_is_seen_firing_and_silent() -> None:
    checks = [
        check for test in yaml.safe_load(TESTS.read_text())["tests"] for check in test["alert_rule_test"]
    ]
    names = {rule["alert"] for rule in _rules()}
    assert {check["alertname"] for check in checks if check.get("exp_alerts")} == names
    assert {check["alertname"] for check in checks if not check.get("exp_alerts")} == names


def test_every_alert_says_what_to_do_and_stands_in_the_guide() -> None:
    for rule in _rules():
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"].keys() == {"summary", "action"}
        assert f"| `{rule['alert']}` |" in GUIDE.read_text()


def test_every_command_that_an_alert_names_exists() -> None:
    named = re.findall(r"`muster ([a-z -]+)`", ALERTS.read_text())
    assert named
    for words in named:
        command: Any = typer.main.get_command(app)
        for word in words.split():
            command = command.commands[word]


def test_alerts_and_dashboard_use_metrics_that_there_are() -> None:
    expressions = [*(rule["expr"] for rule in _rules()), *_dashboard_expressions()]
    assert {unknown for expression in expressions for unknown in _unknown(expression)} == set()


def test_prometheus_understands_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    rules = [
        {"record": f"dashboard:{number}", "expr": _filled_in(expression)}
        for number, expression in enumerate(_dashboard_expressions())
    ]
    file = tmp_path / "dashboard.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", file)


def test_every_panel_says_its_unit_and_what_it_shows() -> None:
    for panel in _panels():
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert all(target["datasource"] == panel["datasource"] for target in panel["targets"])


def test_panels_are_told_apart_and_do_not_overlap() -> None:
    panels = _dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [
        {
            (column, line)
            for column in range(at["x"], at["x"] + at["w"])
            for line in range(at["y"], at["y"] + at["h"])
        }
        for at in (panel["gridPos"] for panel in panels)
    ]
    assert all(column < 24 for place in places for column, _ in place)
    assert not any(one & other for one, other in itertools.combinations(places, 2))


@pytest.mark.parametrize("name", ["instance", "model", "version"])
def test_the_dashboard_can_be_narrowed(name: str) -> None:
    assert any(f'=~"${name}"' in expression for expression in _dashboard_expressions())
