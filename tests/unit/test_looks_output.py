"""Last looks at drift as people read them: what comes first, what a row names, what is counted only."""

from __future__ import annotations

from typing import Any

import pytest

from hub.cli.looks import print_looks, strongest_first


def look(device: str, evidence: dict[str, float], *alarmed: str) -> dict[str, Any]:
    """Return a look as the API gives it."""
    features = [
        {
            "feature": name,
            "alarm": name in alarmed,
            "evidence": value,
            "threshold": 3.0,
            "share": 0.6,
            "split": "below 0.4",
            "expected": 0.1,
            "wasserstein": None,
            "distance": 0.5,
            "samples": 300,
        }
        for name, value in evidence.items()
    ]
    return {"device_id": device, "model": "m", "version": 1, "alarm": bool(alarmed), "features": features}


LOOKS = [
    look("calm", {"a": 0.1, "b": -1.0}),
    look("strong", {"a": 9.0, "b": 0.0}),
    look("alarmed", {"a": 1.0, "b": 5.0, "c": 6.0, "d": 8.0}, "b", "c"),
    look("empty", {}),
]


@pytest.mark.parametrize("limit", [None, 1, 2, 4, 9])
def test_alarms_come_first_and_then_the_strongest(limit: int | None) -> None:
    found, left_out = strongest_first(iter(LOOKS), limit)
    order = ["alarmed", "strong", "calm", "empty"]
    assert [row["device_id"] for row in found] == order[:limit]
    assert left_out == len(order) - len(found)


def test_a_row_names_what_is_in_alarm_or_else_the_strongest(capsys: pytest.CaptureFixture[str]) -> None:
    print_looks(LOOKS, 50, every=False)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines]
    assert [row[3] for row in rows] == ["c, b", "a", "a", "–"]
    assert [row[4] for row in rows[:3]] == ["6.0 / 3.0", "9.0 / 3.0", "0.1 / 3.0"]
    assert [row[-1] for row in rows] == ["2", "2", "2", "0"]


def test_every_feature_has_a_row_if_all_are_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    print_looks(LOOKS, 2, every=True)
    told = capsys.readouterr().out
    assert sum(line.startswith("│") for line in told.splitlines()) == 6
    assert "2 more are not shown; --limit 4 shows them." in told
