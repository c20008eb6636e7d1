"""Routes outside the API: ``/healthz`` for whoever restarts the hub, ``/metrics`` for Prometheus."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from fleet.health import fleet_health
from fleet.protocol.errors import StorageError
from hub.api.services import Hub, HubServices
from hub.health import fleet_facts
from hub.shadows import rollout_shadow
from hub.store.rows import RolloutRow

router = APIRouter(tags=["operations"])


@router.get("/healthz")
def healthz(hub: Hub, response: Response) -> dict[str, bool]:
    """Return 200 while the hub can serve devices, 503 while its database or broker fails it."""
    try:
        hub.store.last_position()
        database = True
    except StorageError:
        database = False
    broker = hub.broker_connected()
    response.status_code = 200 if database and broker else 503
    return {"database": database, "broker": broker}


@router.get("/metrics")
def metrics(hub: Hub) -> Response:
    """Return the hub's metrics; labels are bounded, there is never a series for each device."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_HubCollector(hub))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


class _HubCollector(Collector):
    """Reads the metrics when they are asked for. All are listed in ``docs/reference/metrics.md``."""

    def __init__(self, hub: HubServices) -> None:
        self._hub = hub

    def collect(self) -> Iterable[Metric]:
        hub = self._hub
        judged = fleet_health(fleet_facts(hub.store), time.time(), hub.health_policy)
        devices = GaugeMetricFamily("muster_devices", "Devices by health.", labels=["health"])
        for status, number in judged.by_status.items():
            devices.add_metric([status.value], number)
        yield devices
        running = GaugeMetricFamily(
            "muster_devices_running", "Devices by version.", labels=["model", "version"]
        )
        drifting = GaugeMetricFamily("muster_drift_alarms", "Devices with a drift alarm.", labels=["model"])
        for model in judged.models:
            drifting.add_metric([model.model], len(model.drifting))
            for version, number in model.by_version.items():
                running.add_metric([model.model, version], number)
        yield running
        yield drifting
        yield GaugeMetricFamily(
            "muster_broker_connected", "Whether the hub is connected to the broker.", hub.broker_connected()
        )
        rollouts = hub.store.open_rollouts()
        yield GaugeMetricFamily("muster_rollouts_open", "Rollouts under way.", len(rollouts))
        yield from _shadow_metrics(hub, rollouts)
        counters = hub.delivery
        yield CounterMetricFamily(
            "muster_messages_taken", "Messages of devices that were taken in.", hub.ingest.messages_taken
        )
        yield CounterMetricFamily(
            "muster_messages_refused", "Messages that became dead letters.", hub.ingest.messages_refused
        )
        yield CounterMetricFamily(
            "muster_blob_bytes_published", "Bytes of blobs published.", counters.bytes_sent
        )
        chunks = CounterMetricFamily("muster_chunks", "Chunks asked for, by outcome.", labels=["outcome"])
        for outcome, number in (
            ("sent", counters.chunks_sent),
            ("failed", counters.failed_chunks),
            ("limited", counters.limited_chunks),
            ("dropped", counters.dropped_chunks),
        ):
            chunks.add_metric([outcome], number)
        yield chunks


def _shadow_metrics(hub: HubServices, rollouts: Sequence[RolloutRow]) -> Iterable[Metric]:
    """Yield how the versions of rollouts under way do in the shadow, where their plans ask for it."""
    labels = ["model", "version"]
    compared = GaugeMetricFamily(
        "muster_shadow_compared", "Samples that a rollout's version computed in the shadow.", labels=labels
    )
    disagreed = GaugeMetricFamily(
        "muster_shadow_disagreed", "Those on which it disagrees with what answers.", labels=labels
    )
    for row in rollouts:
        if row.state.plan.shadow_s:
            sums, version = rollout_shadow(hub.store, row.state), [row.state.model, str(row.state.version)]
            compared.add_metric(version, sums.compared)
            disagreed.add_metric(version, sums.disagreed)
    yield compared
    yield disagreed
