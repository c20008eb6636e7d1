"""The hub's API as programs meet it: authentication, roles, pages, and typed errors for all bad input."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from fleet.protocol.enrolment import parse_token
from tests.support.hub import HubProcess
from tests.support.waiting import eventually


def _call(
    hub: HubProcess, method: str, path: str, *, token: str | None = "admin", **arguments: Any
) -> httpx.Response:
    """Call a path as whoever holds a token; "admin" stands for the admin's."""
    token = hub.token if token == "admin" else token
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return httpx.request(method, f"{hub.url}{path}", headers=headers, timeout=20, **arguments)


def _expect_problem(response: httpx.Response, status: int, code: str) -> str:
    """Check the form of problem details and return what they say."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["status"] == status
    assert body["code"] == code
    assert body["type"] == f"urn:muster:error:{code}"
    assert body["title"]
    assert "Traceback" not in response.text
    detail: str = body["detail"]
    return detail


@pytest.mark.parametrize("token", [None, "wrong", "muster_" + "x" * 43])
def test_nothing_is_told_to_strangers(hub: HubProcess, token: str | None) -> None:
    for path in ("/devices", "/datasets", "/models", "/rollouts", "/fleet/health", "/drift"):
        response = _call(hub, "GET", f"/api/v1{path}", token=token)
        _expect_problem(response, 401, "not_authenticated")
        assert response.headers["www-authenticate"] == "Bearer"


def test_roles_include_the_ones_below(hub: HubProcess) -> None:
    viewer = hub.muster("hub", "token", "ana", "--role", "viewer", "--home", str(hub.home)).strip()
    operator = hub.muster("hub", "token", "bo", "--role", "operator", "--home", str(hub.home)).strip()
    assert _call(hub, "GET", "/api/v1/devices", token=viewer).status_code == 200
    refused = _call(hub, "POST", "/api/v1/rollouts/99/start", token=viewer)
    _expect_problem(refused, 403, "not_permitted")
    _expect_problem(_call(hub, "POST", "/api/v1/rollouts/99/start", token=operator), 404, "not_found")
    refused = _call(hub, "POST", "/api/v1/enrolment-tokens", token=operator, json={})
    _expect_problem(refused, 403, "not_permitted")


def test_no_token_is_stored_in_the_clear(hub: HubProcess) -> None:
    enrolment = _call(hub, "POST", "/api/v1/enrolment-tokens", json={}).json()["token"]
    secrets = [hub.token.encode(), parse_token(enrolment).secret.encode()]
    for file in hub.home.rglob("*"):
        if file.is_file() and file.suffix != ".pem":
            data = file.read_bytes()
            assert not any(secret in data for secret in secrets), file


def test_the_documentation_of_the_api_is_served(hub: HubProcess) -> None:
    schema = _call(hub, "GET", "/api/v1/openapi.json", token=None).json()
    assert "/api/v1/rollouts/{number}/abort" in schema["paths"]
    assert _call(hub, "GET", "/api/v1/docs", token=None).status_code == 200


def test_health_and_metrics_need_no_token(hub: HubProcess) -> None:
    assert _call(hub, "GET", "/healthz", token=None).json() == {"database": True, "broker": True}
    assert _call(hub, "GET", "/metrics", token=None).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/models/digits/versions/99", None),
        ("GET", "/models/nothing/versions/1", None),
        ("GET", "/datasets/nothing", None),
        ("GET", "/devices/nobody", None),
        ("GET", "/devices/nobody/timeline", None),
        ("GET", "/rollouts/99", None),
        ("GET", "/rollouts/99/history", None),
        ("GET", "/rollouts/99/shadow", None),
        ("POST", "/rollouts/99/start", {}),
        ("POST", "/models/digits/versions/99/release", {}),
        ("POST", "/rollouts", {"model": "digits", "version": 99}),
        ("POST", "/rollouts", {"model": "nothing", "version": 1}),
        ("POST", "/rollbacks", {"model": "digits", "to": 99}),
        ("POST", "/models/new/versions", {"dataset": "nothing"}),
        ("GET", "/samples?model=nothing", None),
        ("POST", "/samples/delete", {"device_id": "nobody"}),
        ("GET", "/no-such-route", None),
    ],
)
def test_what_does_not_exist_is_not_found(hub: HubProcess, method: str, path: str, body: Any) -> None:
    _expect_problem(_call(hub, method, f"/api/v1{path}", json=body), 404, "not_found")


def _plan(**changes: Any) -> dict[str, Any]:
    plan: dict[str, Any] = {
        "stages": [{"devices": "all", "minimum_bake_s": 1, "maximum_bake_s": 2}],
        "gate": {"metrics": [{"metric": "label_errors", "margin": 0.1, "limit": 0.3}]},
    }
    return {**plan, **changes}


@pytest.mark.parametrize(
    ("plan", "mentions"),
    [
        (_plan(stages=[]), "stages"),
        (_plan(stages=[{"devices": "150%", "minimum_bake_s": 1, "maximum_bake_s": 2}]), "Stage 1"),
        (_plan(stages=[{"devices": "all", "minimum_bake_s": 3, "maximum_bake_s": 2}]), "Stage 1"),
        (_plan(gate={"metrics": [{"metric": "luck", "margin": 0.1, "limit": 0.3}]}), "luck"),
        (_plan(gate={"metrics": [{"metric": "label_errors", "margin": "low", "limit": 0.3}]}), "margin"),
        (_plan(wish="please"), "wish"),
        ({}, "stages"),
    ],
)
def test_a_plan_that_cannot_be_understood_is_refused(hub: HubProcess, plan: Any, mentions: str) -> None:
    body = {"model": "digits", "version": 1, "plan": plan}
    detail = _expect_problem(_call(hub, "POST", "/api/v1/rollouts", json=body), 422, "invalid_plan")
    assert mentions in detail


def test_a_rollout_to_nobody_is_refused(hub: HubProcess) -> None:
    body = {"model": "digits", "version": 1, "devices": []}
    _expect_problem(_call(hub, "POST", "/api/v1/rollouts", json=body), 422, "invalid_plan")
    body = {"model": "digits", "version": 1, "devices": ["nobody"]}
    _expect_problem(_call(hub, "POST", "/api/v1/rollouts", json=body), 404, "not_found")


def test_a_rollback_of_nobody_is_refused(hub: HubProcess) -> None:
    response = _call(hub, "POST", "/api/v1/rollbacks", json={"model": "digits", "to": 1})
    _expect_problem(response, 422, "invalid_plan")


@pytest.mark.parametrize(
    "body",
    [
        {"dataset": "digits", "estimator": "oracle"},
        {"dataset": "digits", "estimator": "mlp", "hyperparameters": {"hidden": -1}},
        {"dataset": "digits", "estimator": "mlp", "hyperparameters": {"luck": 7}},
    ],
)
def test_a_training_that_cannot_be_done_is_refused(hub: HubProcess, body: dict[str, Any]) -> None:
    response = _call(hub, "POST", "/api/v1/models/refused/versions", json=body)
    _expect_problem(response, 422, "invalid_model")
    assert _call(hub, "GET", "/api/v1/models", params={"model": "refused"}).json()["items"] == []


@pytest.mark.parametrize(
    ("method", "path", "arguments"),
    [
        ("POST", "/rollouts", {"content": b"{"}),
        ("POST", "/rollouts", {"json": {"model": "digits"}}),
        ("POST", "/rollouts", {"json": {"model": "digits", "version": 1, "wish": 1}}),
        ("POST", "/rollouts", {"json": {"model": "../../etc", "version": 1}}),
        ("GET", "/devices", {"params": {"limit": "0"}}),
        ("GET", "/devices", {"params": {"limit": "100000"}}),
        ("GET", "/rollouts", {"params": {"after": "x"}}),
        ("GET", "/models", {"params": {"after": "digits@x"}}),
        ("GET", "/rollouts/x", {}),
        ("POST", "/enrol", {"content": b"\xff\xfe"}),
        ("POST", "/enrol", {"json": {"secret": "x"}}),
    ],
)
def test_a_malformed_request_is_refused(hub: HubProcess, method: str, path: str, arguments: Any) -> None:
    _expect_problem(_call(hub, method, f"/api/v1{path}", **arguments), 422, "invalid_input")


@pytest.mark.parametrize(
    "arrays",
    [
        {"features": np.zeros((50, 4)), "classes": np.array(["a", "b"])},
        {"features": np.full((50, 4), np.nan), "labels": np.arange(50) % 2, "classes": np.array(["a", "b"])},
        {"features": np.zeros((49, 4)), "labels": np.arange(50) % 2, "classes": np.array(["a", "b"])},
        {"features": np.zeros((50, 4)), "labels": np.arange(50) % 3, "classes": np.array(["a", "b"])},
    ],
    ids=["labels missing", "NaN", "other lengths", "label without class"],
)
def test_a_corrupt_dataset_is_refused_and_nothing_is_kept(
    hub: HubProcess, tmp_path: Path, arrays: dict[str, Any]
) -> None:
    np.savez(tmp_path / "corrupt.npz", **arrays)
    body = (tmp_path / "corrupt.npz").read_bytes()
    before = sorted((hub.home / "datasets").rglob("*"))
    _expect_problem(_call(hub, "PUT", "/api/v1/datasets/corrupt", content=body), 422, "invalid_dataset")
    _expect_problem(_call(hub, "PUT", "/api/v1/datasets/corrupt", content=body[:100]), 422, "invalid_dataset")
    _expect_problem(_call(hub, "GET", "/api/v1/datasets/corrupt"), 404, "not_found")
    assert sorted((hub.home / "datasets").rglob("*")) == before


def test_a_dataset_never_changes_under_its_name(hub: HubProcess, tmp_path: Path) -> None:
    features = np.arange(200.0).reshape(50, 4)
    for seed in (0, 1):
        labels = (np.arange(50) + seed) % 2
        np.savez(tmp_path / f"{seed}.npz", features=features, labels=labels, classes=np.array(["a", "b"]))
    first, second = ((tmp_path / f"{seed}.npz").read_bytes() for seed in (0, 1))
    assert _call(hub, "PUT", "/api/v1/datasets/steady", content=first).status_code == 201
    assert _call(hub, "PUT", "/api/v1/datasets/steady", content=first).status_code == 201
    _expect_problem(_call(hub, "PUT", "/api/v1/datasets/steady", content=second), 409, "conflict")


def test_lists_come_in_pages(hub: HubProcess, tmp_path: Path) -> None:
    features, labels = np.arange(200.0).reshape(50, 4), np.arange(50) % 2
    np.savez(tmp_path / "page.npz", features=features, labels=labels, classes=np.array(["a", "b"]))
    for name in ("page-1", "page-2", "page-3"):
        hub.client.upload(f"/datasets/{name}", tmp_path / "page.npz")
    everything = [row["name"] for row in hub.client.pages("/datasets", limit=1)]
    assert everything == sorted(everything)
    assert {"page-1", "page-2", "page-3"} <= set(everything)


def test_an_unreleased_version_cannot_be_rolled_out(hub: HubProcess) -> None:
    body = {"dataset": "digits", "estimator": "logistic", "minimum_accuracy": 1.0}
    version = _call(hub, "POST", "/api/v1/models/strict/versions", json=body).json()
    assert version["status"] == "TRAINING"
    path = "/api/v1/models/strict/versions/1"
    eventually(lambda: _call(hub, "GET", path).json()["status"] == "FAILED", "the training failed")
    assert _call(hub, "GET", path).json()["cause"]["code"] == "accuracy_too_low"
    _expect_problem(_call(hub, "POST", f"{path}/release", json={}), 409, "conflict")
    response = _call(hub, "POST", "/api/v1/rollouts", json={"model": "strict", "version": 1})
    _expect_problem(response, 409, "conflict")


@pytest.mark.parametrize("token", [None, "admin"])
def test_a_request_that_is_too_large_is_refused_before_it_is_parsed(
    hub: HubProcess, token: str | None
) -> None:
    for content in (b"0" * 2_000_000, iter([b"[" * 100_000] * 20)):
        response = _call(hub, "POST", "/api/v1/rollouts", token=token, content=content)
        _expect_problem(response, 413, "message_too_large")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", f"/rollouts/{10**20}", None),
        ("GET", f"/models/digits/versions/{10**25}", None),
        ("GET", f"/rollouts?after={10**23}", None),
        ("POST", "/rollouts", {"model": "digits", "version": 10**20}),
        ("POST", "/rollbacks", {"model": "digits", "to": 10**20}),
        ("POST", "/rollouts/1/promote", {"reason": ""}),
    ],
)
def test_a_number_beyond_all_bounds_is_refused(hub: HubProcess, method: str, path: str, body: Any) -> None:
    _expect_problem(_call(hub, method, f"/api/v1{path}", json=body), 422, "invalid_input")
