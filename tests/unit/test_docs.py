"""The reference is complete: every command, option, route, setting and error code stands in it."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
import typer.main
from fastapi.routing import APIRoute
from typer.core import TyperCommand, TyperGroup, TyperOption

from agent.settings import Settings as AgentSettings
from fleet.protocol.errors import all_errors
from fleet.rollout.state.rollout import CauseCode
from hub.api import operations
from hub.api.app import MODULES, PREFIX
from hub.cli.app import app
from hub.settings import Settings

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"


def _page(name: str) -> str:
    return (REFERENCE / f"{name}.md").read_text()


def _commands() -> list[tuple[str, TyperCommand]]:
    found: list[tuple[str, TyperCommand]] = []

    def walk(path: str, command: object) -> None:
        if isinstance(command, TyperGroup):
            for name, child in command.commands.items():
                walk(f"{path} {name}", child)
        else:
            assert isinstance(command, TyperCommand)
            found.append((path, command))

    walk("muster", typer.main.get_command(app))
    return found


def test_there_are_commands_to_check() -> None:
    assert len(_commands()) > 20


@pytest.mark.parametrize(("path", "command"), _commands(), ids=str)
def test_every_command_and_option_is_documented(path: str, command: TyperCommand) -> None:
    rows = [
        line for line in _page("commands").splitlines() if line.startswith((f"| `{path}`", f"| `{path} "))
    ]
    assert len(rows) == 1, f"`{path}` has {len(rows)} rows in commands.md"
    for parameter in command.params:
        if isinstance(parameter, TyperOption) and parameter.name != "help":
            assert any(f"`{name}" in rows[0] for name in [*parameter.opts, *parameter.secondary_opts])


def test_every_error_code_is_documented() -> None:
    codes = [kind.code for kind in all_errors()] + [code.value for code in CauseCode]
    missing = [code for code in codes if f"| `{code}` |" not in _page("errors")]
    assert missing == []
    assert len(set(codes)) == len(codes)


def test_every_hub_setting_is_documented() -> None:
    missing = [
        f.name for f in msgspec.structs.fields(Settings) if f"| `{f.name}` |" not in _page("hub-settings")
    ]
    assert missing == []


def test_every_agent_setting_is_documented() -> None:
    names = [field.name for field in msgspec.structs.fields(AgentSettings)]
    assert [name for name in names if f"`{name}`" not in _page("agent-settings")] == []


def test_every_route_is_documented() -> None:
    routes: list[str] = []
    for module, prefix in [*((module, PREFIX) for module in MODULES), (operations, "")]:
        for route in module.router.routes:
            assert isinstance(route, APIRoute)
            routes += [f"`{method} {prefix}{route.path}`" for method in route.methods or ()]
    assert len(routes) > 20
    assert [route for route in routes if route not in _page("http-api")] == []


def test_every_link_in_the_documentation_leads_somewhere() -> None:
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}"
