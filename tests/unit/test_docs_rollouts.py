"""The guide on rollouts: its plan is a plan, its refusal is what is said, and its commands are commands."""

from __future__ import annotations

import re
import shlex
from importlib import resources
from pathlib import Path

import pytest
from typer.main import get_command

from fleet.protocol.errors import InvalidPlan
from fleet.protocol.maintenance import longest_closed_s
from fleet.rollout.plans.plan import Membership
from fleet.rollout.plans.schema import plan_schema
from hub.cli.app import app
from hub.plan_file import read_plan

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "guide" / "rollouts.md").read_text(encoding="utf-8")
REFERENCE = (ROOT / "docs" / "reference" / "rollouts.md").read_text(encoding="utf-8")


def block(kind: str, page: str = PAGE) -> list[str]:
    """Return the examples of a kind."""
    return re.findall(rf"```{kind}\n(.*?)```", page, re.DOTALL)


def test_the_plan_of_the_guide_is_a_plan() -> None:
    (text,) = block("yaml")
    plan, _ = read_plan(text)
    assert (plan.membership, len(plan.stages)) == (Membership.CONTINUOUS, 3)
    assert plan.maintenance is not None
    assert longest_closed_s(plan.maintenance) == (2 * 24 + 21.5 + 2) * 3600  # clocks may be moved back


def test_the_refusal_that_the_guide_shows_is_what_is_said() -> None:
    (text,), (said,) = block("yaml"), block("text")
    with pytest.raises(InvalidPlan) as refused:
        read_plan(text.replace("inference_errors, margin: 0.02", "inference_errors, margin: 2"))
    assert refused.value.message == said.strip()


@pytest.mark.parametrize("line", [line for text in block("sh") for line in text.strip().splitlines()])
def test_the_commands_of_the_guide_are_commands(line: str) -> None:
    program, group, command, *arguments = shlex.split(line)
    assert program == "muster"
    found = get_command(app).commands[group].commands[command]  # type: ignore[attr-defined]
    found.make_context(command, arguments)  # parses, and refuses what it does not know; nothing is run


def test_every_field_of_a_plan_is_in_the_reference() -> None:
    schema = plan_schema()
    names = set(schema["properties"]) - {"stages", "retries", "maintenance", "gate"}
    names |= {f"stages[].{name}" for name in schema["$defs"]["Stage"]["properties"]}
    names |= {f"retries.{name}" for name in schema["$defs"]["Retries"]["properties"]}
    assert [name for name in sorted(names) if f"`{name}`" not in REFERENCE] == []


def test_the_plan_of_the_demo_is_a_plan() -> None:
    text = (resources.files("hub.demo") / "plan.yaml").read_text(encoding="utf-8")
    plan, _ = read_plan(text)
    assert [stage.name for stage in plan.stages] == ["canary", "half", "everybody"]
