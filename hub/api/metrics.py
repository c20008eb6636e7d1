"""The page for Prometheus: what is looked up when it asks, beside what `hub.metrics` measured.

Every metric stands in ``docs/reference/metrics.md``; a test compares the two. There is never a series for
each device. Models and versions are not bounded by nature, so that only the `MOST_VERSIONS` with the
greatest values have series of their own; the others are added up as `OTHER`.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import version
from typing import TypeVar

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from fleet.rollout.state.rollout import Status
from hub.api.alert_metrics import alert_metrics
from hub.api.services import HubServices
from hub.query.quality import devices_with_concept_drift
from hub.shadows import rollout_shadow
from hub.telemetry.since_start import LE_S, Answers

MOST_VERSIONS = 100
OTHER = "other"
Labels = tuple[str, ...]
Key = TypeVar("Key", bound=Labels)
ModelVersion = tuple[str, str]
_MODEL_VERSION = ("model", "version")


def metrics_page(hub: HubServices) -> bytes:
    """Return everything in Prometheus' text format.

    Args:
        hub: Whose metrics.

    Raises:
        StorageError: The database cannot be read.
    """
    registry = CollectorRegistry(auto_describe=False)
    ProcessCollector(registry=registry)
    registry.register(hub.instruments)
    registry.register(_LookedUp(hub))
    return generate_latest(registry)


class _LookedUp(Collector):
    """All sources, each asked once a page."""

    def __init__(self, hub: HubServices) -> None:
        self._hub = hub

    def collect(self) -> Iterator[Metric]:
        for source in SOURCES:
            yield from source(self._hub)


def gauge(name: str, meaning: str, value: float) -> Metric:
    """Return a gauge without labels."""
    return GaugeMetricFamily(name, meaning, value)


def gauges(name: str, meaning: str, labels: Labels, values: Mapping[Key, float]) -> Metric:
    """Return a gauge for each of some label values."""
    family = GaugeMetricFamily(name, meaning, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def counter(name: str, meaning: str, value: float) -> Metric:
    """Return a counter without labels; ``_total`` is added to its name."""
    return CounterMetricFamily(name, meaning, value)


def counters(name: str, meaning: str, labels: Labels, values: Mapping[Key, float]) -> Metric:
    """Return a counter for each of some label values; ``_total`` is added to its name."""
    family = CounterMetricFamily(name, meaning, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def bounded(values: Mapping[ModelVersion, float], most: int = MOST_VERSIONS) -> dict[ModelVersion, float]:
    """Return values by model and version with a bounded number of keys and the same sum, see `series_of`."""
    sums: dict[ModelVersion, float] = {}
    for key, label in series_of(values, most).items():
        sums[label] = sums.get(label, 0.0) + values[key]
    return sums


def series_of(
    values: Mapping[ModelVersion, float], most: int = MOST_VERSIONS
) -> dict[ModelVersion, ModelVersion]:
    """Return under which labels each model and version is added up: a bounded number.

    Args:
        values: By model and version.
        most: How many keep labels of their own: those with the greatest values. The other versions of their
            models are added up by model, and everything else under `OTHER` twice.
    """
    ranked = sorted(values, key=lambda key: (-values[key], key))
    kept = set(ranked[:most])
    models = {model for model, _ in kept}
    return {key: key if key in kept else (key[0] if key[0] in models else OTHER, OTHER) for key in ranked}


def _build(_: HubServices) -> Iterable[Metric]:
    labels = ("version", "python")
    yield gauges(
        "muster_build_info",
        "1; the labels say what runs.",
        labels,
        {(_VERSION, platform.python_version()): 1},
    )


def _fleet(hub: HubServices) -> Iterable[Metric]:
    hub.states.before_answer()
    judged = hub.store.fleet_health()
    by_health = {(status.value,): float(number) for status, number in judged.by_status.items()}
    running = {
        (model.model, number): float(devices)
        for model in judged.models
        for number, devices in model.by_version.items()
    }
    drifting = {(model.model, ""): float(model.drifting) for model in judged.models}
    alarms = {(model,): number for (model, _), number in bounded(drifting).items()}
    yield gauges("muster_devices", "Devices by health.", ("health",), by_health)
    throttled = float(hub.store.count_throttled())
    yield gauge("muster_devices_throttled", "Devices that heat or power slowed lately.", throttled)
    yield gauges("muster_devices_running", "Devices by version.", _MODEL_VERSION, bounded(running))
    yield gauges("muster_drift_alarms", "Devices with a drift alarm.", ("model",), alarms)
    meaning = "Devices on which labels show concept drift of the version that they are to run."
    yield gauges("muster_concept_drift_alarms", meaning, ("model",), _concept_drift(hub, drifting))


def _concept_drift(hub: HubServices, models: Iterable[ModelVersion]) -> dict[tuple[str], float]:
    """Return on how many devices labels show concept drift, by model; some models in any case."""
    found = {(model, ""): float(number) for model, number in devices_with_concept_drift(hub.store).items()}
    alarms = bounded({**dict.fromkeys(models, 0.0), **found})
    return {(model,): number for (model, _), number in alarms.items()}


def _broker(hub: HubServices) -> Iterable[Metric]:
    meaning = "Whether the hub is connected to the broker."
    yield gauge("muster_broker_connected", meaning, hub.broker_connected())


def _rollouts(hub: HubServices) -> Iterable[Metric]:
    numbers = hub.store.rollout_counts()
    by_status = {(status.value.lower(),): float(numbers.get(status, 0)) for status in Status}
    yield gauges("muster_rollouts", "Rollouts by status.", ("status",), by_status)
    meaning, awaiting = "Rollouts of which a stage waits for approval.", hub.store.count_awaiting_approval()
    yield gauge("muster_rollouts_awaiting_approval", meaning, float(awaiting))
    compared: dict[ModelVersion, float] = {}
    disagreed: dict[ModelVersion, float] = {}
    for row in hub.store.open_rollouts():
        if row.state.plan.shadow_s:
            sums, key = rollout_shadow(hub.store, row.state), (row.state.model, str(row.state.version))
            compared[key] = compared.get(key, 0.0) + sums.compared
            disagreed[key] = disagreed.get(key, 0.0) + sums.disagreed
    meaning = "Samples that a rollout's version computed in the shadow."
    yield gauges("muster_shadow_compared", meaning, _MODEL_VERSION, bounded(compared))
    meaning = "Those on which it disagrees with what answers."
    yield gauges("muster_shadow_disagreed", meaning, _MODEL_VERSION, bounded(disagreed))


def _ingest(hub: HubServices) -> Iterable[Metric]:
    ingest = hub.ingest
    by_channel = {(channel.value,): float(number) for channel, number in ingest.messages_arrived.items()}
    meaning = "Messages of devices that arrived, by channel."
    yield counters("muster_mqtt_messages", meaning, ("channel",), by_channel)
    yield counter("muster_messages_taken", "Messages of devices that were taken in.", ingest.messages_taken)
    meaning = "Messages that became dead letters."
    yield counter("muster_messages_refused", meaning, ingest.messages_refused)
    meaning = "Messages over a device's limit, which come again."
    yield counter("muster_messages_limited", meaning, ingest.floods.limited)
    meaning = "Messages of devices in quarantine, of which nothing is taken."
    yield counter("muster_messages_ignored", meaning, ingest.floods.ignored)
    yield counter("muster_batches", "Batches of messages that were stored.", ingest.batches)
    meaning = "Tries to store a batch that failed; it is tried again, and nothing else is taken in."
    yield counter("muster_failed_writes", meaning, ingest.failed_writes)
    yield gauge("muster_messages_waiting", "Messages that wait to be taken in.", hub.messages_waiting())
    yield gauge("muster_devices_quarantined", "Devices in quarantine.", ingest.floods.quarantined)


def _telemetry(hub: HubServices) -> Iterable[Metric]:
    done = hub.telemetry.progress
    yield counter("muster_windows_counted", "Telemetry windows that were added up.", done.windows)
    meaning = "Telemetry windows that were not, and became dead letters."
    yield counter("muster_windows_refused", meaning, done.refused)
    meaning = "Telemetry windows whose clock is off: they count as of when they were received."
    yield counter("muster_windows_misdated", meaning, done.misdated)
    meaning = "How often devices counted as (other), as there are too many values of an attribute."
    yield counters("muster_cohorts_other", meaning, ("attribute",), dict(hub.telemetry.cohorts.others))
    meaning = "Noised windows that were added up since the hub started; they are in no other number."
    yield counter("muster_noised_windows", meaning, done.noised)
    meaning = "Records that are stored and wait to be added up."
    yield gauge("muster_telemetry_waiting_records", meaning, hub.telemetry.backlog())
    first = hub.store.raw_records_after(hub.store.telemetry_position(), limit=1)
    waited_s = max(0.0, time.time() - first[0].received_at_s) if first else 0.0
    yield gauge("muster_telemetry_waiting_seconds", "How long the first of them has waited.", waited_s)


def _answers(hub: HubServices) -> Iterable[Metric]:
    by_version = {(model, str(number)): a for (model, number), a in dict(hub.telemetry.answers).items()}
    labels = series_of({key: float(answers.scalars[0]) for key, answers in by_version.items()})
    sums: dict[ModelVersion, Answers] = {}
    for key, label in labels.items():
        more = by_version[key]
        sums[label] = sums[label].plus(more) if label in sums else more
    for column, (name, meaning) in enumerate(_ANSWERS):
        numbers = {label: float(answers.scalars[column]) for label, answers in sums.items()}
        yield counters(name, meaning, _MODEL_VERSION, numbers)
    meaning = "How long devices took for an answer."
    took = HistogramMetricFamily("muster_inference_duration_seconds", meaning, labels=_MODEL_VERSION)
    for label, answers in sums.items():
        below = [(f"{edge_s:.9g}", float(n)) for edge_s, n in zip(LE_S, answers.below_edges, strict=True)]
        took.add_metric(label, [*below, ("+Inf", float(answers.latency.sum()))], answers.seconds)
    yield took


def _store(hub: HubServices) -> Iterable[Metric]:
    yield gauge("muster_store_size_bytes", "Size of the database's files.", hub.store.size_bytes())


def _delivery(hub: HubServices) -> Iterable[Metric]:
    delivered = hub.delivery
    yield counter("muster_blob_published_bytes", "Bytes of blobs published.", delivered.bytes_sent)
    outcomes = {
        ("sent",): delivered.chunks_sent,
        ("failed",): delivered.failed_chunks,
        ("limited",): delivered.limited_chunks,
        ("dropped",): delivered.dropped_chunks,
    }
    yield counters("muster_chunks", "Chunks asked for, by outcome.", ("outcome",), outcomes)


_ANSWERS = (
    ("muster_predictions", "Answers of devices that were reported."),
    ("muster_prediction_errors", "Requests to devices that failed."),
    ("muster_predictions_labelled", "Answers of which the truth became known."),
    ("muster_predictions_correct", "Those that were right."),
)
_VERSION = version("muster")
SOURCES: tuple[Callable[[HubServices], Iterable[Metric]], ...] = (
    _build,
    _fleet,
    _broker,
    _rollouts,
    _ingest,
    _telemetry,
    _answers,
    _store,
    _delivery,
    alert_metrics,
)
"""Each gives the metrics of one subject, looked up now."""
