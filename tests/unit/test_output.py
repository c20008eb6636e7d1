"""What commands print cannot steer a terminal, whoever chose the text."""

from __future__ import annotations

import pytest

from fleet.protocol.errors import InvalidInput
from hub.cli import app, output
from hub.cli.columns import column_widths
from hub.cli.output import console, print_table

EVIL = "pi4\x1b]0;title\x07\x1b[2J\x9b31m\r\u202egnp"
HARMLESS = "pi4�]0;title��[2J�31m��gnp"


def test_control_codes_of_devices_are_shown_and_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    print_table([{"hardware": EVIL}], {"hardware": "hardware"}, as_json=False)
    console.out(EVIL, highlight=False)
    table, line = capsys.readouterr().out.rsplit("\n", 2)[:2]
    assert HARMLESS in table
    assert line == HARMLESS


DEVICE = {
    "device_id": "camera-entrance-02",
    "reasons": "meter-digits: drift in input.mean, input.std; 12 of 400 requests failed",
    "features": "input.mean",
    "attributes": {"kind": "camera", "site": "lyon", "line": "f" * 30},
    "sha256": "ab" * 32,
}
HEADINGS = {
    "device_id": "device",
    "reasons": "because",
    "features": "feature",
    "attributes": "attributes",
    "sha256": "SHA-256",
}


@pytest.mark.parametrize("width", [90, 100, 120, 400])
def test_a_narrow_table_keeps_identifiers_and_words_whole(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(output, "console", type(console)(highlight=False))  # which reads it when it is made
    print_table([DEVICE], HEADINGS, as_json=False)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    told = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if line.startswith("│")]
    device, because, feature, _, digest = zip(*told, strict=True)
    assert (device[0], feature[0], "".join(digest)) == (
        "camera-entrance-02",
        "input.mean",
        "ab" * 32,
    )
    assert " ".join(because).split() == str(DEVICE["reasons"]).split()


def test_identifiers_are_cut_where_there_is_no_other_way() -> None:
    names, texts = ["device_id", "text"], [["device", "x" * 50], ["what", "a word"]]
    assert column_widths(names, texts, 40) == [36, 4]
    assert column_widths(names, texts, 55) == [50, 5]
    assert column_widths(names, texts, 56) == [50, 6]
    assert sum(column_widths(names, texts, 2)) == 2


def test_errors_show_control_codes_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> None:
        raise InvalidInput(f"The hub says: {EVIL}.")

    monkeypatch.setattr(app, "app", fails)
    assert app.run() == 1
    assert capsys.readouterr().err == f"error: The hub says: {HARMLESS}. [invalid_input]\n"
