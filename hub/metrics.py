"""What the hub measures while it works: requests to the API, and batches of messages written.

What can be looked up when Prometheus asks is not here but in `hub.api.metrics`. Names, units and labels
follow Prometheus' conventions, and a test has ``promtool`` check the page: base units (seconds, bytes) as the
last word of a name, ``_total`` behind counters, and only labels whose values are few.

Sources: Prometheus documentation, "Metric and label naming", "Instrumentation", "Histograms and summaries".
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, disable_created_metrics
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

REQUEST_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
WRITE_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)


class Instruments(Collector):
    """The instruments of one hub; every part that measures something is given them.

    Attributes:
        requests: Requests to the API that were answered, by method, route and class of status.
        request_s: How long they took, by route.
        ingest_write_s: How long a batch of messages took to be stored durably.
    """

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call] # a series more for each, that nobody asks for
        self._registry = CollectorRegistry(auto_describe=False)
        self.requests = Counter(
            "muster_http_requests",
            "Requests to the API that were answered.",
            ("method", "route", "status"),
            registry=self._registry,
        )
        self.request_s = Histogram(
            "muster_http_request_duration_seconds",
            "How long requests to the API took, with their answers.",
            ("route",),
            registry=self._registry,
            buckets=REQUEST_BUCKETS_S,
        )
        self.ingest_write_s = Histogram(
            "muster_ingest_write_duration_seconds",
            "How long a batch of messages took to be stored durably.",
            registry=self._registry,
            buckets=WRITE_BUCKETS_S,
        )

    def collect(self) -> Iterable[Metric]:
        """Return what was measured so far."""
        return self._registry.collect()
