"""Quality asked of a real hub, over HTTP and by command, about windows that it counts like any other."""

from __future__ import annotations

import time
from contextlib import closing
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest

from fleet.drift.features import OUTPUT_CONFIDENCE
from fleet.drift.profile import ReferenceProfile, count
from fleet.protocol.labels import Labels
from fleet.protocol.manifest import decode_manifest
from fleet.protocol.records import TelemetryWindow
from fleet.quality.calibration import calibration_of, confidence_of, labelled_cells
from hub.store.blobs import BlobFolder
from hub.store.concept_rows import ConceptKey
from hub.store.sqlite import SqliteStore
from tests.conftest import MODEL
from tests.support.hub import HubProcess
from tests.support.stores import incoming, join_running_hub
from tests.support.waiting import eventually

GOOD, BAD, SILENT = "quality-good", "quality-bad", "quality-silent"
OURS = 'id like "quality-*"'
WINDOWS, ANSWERS, LABELS = 6, 200, 50


@pytest.fixture(scope="module")
def hub(hub: HubProcess) -> HubProcess:
    """The shared hub, which got windows of three devices: one whose answers are wrong, one without labels."""
    with closing(SqliteStore(hub.home / "hub.db")) as store:
        digest = store.version(MODEL, 1).manifest_sha256
        assert digest is not None
        reference = decode_manifest(BlobFolder(hub.home / "blobs").read(digest)).reference
        now_s, rng = time.time(), np.random.default_rng(8)
        for device_id in (GOOD, BAD, SILENT):
            join_running_hub(store, device_id, device_id, now_s)
        for number in range(1, WINDOWS + 1):
            if number == WINDOWS // 2 + 1:  # an alarm takes two looks
                eventually(lambda: _looks(store), "the first labels are looked at")
            for device_id, labels, wrong in ((GOOD, LABELS, 0.0), (BAD, LABELS, 0.7), (SILENT, 0, 0.0)):
                window = _window(rng, reference, labels, wrong, now_s - 60.0 * number)
                window = msgspec.structs.replace(window, manifest_sha256=digest)
                record = incoming(device_id, number, window)
                store.add_records([msgspec.structs.replace(record, received_at_s=now_s)])
    return hub


def _looks(store: SqliteStore) -> int:
    key = ConceptKey(BAD, MODEL, 1)
    row = store.concepts([key]).get(key)
    return row.state.looks if row else 0


def _window(
    rng: np.random.Generator, reference: ReferenceProfile, labels: int, wrong: float, end_s: float
) -> TelemetryWindow:
    """Return a window of answers like the held-out ones, but for a share of them that is wrong."""
    confidence, calibration = confidence_of(reference), calibration_of(reference)
    assert confidence is not None and calibration is not None
    edges = np.array(confidence.edges)
    bins = rng.choice(len(calibration.answers), ANSWERS, p=calibration.answers / calibration.samples)
    confidences = edges[bins] + rng.random(ANSWERS) * (edges[bins + 1] - edges[bins])
    right = (rng.random(ANSWERS) < calibration.chance[bins]) & (rng.random(ANSWERS) >= wrong)
    cells = labelled_cells(reference, right[:labels].tolist(), confidences[:labels].tolist())
    return TelemetryWindow(
        started_at_s=end_s - 30.0,
        ended_at_s=end_s,
        model=MODEL,
        version=1,
        manifest_sha256="",
        variant="onnx-fp32",
        predictions=ANSWERS,
        labelled=labels,
        correct=int(right[:labels].sum()),
        profile={OUTPUT_CONFIDENCE: count(confidence, confidences)},
        labels=Labels(cells, unknown=2),
    )


def _asked(hub: HubProcess, **parameters: Any) -> dict[str, dict[str, Any]]:
    """Return the answer by cohort, once every window is counted."""

    def ask() -> dict[str, dict[str, Any]] | None:
        response = httpx.get(
            f"{hub.url}/api/v1/fleet/quality",
            headers={"Authorization": f"Bearer {hub.token}"},
            params={"model": MODEL, "where": OURS, **parameters},
            timeout=30,
        )
        response.raise_for_status()
        items = response.json()["items"]
        counted = sum(item["answers"] for item in items) == 3 * WINDOWS * ANSWERS
        return {item["cohort"]: item for item in items} if counted else None

    return eventually(ask)


def test_each_device_has_its_estimate_and_its_labels_say_what_it_cannot(hub: HubProcess) -> None:
    found = _asked(hub, by="device")
    for item in found.values():
        estimate = item["estimated_accuracy"]
        assert estimate["lower"] <= item["held_out_accuracy"] <= estimate["upper"]
        assert item["unknown_labels"] == 2 * WINDOWS
    good, bad, silent = found[GOOD], found[BAD], found[SILENT]
    assert silent["labelled"] == 0 and silent["powered_accuracy"] is None and silent["concept_drift"] is None
    assert "without labels" in silent["sentences"][0]
    assert good["labelled"] == bad["labelled"] == WINDOWS * LABELS
    assert good["doubts"] == [] and good["powered_accuracy"]["lower"] > 0.85
    assert [doubt["code"] for doubt in bad["doubts"]] == ["labels_disagree"]
    assert bad["powered_accuracy"]["upper"] < 0.5


def test_the_alarm_names_the_device_whose_labels_are_wrong(hub: HubProcess) -> None:
    def drifting() -> dict[str, Any] | None:
        found = _asked(hub, by="site")
        return found if found[BAD]["concept_drift_devices"] else None

    found = eventually(drifting)
    assert found[BAD]["concept_drift_devices"] == [BAD]
    assert found[GOOD]["concept_drift_devices"] == found[SILENT]["concept_drift_devices"] == []
    by_device = _asked(hub, by="device")[BAD]
    assert by_device["concept_drift"]["alarm"] and "what is right has changed" in by_device["sentences"][-2]


def test_the_command_shows_it_to_people(hub: HubProcess) -> None:
    _asked(hub)
    shown = hub.muster("fleet", "quality", "--model", MODEL, "--by", "device", "--where", OURS)
    assert GOOD in shown and "without labels" in shown and "labelled answers are right, by their" in shown
    years_ago = ("--from", "2020-01-01", "--to", "2020-01-02")
    assert "Nothing was answered" in hub.muster("fleet", "quality", "--model", MODEL, *years_ago)
