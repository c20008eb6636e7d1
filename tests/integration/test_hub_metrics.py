"""The hub's page for Prometheus, as a running hub gives it."""

from __future__ import annotations

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.support.hub import HubProcess
from tests.support.metrics import in_reference, on_page
from tests.support.promtool import promtool


def _page(hub: HubProcess) -> str:
    return httpx.get(f"{hub.url}/metrics", timeout=20).raise_for_status().text


def _value(page: str, name: str, **labels: str) -> float:
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return sample.value
    return 0.0


def test_prometheus_own_tool_finds_nothing_wrong(hub: HubProcess) -> None:
    promtool("check", "metrics", text=_page(hub))


def test_the_reference_has_every_metric_and_no_other(hub: HubProcess) -> None:
    described, exposed = in_reference(), on_page(_page(hub))
    assert {name: metric.kind for name, metric in exposed.items()} == {
        name: metric.kind for name, metric in described.items()
    }
    assert {
        name: metric.labels for name, metric in exposed.items() if metric.labels - described[name].labels
    } == {}


def test_requests_are_counted_by_route_and_never_by_path(hub: HubProcess) -> None:
    before = _page(hub)
    with httpx.Client(base_url=hub.url, headers={"Authorization": f"Bearer {hub.token}"}) as client:
        for number in range(3):
            client.get(f"/api/v1/devices/nobody-{number}")
        client.get("/api/v1/nowhere/at-all")
        client.request("BREW", "/api/v1/devices")
        client.post("/api/v1/rollouts", content=b"x" * 2_000_000)
    after = _page(hub)
    rose = {
        key: _value(after, "muster_http_requests_total", method=key[0], route=key[1], status=key[2])
        - _value(before, "muster_http_requests_total", method=key[0], route=key[1], status=key[2])
        for key in [
            ("GET", "/api/v1/devices/{device_id}", "4xx"),
            ("GET", "none", "4xx"),
            ("POST", "none", "4xx"),
        ]
    }
    assert list(rose.values()) == [3.0, 1.0, 1.0]
    assert "nobody" not in after
    assert "BREW" not in after
    timed = "muster_http_request_duration_seconds_count"
    route = "/api/v1/devices/{device_id}"
    assert _value(after, timed, route=route) - _value(before, timed, route=route) == 3.0


def test_what_runs_and_where_it_is_kept_can_be_read(hub: HubProcess) -> None:
    page = _page(hub)
    assert _value(page, "muster_store_size_bytes") > 10_000
    assert "muster_build_info{" in page
    assert _value(page, "muster_rollouts", status="running") >= 0.0
    assert _value(page, "process_resident_memory_bytes") > 1e7
