"""What tests of rollouts with a real store start from: devices, released versions and plans that wait."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fleet.protocol.manifest import Manifest
from fleet.rollout.plans.plan import Gate, Metric, MetricGate, Stage
from hub.store.sqlite import SqliteStore
from tests.support.agent_bundles import build
from tests.support.stores import add_device

GATE = Gate(metrics=(MetricGate(metric=Metric.INFERENCE_ERRORS, margin=0.1, limit=0.3),))
EVERYBODY = Stage(devices="all", minimum_bake_s=1e6, maximum_bake_s=1e7)
"""A stage that waits for ever."""


def released(model: str, version: int) -> tuple[str, Manifest]:
    """Return what a registry knows of a version where each one is released: its digest and its manifest."""
    bundle = build(version, model=model)
    return bundle.sha256, bundle.manifest


@contextmanager
def store_with(folder: Path, device_ids: Iterable[str]) -> Iterator[SqliteStore]:
    """Open a store in which devices are enrolled, for the time of a ``with`` block.

    Args:
        folder: Where its file goes.
        device_ids: Of the devices.
    """
    opened = SqliteStore(folder / "hub.db")
    try:
        for device_id in device_ids:
            add_device(opened, device_id)
        yield opened
    finally:
        opened.close()
