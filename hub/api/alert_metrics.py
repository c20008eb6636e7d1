"""Metrics of alerts and of what is told of them, for `hub.api.metrics`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from fleet.alerts.alert import Severity, State
from hub.api.services import HubServices


def alert_metrics(hub: HubServices) -> Iterator[Metric]:
    """Yield the metrics of alerts.

    Args:
        hub: Whose.

    Raises:
        StorageError: The database cannot be read.
    """
    counts = hub.store.alert_counts()
    alerts = GaugeMetricFamily("muster_alerts", "Open alerts.", labels=["state", "severity"])
    for state in (State.PENDING, State.FIRING):
        for severity in Severity:
            alerts.add_metric([state.value.lower(), severity.value], counts.get((state, severity), 0))
    yield alerts
    delivery = hub.alerting.delivery
    sent = CounterMetricFamily(
        "muster_notifications", "Messages to receivers, by outcome.", labels=["receiver_kind", "outcome"]
    )
    for (kind, outcome), number in sorted(delivery.counts.items()):
        sent.add_metric([kind, outcome], number)
    yield sent
    waits = Counter(dict.fromkeys(delivery.kinds.values(), 0))
    for tally in hub.store.receiver_tallies():
        if tally.receiver in delivery.kinds:
            waits[delivery.kinds[tally.receiver]] += tally.waiting
    waiting = GaugeMetricFamily(
        "muster_notifications_waiting", "Messages to receivers that wait.", labels=["receiver_kind"]
    )
    for kind, number in sorted(waits.items()):
        waiting.add_metric([kind], number)
    yield waiting
