"""What commands print cannot steer a terminal, whoever chose the text."""

from __future__ import annotations

import pytest

from fleet.protocol.errors import InvalidInput
from hub.cli import app
from hub.cli.output import console, print_table

EVIL = "pi4\x1b]0;title\x07\x1b[2J\x9b31m\r\u202egnp"
HARMLESS = "pi4�]0;title��[2J�31m��gnp"


def test_control_codes_of_devices_are_shown_and_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([{"hardware": EVIL}], {"hardware": "hardware"}, as_json=False)
    console.out(EVIL, highlight=False)
    table, line = capsys.readouterr().out.rsplit("\n", 2)[:2]
    assert HARMLESS in table
    assert line == HARMLESS


def test_errors_show_control_codes_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> None:
        raise InvalidInput(f"The hub says: {EVIL}.")

    monkeypatch.setattr(app, "app", fails)
    assert app.run() == 1
    assert capsys.readouterr().err == f"error: The hub says: {HARMLESS}. [invalid_input]\n"
