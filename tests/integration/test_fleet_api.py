"""Questions about the fleet to a real hub, over HTTP and by command: forms, roles, and what is refused."""

from __future__ import annotations

import csv
import io
import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
from pyarrow import parquet

from fleet.protocol.manifest import decode_manifest
from fleet.protocol.messages import encode
from fleet.protocol.records import packed
from hub.store.blobs import BlobFolder
from hub.store.sqlite import SqliteStore
from hub.store.telemetry_rows import HOUR_S, TelemetryStep
from tests.conftest import MODEL
from tests.support.command_line import Muster, muster_on
from tests.support.hub import HubProcess
from tests.support.rollups import DeviceWindow, keep_windows, values_window
from tests.support.stores import join_running_hub

SITES = {"ask-1": "=lyon", "ask-2": "=lyon", "ask-3": "oslo"}
"""One site is what a spreadsheet would compute."""
OURS = 'id like "ask-*"'


@pytest.fixture(scope="module")
def hub(hub: HubProcess) -> HubProcess:
    """The shared hub with three devices that sent windows in the last hours; ask-3's inputs are shifted."""
    with closing(SqliteStore(hub.home / "hub.db")) as store:
        digest = store.version(MODEL, 1).manifest_sha256
        assert digest is not None
        profile = decode_manifest(BlobFolder(hub.home / "blobs").read(digest)).reference
        rng, sent = np.random.default_rng(0), []
        now_s = time.time()
        for device_id, site in SITES.items():
            join_running_hub(store, device_id, site, now_s)
            for hour in (1, 2, 3):
                shift = 1.0 if device_id == "ask-3" else 0.0
                window = values_window(profile, now_s - hour * HOUR_S, rng=rng, shift=shift, errors=4)
                window = msgspec.structs.replace(window, model=MODEL, manifest_sha256=digest)
                sent.append(DeviceWindow(device_id, {"site": site, "hardware": "pi4"}, window))
        keep_windows(store, sent)
        counted = store.telemetry_position()
        totals = {(one.device_id, MODEL, 1): encode(packed(one.window)) for one in sent}
        store.save_telemetry(TelemetryStep(counted, counted, totals=totals))
    return hub


@pytest.fixture
def muster(
    hub: HubProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Muster:
    """Runs commands in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return muster_on(hub, monkeypatch, capsys)


def _get(hub: HubProcess, path: str, *, accept: str = "*/*", **parameters: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {hub.token}", "Accept": accept}
    return httpx.get(f"{hub.url}/api/v1{path}", headers=headers, params=parameters, timeout=30)


def _csv(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_devices_are_found_and_tagged(hub: HubProcess, muster: Muster) -> None:
    assert muster("device", "tag", "ask-1", "+lab", "-pilot") == ("lab\n", "")
    found = _get(hub, "/devices", where=f'{OURS} and site == "=lyon" and not tag("lab")').json()["items"]
    assert [row["device_id"] for row in found] == ["ask-2"]
    first = _get(hub, "/devices", where=OURS, limit=2).json()
    assert [row["device_id"] for row in first["items"]] == ["ask-1", "ask-2"]
    rest = _get(hub, "/devices", where=OURS, limit=2, after=first["next"]).json()
    assert ([row["device_id"] for row in rest["items"]], rest["next"]) == (["ask-3"], None)
    offline = _get(hub, "/devices", where=f'{OURS} and health == "offline"').json()["items"]
    assert len(offline) == 3
    shown = muster("device", "show", "ask-1")[0]
    assert "tags:      lab" in shown
    assert "enrolled:  site==lyon" in shown
    assert "machine:   x86_64, agent 0.1.0, onnxruntime " in shown
    told = _get(hub, "/devices/ask-1/timeline", kind="action").json()["items"]
    assert [entry["text"] for entry in told] == ["Tags changed: +lab -pilot."]
    assert told[0]["by"]


def test_a_list_of_devices_is_csv_without_formulas_and_parquet(hub: HubProcess) -> None:
    response = _get(hub, "/devices", where=OURS, format="csv")
    assert response.headers["content-type"].startswith("text/csv")
    rows = _csv(response.text)
    assert [row["device_id"] for row in rows] == list(SITES)
    assert rows[0]["attributes"] == '{"site":"=lyon"}'
    response = _get(hub, "/fleet/query", model=MODEL, metric="predictions", by="site", accept="text/csv")
    assert {row["site"] for row in _csv(response.text)} >= {"'=lyon", "oslo"}
    response = _get(hub, "/devices", where=OURS, accept="application/vnd.apache.parquet")
    assert parquet.read_table(io.BytesIO(response.content)).column("device_id").to_pylist() == list(SITES)


@pytest.mark.parametrize("form", ["json", "csv", "parquet"])
@pytest.mark.parametrize(
    ("arguments", "rows"),
    [
        (("fleet", "query", "predictions", "psi", "--model", MODEL, "--by", "device", "--where", OURS), 9),
        (("fleet", "drift", "--matrix", "--model", MODEL, "--by", "device", "--resolution", "whole"), None),
        (("fleet", "compare", "--model", MODEL, "--left", 'id == "ask-1"', "--right", 'id == "ask-3"'), None),
        (("fleet", "devices", "--where", OURS), 3),
        (("device", "timeline", "ask-2", "--kind", "window", "--resolution", "hour"), 3),
    ],
    ids=["query", "drift", "compare", "devices", "timeline"],
)
def test_every_answer_is_exported(
    muster: Muster, tmp_path: Path, arguments: tuple[str, ...], rows: int | None, form: str
) -> None:
    file = tmp_path / f"out.{form}"
    told, wrong = muster(*arguments, "--out", str(file))
    assert told == f"The answer is in {file}, {file.stat().st_size:,} bytes.\n"
    assert wrong == ""
    if form == "json":
        answer = json.loads(file.read_text())
        found = len(answer["items"] if isinstance(answer, dict) else answer)
    elif form == "csv":
        found = len(_csv(file.read_text()))
    else:
        found = parquet.read_table(file).num_rows
    assert found == rows if rows is not None else found > 3
    assert list(tmp_path.iterdir()) == [file]


def test_tables_are_for_people(muster: Muster) -> None:
    series = muster("fleet", "query", "predictions", "error_share", "--model", MODEL, "--where", OURS)[0]
    assert "1200" in series
    matrix = muster("fleet", "drift", "--matrix", "--model", MODEL, "--where", OURS, "--by", "site")[0]
    assert "=lyon" in matrix
    compared = muster(
        "fleet", "compare", "--model", MODEL, "--left", 'id == "ask-1"', "--right", 'id == "ask-3"'
    )[0]
    assert "≠ input." in compared
    assert "  error_share: no difference is shown" in compared
    devices = muster("fleet", "devices", "--where", OURS)[0]
    assert "3 devices" in devices
    timeline = muster("device", "timeline", "ask-3", "--resolution", "hour")[0]
    assert "answers, 4 failed" in timeline
    assert re.search(r" ago +│ \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC │", timeline)
    nothing = muster("device", "timeline", "ask-3", "--from", "1999-01-01", "--to", "1999-01-02")[0]
    assert nothing.startswith("Nothing happened")


def test_a_picture_is_drawn_of_the_hub_s_answers(muster: Muster, tmp_path: Path) -> None:
    file = tmp_path / "out.png"
    told = muster("fleet", "drift", "--model", MODEL, "--where", OURS, "--plot", str(file))[0]
    assert str(file) in told
    assert file.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert (
        str(file.with_suffix(".svg"))
        in muster(
            "fleet", "drift", "--model", MODEL, "--where", OURS, "--plot", str(file.with_suffix(".svg"))
        )[0]
    )
    assert b"<svg" in file.with_suffix(".svg").read_bytes()


def test_a_timeline_is_read_page_by_page(hub: HubProcess) -> None:
    whole = _get(hub, "/devices/ask-2/timeline", resolution="hour").json()["items"]
    assert [entry["kind"] for entry in whole].count("window") == 3
    paged, after = [], None
    while True:
        place: dict[str, str] = {"after": after} if after else {}
        page = _get(hub, "/devices/ask-2/timeline", limit=1, resolution="hour", **place).json()
        paged += page["items"]
        after = page["next"]
        if after is None:
            break
    assert paged == whole


@pytest.mark.parametrize(
    ("path", "parameters", "code"),
    [
        ("/devices", {"where": "site = 'x'"}, "invalid_target"),
        ("/devices", {"where": 'sight == "x"'}, "invalid_target"),
        ("/devices", {"where": "(" * 4000}, "invalid_target"),
        ("/devices", {"format": "xls"}, "invalid_input"),
        ("/fleet/query", {"model": "nothing", "metric": "errors"}, "not_found"),
        ("/fleet/query", {"model": MODEL, "metric": "errors", "version": 99}, "not_found"),
        ("/fleet/query", {"model": MODEL, "metric": "errors", "where": 'id == "nobody"'}, "not_found"),
        ("/fleet/drift/histograms", {"model": MODEL, "version": 99}, "not_found"),
        ("/fleet/compare", {"model": MODEL, "left": "version=1", "right": "version == 99"}, "not_found"),
        ("/fleet/compare", {"model": MODEL, "left": "version=1", "right": 'id == "nobody"'}, "not_found"),
        ("/fleet/query", {"model": MODEL}, "invalid_input"),
        ("/fleet/query", {"model": MODEL, "metric": "luck"}, "invalid_input"),
        ("/fleet/query", {"model": MODEL, "metric": "errors", "by": "colour"}, "invalid_input"),
        ("/fleet/query", {"model": MODEL, "metric": "errors", "by": ["site", "device"]}, "invalid_input"),
        ("/fleet/query", {"model": MODEL, "metric": "psi", "feature": "input.none"}, "invalid_input"),
        ("/fleet/query", {"model": MODEL, "metric": "errors", "from": "now", "to": "-1h"}, "invalid_input"),
        ("/fleet/query", {"model": MODEL, "metric": "errors", "from": "soon"}, "invalid_input"),
        (
            "/fleet/query",
            {"model": MODEL, "metric": "errors", "from": "-365d", "resolution": "minute"},
            "invalid_input",
        ),
        ("/fleet/drift/matrix", {"model": MODEL, "metric": "errors"}, "invalid_input"),
        ("/fleet/compare", {"model": MODEL, "left": "version=1", "right": " "}, "invalid_input"),
        (
            "/fleet/compare",
            {"model": MODEL, "left": "version=1", "right": "version=1 and x"},
            "invalid_target",
        ),
        ("/devices/ask-1/timeline", {"after": "1e9~1"}, "invalid_input"),
        ("/devices/ask-1/timeline", {"from": "-30y"}, "invalid_input"),
        ("/devices/ask-1/timeline", {"kind": "rumour"}, "invalid_input"),
        ("/devices/nobody/timeline", {}, "not_found"),
    ],
)
def test_what_cannot_be_answered_is_a_problem_with_a_code(
    hub: HubProcess, path: str, parameters: dict[str, Any], code: str
) -> None:
    response = _get(hub, path, **parameters)
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["code"] == code
    assert response.status_code in {404, 422}


def test_viewers_may_ask_and_only_operators_may_tag(hub: HubProcess) -> None:
    token = hub.muster("hub", "token", "asker", "--role", "viewer", "--home", str(hub.home)).strip()
    headers = {"Authorization": f"Bearer {token}"}
    asked = httpx.get(f"{hub.url}/api/v1/devices", headers=headers, params={"where": OURS})
    assert asked.status_code == 200
    refused = httpx.post(f"{hub.url}/api/v1/devices/ask-1/tags", headers=headers, json={"add": ["x"]})
    assert refused.status_code == 403
    nobody = httpx.get(f"{hub.url}/api/v1/fleet/query", params={"model": MODEL, "metric": "errors"})
    assert nobody.status_code == 401


@pytest.mark.parametrize(
    "arguments",
    [
        ("device", "tag", "ask-1", "lab"),
        ("device", "tag", "ask-1", "+No Name"),
        ("device", "tag", "ask-1", "+x", "-x"),
        ("device", "tag", "nobody", "+x"),
        ("fleet", "devices", "--where", "site ="),
        ("fleet", "drift", "--matrix"),
        ("fleet", "drift", "--matrix", "--model", MODEL, "--alarms"),
        ("fleet", "drift", "--where", "site ="),
        ("fleet", "drift", "--format", "csv"),
        ("fleet", "drift", "--feature", "input.mean"),
        ("fleet", "drift", "--model", "nobody"),
        ("fleet", "alarms", "--model", "nobody"),
        ("fleet", "health", "--by", "site", "--by", "state"),
        ("fleet", "devices", "--out", "/no/such/folder/x.csv"),
        ("fleet", "devices", "--out", "x.txt"),
        ("fleet", "devices", "--json", "--format", "csv"),
        ("fleet", "drift", "--model", MODEL, "--where", OURS, "--plot", "x.jpg"),
        ("fleet", "devices", "--format", "table", "--out", "x.txt"),
        ("fleet", "drift", "--model", MODEL, "--from", "1999-01-01", "--to", "1999-01-02", "--plot", "x.png"),
    ],
)
def test_a_wrong_command_is_one_clear_line_and_leaves_no_file(
    muster: Muster, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    told, wrong = muster(*arguments)
    assert told == ""
    assert wrong.startswith("error: ")
    assert len(wrong.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_many_questions_at_once_are_answered_one_after_the_other(hub: HubProcess) -> None:
    def ask(_: int) -> int:
        return _get(hub, "/fleet/query", model=MODEL, metric="psi", by="device", where=OURS).status_code

    with ThreadPoolExecutor(12) as askers:
        assert set(askers.map(ask, range(24))) == {200}
