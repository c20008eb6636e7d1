"""A running hub sends traces of its work to a collector."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.hub import HubProcess
from tests.support.otlp_receiver import OtlpReceiver, attributes, otlp_receiver
from tests.support.waiting import eventually


@pytest.fixture
def collector() -> Iterator[OtlpReceiver]:
    """A collector."""
    with otlp_receiver() as receiver:
        yield receiver


def test_requests_are_traced_by_route_without_names_or_secrets(
    collector: OtlpReceiver, tmp_path: Path
) -> None:
    home = tmp_path / "hub"
    with HubProcess(home, broker="embedded", settings={"otlp_endpoint": collector.url}) as hub:
        headers = {"Authorization": f"Bearer {hub.token}"}
        assert httpx.get(f"{hub.url}/api/v1/devices/secret-camera", headers=headers).status_code == 404
        name = "GET /api/v1/devices/{device_id}"
        eventually(lambda: collector.spans(name) != [], "the request's span arrives", timeout_s=15.0)
    (request,) = collector.spans(name)
    assert attributes(list(request.attributes)) == {
        "http.request.method": "GET",
        "http.route": "/api/v1/devices/{device_id}",
        "muster.status_class": "4xx",
    }
    everything = b"".join(taken.SerializeToString() for taken in collector.requests)
    assert hub.token.encode() not in everything
    assert b"secret-camera" not in everything
