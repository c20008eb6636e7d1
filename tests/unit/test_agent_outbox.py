"""The outbox: nothing lost, nothing counted twice, never over its budget."""

from __future__ import annotations

from pathlib import Path

import pytest

import agent.telemetry.outbox
from agent.telemetry.incidents import INTERVAL_S, Incidents
from agent.telemetry.outbox import Outbox
from fleet.protocol.deployment import DeploymentState
from fleet.protocol.errors import Cause, NoSpace, SignatureInvalid
from fleet.protocol.records import DeploymentReport, Diagnostics, Incident, RecordBody, TelemetryWindow

PLENTY = 10**6


def window(version: int = 1, predictions: int = 1) -> TelemetryWindow:
    return TelemetryWindow(
        1.0, 2.0, "digits", version, f"{version:064x}", "onnx-fp32", predictions=predictions
    )


def report(deployment_id: str = "d-1") -> DeploymentReport:
    return DeploymentReport(1.0, deployment_id, "digits", 1, DeploymentState.SUCCEEDED)


def bodies(outbox: Outbox) -> list[RecordBody]:
    return [outbox.record(entry).body for entry in outbox.take(10**6, beside=set())]


def test_records_stay_until_acknowledged_also_over_a_restart(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "o", PLENTY)
    outbox.put(report("d-1"), report("d-2"))
    outbox.close()
    again = Outbox(tmp_path / "o", PLENTY)
    assert again.stream == outbox.stream
    first, second = again.take(10, beside=set())
    again.acknowledge(again.stream, (first.number,))
    assert again.take(10, beside=set()) == [second]
    again.close()


def test_numbers_are_never_used_again(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "o", PLENTY)
    outbox.put(report(), report())
    outbox.acknowledge(outbox.stream, (1, 2))
    outbox.close()
    again = Outbox(tmp_path / "o", PLENTY)
    again.put(report())
    assert [entry.number for entry in again.take(10, beside=set())] == [3]
    again.close()


def test_an_acknowledgement_of_another_stream_is_not_ours(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "o", PLENTY)
    outbox.put(report())
    outbox.acknowledge("0" * 16, (1,))
    assert len(outbox) == 1
    outbox.close()


def test_taking_is_bounded_and_leaves_out_what_is_under_way(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "o", PLENTY)
    outbox.put(*[report(f"d-{i}") for i in range(10)])
    assert [entry.number for entry in outbox.take(3, beside={1, 2})] == [3, 4, 5]
    outbox.close()


def test_reports_go_before_windows_that_are_older(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "o", PLENTY)
    outbox.put(*[window(1) for _ in range(50)], report("d-1"), window(1), report("d-2"))
    assert [entry.number for entry in outbox.take(4, beside=set())] == [51, 53, 1, 2]
    assert [entry.number for entry in outbox.take(9, beside={51}, windows=2)] == [53, 1, 2]
    assert [entry.number for entry in outbox.take(9, beside={51}, windows=-3)] == [53]
    outbox.close()


def test_a_request_is_answered_once_also_when_its_answer_was_acknowledged(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "o", PLENTY)
    for _ in range(2):
        outbox.put_answer(Diagnostics(1.0, "d-1", b"first"))
    (entry,) = outbox.take(10, beside=set())
    outbox.acknowledge(outbox.stream, (entry.number,))
    outbox.close()
    again = Outbox(tmp_path / "o", PLENTY)
    again.put_answer(Diagnostics(2.0, "d-1", b"again"))
    assert len(again) == 0
    again.put_answer(Diagnostics(3.0, "d-2", b"another"))
    assert bodies(again) == [Diagnostics(3.0, "d-2", b"another")]
    again.close()


def test_merging_to_any_budget_keeps_every_count(tmp_path: Path) -> None:
    for budget_bytes in (400, 1500, 20_000):
        outbox = Outbox(tmp_path / f"o-{budget_bytes}", budget_bytes)
        for number in range(300):
            outbox.put(window(1, predictions=number))
        assert outbox.counts().size_bytes <= budget_bytes
        assert outbox.counts().windows == len(outbox) < 300
        kept = [body.predictions for body in bodies(outbox) if isinstance(body, TelemetryWindow)]
        assert sum(kept) == sum(range(300))
        outbox.close()


def test_over_budget_unsent_windows_of_one_version_are_added(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "o", 2000)
    outbox.put(report())
    for _ in range(100):
        outbox.put(window(1), window(2))
    kept = bodies(outbox)
    assert report() in kept
    for version in (1, 2):
        counted = [b.predictions for b in kept if isinstance(b, TelemetryWindow) and b.version == version]
        assert sum(counted) == 100
    assert (tmp_path / "o").stat().st_size > 0
    outbox.close()


def test_a_window_that_was_sent_is_never_changed(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "o", 1200)
    outbox.put(window(1, predictions=7))
    (sent,) = outbox.take(1, beside=set())
    for _ in range(50):
        outbox.put(window(1))
    assert outbox.take(1, beside=set()) == [sent]
    assert sum(b.predictions for b in bodies(outbox) if isinstance(b, TelemetryWindow)) == 57
    outbox.close()


def test_windows_are_given_up_before_reports(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "o", 700)
    for number in range(20):
        outbox.put(window(number + 1))  # of different versions: nothing to add
        if number % 10 == 0:
            outbox.put(report(f"d-{number}"))
    kept = bodies(outbox)
    assert report("d-0") in kept
    assert report("d-10") in kept
    assert window(1) not in kept
    outbox.close()


def test_a_damaged_outbox_is_put_aside_and_told_of(tmp_path: Path) -> None:
    (tmp_path / "o").write_bytes(b"not a database, but long enough to look like one" * 100)
    outbox = Outbox(tmp_path / "o", PLENTY)
    assert outbox.damage is not None
    assert (tmp_path / "o.damaged").exists()
    outbox.put(report())
    assert len(outbox) == 1
    outbox.close()


def test_incidents_are_rate_limited_by_code(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "o", PLENTY)
    now_s = 1000.0
    incidents = Incidents(outbox, lambda: now_s)
    for _ in range(5):
        incidents.report(SignatureInvalid("No."))
    incidents.report(NoSpace("Full."))
    now_s += INTERVAL_S
    incidents.report(SignatureInvalid("No."))
    kept = [body for body in bodies(outbox) if isinstance(body, Incident)]
    assert [body.cause.code for body in kept] == ["signature_invalid", "no_space", "signature_invalid"]
    assert kept[0].cause == Cause("signature_invalid", "No.")
    assert "4 more" in kept[2].cause.detail
    outbox.close()


def test_a_window_of_another_process_is_taken_once_also_over_a_restart(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "o", PLENTY)
    outbox.put_once(b"a" * 16, window(1))
    outbox.put_once(b"a" * 16, window(1))
    outbox.close()
    again = Outbox(tmp_path / "o", PLENTY)
    again.put_once(b"a" * 16, window(1))
    again.put_once(b"b" * 16, window(2))
    assert bodies(again) == [window(1), window(2)]
    again.close()


def test_ids_of_taken_windows_are_forgotten_at_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent.telemetry.outbox, "KEPT_IDS", 2)
    outbox = Outbox(tmp_path / "o", PLENTY)
    for letter in "abc":
        outbox.put_once(letter.encode() * 16, window())
    outbox.put_once(b"b" * 16, window())
    assert len(outbox) == 3
    outbox.put_once(b"a" * 16, window())
    assert len(outbox) == 4
    outbox.close()
