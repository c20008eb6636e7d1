"""Questions about the fleet over a real store: what is added up, by whom, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import msgspec
import numpy as np
import pytest

from fleet.drift.metrics import psi
from fleet.drift.profile import ReferenceProfile, merge_profiles
from fleet.drift.transport import wasserstein
from fleet.health import HealthPolicy
from fleet.protocol.errors import InvalidInput, InvalidTarget, NotFound
from fleet.protocol.windows import merge_windows
from hub.query.comparison import comparison, side_of
from hub.query.devices import Search
from hub.query.drift import histograms, matrix
from hub.query.nothing import check_answer
from hub.query.series import References, series
from hub.query.sums import Question
from hub.query.times import TimeRange
from hub.store.rows import Action, NewDevice
from hub.store.sqlite import SqliteStore
from hub.store.state_rows import StateRules
from hub.store.telemetry_rows import HOUR_S, MINUTE_S
from tests.support.rollups import DeviceWindow, keep_windows, reference, values_window
from tests.support.stores import CAPABILITIES

START_S = 1_700_000_000 // HOUR_S * HOUR_S
HOURS = 3
SITES = {"cam-1": "lyon", "cam-2": "lyon", "cam-3": "oslo"}
REFERENCES = {1: reference(), 2: reference(seed=1)}
GROUP_BY = ("site",)


@pytest.fixture(scope="module")
def windows() -> list[DeviceWindow]:
    """Three devices over three hours; cam-3 runs version 2, which errs, is slow, and drifts from hour 1."""
    rng, sent = np.random.default_rng(5), []
    for hour in range(HOURS):
        for device_id, site in SITES.items():
            version = 2 if device_id == "cam-3" else 1
            window = values_window(
                REFERENCES[version],
                START_S + hour * HOUR_S + 700.0,
                rng=rng,
                shift=1.5 if version == 2 and hour else 0.0,
                version=version,
                errors=60 if version == 2 else 1,
                latency_us=900.0 if version == 2 else 500.0,
            )
            sent.append(DeviceWindow(device_id, {"site": site, "hardware": "pi4"}, window))
    return sent


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, windows: list[DeviceWindow]) -> Iterator[SqliteStore]:
    with closing(SqliteStore(tmp_path_factory.mktemp("store") / "hub.db")) as opened:
        for device_id, site in SITES.items():
            opened.add_enrolment_token(f"token of {device_id}", created_at_s=0.0, expires_at_s=100.0)
            device = NewDevice(device_id, "hash", {"site": site, "floor": device_id[-1]}, CAPABILITIES)
            opened.enrol(device, token_sha256=f"token of {device_id}", now_s=50.0)
        opened.tag("cam-2", add=["lab"], remove=[], action=Action(1.0, "ana", "Tagged."))
        keep_windows(opened, windows)
        yield opened


def _references() -> References:
    def read(_: str, version: int) -> tuple[str, ReferenceProfile]:
        if version not in REFERENCES:
            raise NotFound("no such version")
        return "", REFERENCES[version]

    return References(read, "digits")


def _asked(**changed: Any) -> Question:
    plain = Question("digits", TimeRange(START_S, START_S + HOURS * HOUR_S), HOUR_S, group_by=GROUP_BY)
    return msgspec.structs.replace(plain, **changed)


def _meant(store: SqliteStore, where: str) -> dict[str, Any]:
    return {row.device_id: row for row in Search(store, where).devices()}


@pytest.mark.parametrize(
    ("where", "found"),
    [
        (None, ["cam-1", "cam-2", "cam-3"]),
        ('site == "lyon" and not tag("lab")', ["cam-1"]),
        ('floor >= 2 and architecture == "x86_64"', ["cam-2", "cam-3"]),
        ('tag("nobody")', []),
        ("has(nothing) or online", []),
    ],
)
def test_a_search_finds_the_devices_that_are_meant(
    store: SqliteStore, where: str | None, found: list[str]
) -> None:
    assert [row.device_id for row in Search(store, where).devices()] == found
    assert [row.device_id for row in Search(store, where).devices(after="cam-1", wanted=1)] == [
        device_id for device_id in found if device_id > "cam-1"
    ]


def test_whether_health_is_known_can_be_asked(store: SqliteStore) -> None:
    assert set(_meant(store, "not has(health)")) == set(SITES), "nobody was judged yet"
    store.adopt_rules(StateRules(HealthPolicy(silence_limit_s=100.0), ("site",)))
    store.refresh_states(now_s=START_S, limit=2)
    known = _meant(store, "has(health)")
    assert len(known) == 2
    assert set(_meant(store, "not has(health)")) == set(SITES) - set(known)
    store.refresh_states(now_s=START_S, limit=2)
    assert set(_meant(store, "has(health)")) == set(SITES)


@pytest.mark.parametrize(
    "where",
    [
        'sight == "lyon"',
        'site == "lyon" or not floer < 3',
        'version("digts") > 1',
        'site == "lyon" and not (online or runs("digts"))',
    ],
)
def test_a_search_for_what_nobody_has_is_refused(store: SqliteStore, where: str) -> None:
    with pytest.raises(InvalidTarget):
        Search(store, where)


@pytest.mark.parametrize(
    ("where", "form"),
    [('tag == "lab"', 'tag("'), ("version == 1", 'version("model") == 1'), ('model == "digits"', 'runs("')],
)
def test_what_is_no_attribute_is_refused_with_how_it_is_asked_for(
    store: SqliteStore, where: str, form: str
) -> None:
    with pytest.raises(InvalidTarget) as refused:
        Search(store, where)
    assert form in refused.value.remedy


@pytest.mark.parametrize(("changed", "error"), [({"version": 99}, NotFound), ({"key": "room"}, InvalidInput)])
def test_an_empty_answer_about_what_does_not_exist_is_refused(
    store: SqliteStore, changed: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        check_answer(store, _asked(**changed), [])
    check_answer(store, _asked(**changed), ["something"])
    check_answer(store, _asked(key="site"), [])


def test_a_series_of_the_fleet_adds_all_devices_up(store: SqliteStore, windows: list[DeviceWindow]) -> None:
    metrics = ["predictions", "errors", "error_share", "requests_per_second", "accuracy"]
    rows = list(series(store, _asked(), metrics, _references()).rows)
    assert [row["start_s"] for row in rows] == [START_S, START_S + HOUR_S, START_S + 2 * HOUR_S]
    for row in rows:
        assert row["predictions"] == 1200
        assert row["errors"] == 62
        assert row["error_share"] == pytest.approx(62 / 1262)
        assert row["requests_per_second"] == pytest.approx(1262 / 3600)
        assert row["accuracy"] == 0.5


def test_a_series_by_cohort_is_the_same_from_cohorts_and_from_their_devices(store: SqliteStore) -> None:
    metrics = ["predictions", "errors", "latency_p50_us", "psi"]
    cohorts = series(store, _asked(key="site"), metrics, _references())
    devices = {row.device_id: row for row in Search(store, None).devices()}
    singly = series(store, _asked(key="site", devices=devices), metrics, _references())
    assert list(cohorts.rows) == list(singly.rows)
    assert [(row["site"], row["version"]) for row in cohorts.rows][:2] == [("lyon", 1), ("oslo", 2)]


def test_a_target_leaves_the_other_devices_out(store: SqliteStore) -> None:
    devices = _meant(store, 'tag("lab")')
    rows = list(series(store, _asked(key="device", devices=devices), ["predictions"], _references()).rows)
    assert [(row["device"], row["predictions"]) for row in rows] == [("cam-2", 400)] * HOURS
    nobody = series(store, _asked(devices=_meant(store, 'tag("none")')), ["predictions"], _references())
    assert list(nobody.rows) == []


def test_drift_is_of_a_version_and_of_the_feature_that_is_named(
    store: SqliteStore, windows: list[DeviceWindow]
) -> None:
    mean = REFERENCES[2].features[0]
    third = [sent.window.profile["input.mean"] for sent in windows if sent.device_id == "cam-3"]
    asked = _asked(version=2)
    rows = list(series(store, asked, ["psi", "wasserstein"], _references(), features=["input.mean"]).rows)
    assert [row["version"] for row in rows] == [2] * HOURS
    for row, counts in zip(rows, third, strict=True):
        assert row["psi"] == psi([mean.missing, *mean.cells], [counts.missing, *counts.cells])
        assert row["wasserstein"] == wasserstein(mean, counts)
    assert rows[0]["psi"] < 0.2
    assert rows[1]["psi"] > 1.0


def test_counts_of_a_version_that_is_not_known_have_no_drift(store: SqliteStore) -> None:
    unknown = References(lambda model, version: _raise(), "digits")
    rows = series(store, _asked(), ["predictions", "psi"], unknown).rows
    assert {row["psi"] for row in rows} == {None}
    assert list(matrix(store, _asked(), "psi", unknown).rows) == []
    assert list(histograms(store, _asked(), unknown)) == []


def _raise() -> Any:
    raise NotFound("no such version")


def test_the_matrix_has_every_feature_cohort_and_span(store: SqliteStore) -> None:
    rows = list(matrix(store, _asked(key="site"), "ks", _references()).rows)
    assert len(rows) == 2 * 2 * HOURS
    far = [(row["feature"], row["cohort"], row["start_s"]) for row in rows if row["value"] > 0.3]
    assert far == [("input.mean", "oslo", START_S + hour * HOUR_S) for hour in (1, 2)]
    assert {row["samples"] for row in rows if row["cohort"] == "lyon"} == {800}
    whole = list(matrix(store, _asked(key="device", whole=True), "ks", _references()).rows)
    assert [(row["feature"], row["cohort"], row["samples"]) for row in whole][:2] == [
        ("input.mean", "cam-1", 1200),
        ("input.mean", "cam-2", 1200),
    ]


def test_histograms_are_all_that_was_counted_beside_the_reference(
    store: SqliteStore, windows: list[DeviceWindow]
) -> None:
    found = list(histograms(store, _asked(), _references(), features=["output.class"]))
    assert [(one["feature"], one["version"]) for one in found] == [("output.class", 1), ("output.class", 2)]
    counted: dict[str, Any] = {}
    for sent in windows:
        if sent.window.version == 2:
            counted = merge_profiles(counted, sent.window.profile)
    assert found[1]["current"] == counted["output.class"].cells
    assert found[1]["reference"] == list(REFERENCES[2].features[1].cells)


def test_a_comparison_shows_what_differs_between_versions(store: SqliteStore) -> None:
    sides = side_of("version=1"), side_of(" version == 2 ")
    rows = list(comparison(store, _asked(), sides, lambda _: {}, _references()).rows)
    by_name = {row["quantity"]: row for row in rows}
    assert by_name["error_share"]["left"] == pytest.approx(6 / 2406)
    assert by_name["error_share"]["right"] == pytest.approx(180 / 1380)
    assert by_name["error_share"]["is_shown"]
    assert by_name["latency_p50_us"]["upper"] < 0
    assert not by_name["accuracy"]["is_shown"]
    assert not by_name["output.class"]["is_shown"]
    assert "different edges" in by_name["input.mean"]["sentence"]
    assert by_name["confidence"]["left"] is None


def test_a_comparison_of_cohorts_and_of_a_version_within_one(store: SqliteStore) -> None:
    def devices(where: str) -> dict[str, Any]:
        return _meant(store, where)

    sides = side_of('version=1 and tag("lab")'), side_of('site == "lyon" and not tag("lab")')
    rows = list(comparison(store, _asked(), sides, devices, _references()).rows)
    by_name = {row["quantity"]: row for row in rows}
    assert by_name["error_share"]["left_samples"] == by_name["error_share"]["right_samples"] == 1203
    assert not any(row["is_shown"] for row in rows)
    assert by_name["input.mean"]["lower"] == 0.0
    assert by_name["input.mean"]["left_samples"] == 1200


def test_minutes_are_as_fine_as_they_were_sent(store: SqliteStore) -> None:
    asked = _asked(resolution_s=MINUTE_S, within=TimeRange(START_S + 600, START_S + 900))
    rows = list(series(store, asked, ["predictions"], _references()).rows)
    assert [(row["start_s"], row["predictions"]) for row in rows] == [(START_S + 660, 1200)]


@pytest.mark.parametrize(
    ("changed", "metrics", "features"),
    [
        ({}, ["luck"], []),
        ({}, [], []),
        ({}, ["psi"], ["input.nothing"]),
        ({"within": TimeRange(0.0, START_S), "resolution_s": MINUTE_S}, ["errors"], []),
    ],
)
def test_what_cannot_be_answered_is_refused(
    store: SqliteStore, changed: dict[str, Any], metrics: list[str], features: list[str]
) -> None:
    with pytest.raises(InvalidInput):
        series(store, _asked(**changed), metrics, _references(), features=features)


def test_a_span_that_has_not_ended_is_as_long_as_it_is_until_now(store: SqliteStore) -> None:
    asked = _asked(now_s=START_S + 2 * HOUR_S + 631.0)
    rows = list(series(store, asked, ["requests_per_second"], _references()).rows)
    assert [row["requests_per_second"] for row in rows] == [1262 / 3600, 1262 / 3600, 2.0]
    whole = list(series(store, _asked(whole=True), ["requests_per_second"], _references()).rows)
    assert [row["requests_per_second"] for row in whole] == [pytest.approx(1262 / 3600)]


def test_the_matrix_is_of_drift_alone(store: SqliteStore) -> None:
    with pytest.raises(InvalidInput):
        matrix(store, _asked(), "errors", _references())
    with pytest.raises(InvalidInput):
        side_of("  ")


def test_an_answer_that_rests_on_too_much_is_refused(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hub.query.sums.MAX_ROLLUPS", 5)
    with pytest.raises(InvalidInput, match="rests on"):
        series(store, _asked(key="device"), ["errors"], _references())
    monkeypatch.setattr("hub.query.sums.MAX_PROFILES", 2)
    with pytest.raises(InvalidInput, match="distributions"):
        series(store, _asked(whole=True, key="device"), ["psi"], _references())
    monkeypatch.setattr("hub.query.sums.MAX_DEVICES", 2)
    with pytest.raises(InvalidInput, match="3 devices"):
        series(store, _asked(devices=_meant(store, 'site like "*"')), ["errors"], _references())


def test_sums_are_what_merged_windows_are(store: SqliteStore, windows: list[DeviceWindow]) -> None:
    lyon = [sent.window for sent in windows if sent.cohorts["site"] == "lyon"]
    merged = lyon[0]
    for window in lyon[1:]:
        merged = merge_windows(merged, window)
    asked = _asked(key="site", whole=True)
    rows = list(
        series(store, asked, ["latency_p99_us", "labelled", "requests_per_second"], _references()).rows
    )
    lyon_row = next(row for row in rows if row["site"] == "lyon")
    assert lyon_row["labelled"] == merged.labelled
    assert math.isclose(
        lyon_row["requests_per_second"], (merged.predictions + merged.errors) / (HOURS * HOUR_S)
    )
