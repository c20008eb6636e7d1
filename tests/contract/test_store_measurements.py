"""The contract of every store: what devices measured of variants, and orders that leave a choice."""

from __future__ import annotations

from fleet.protocol.assignment import ModelOrder, VariantPolicy
from hub.store.protocols import Store
from hub.store.rows import MeasurementRow, OrderChange
from tests.support.measurements import DIGEST, candidate, measurement
from tests.support.stores import add_device, incoming, new_rollout, records_after

FAST = measurement(candidate("tflite-int8", 5.0), candidate("onnx-fp32", 9.0))
SLOW = measurement(candidate("tflite-int8", 50.0), candidate("onnx-fp32", 20.0), at_s=20.0)


def test_the_newest_measurement_of_each_device_and_bundle_is_kept(store: Store) -> None:
    add_device(store, "cam-1")
    add_device(store, "cam-2")
    store.add_records([incoming("cam-1", 1, FAST), incoming("cam-2", 1, FAST)])
    store.add_records([incoming("cam-2", 2, SLOW)])
    assert store.measurements(manifest_sha256=DIGEST) == [
        MeasurementRow("cam-1", 20.0, FAST),
        MeasurementRow("cam-2", 20.0, SLOW),
    ]
    assert store.measurements(device_id="cam-1") == [MeasurementRow("cam-1", 20.0, FAST)]
    assert store.measurements(manifest_sha256="cd" * 32) == []


def test_a_measurement_that_comes_late_does_not_replace_a_newer_one(store: Store) -> None:
    add_device(store, "cam-1")
    store.add_records([incoming("cam-1", 2, SLOW)])
    store.add_records([incoming("cam-1", 1, FAST)])
    assert [row.measurement for row in store.measurements()] == [SLOW]
    assert [record.body for record in records_after(store, 0, model="digits")] == [SLOW, FAST]
    assert store.timeline("cam-1") == []


def test_an_order_keeps_what_it_leaves_to_the_device(store: Store) -> None:
    add_device(store, "cam-1")
    add_device(store, "cam-2")
    digest = bytes.fromhex(DIGEST)
    choice = ModelOrder(
        "digits", 1, digest, "onnx-fp32", "r1-0f", ("onnx-int8", "tflite-int8"), VariantPolicy.COOLEST
    )
    plain = ModelOrder("digits", 1, digest, "onnx-fp32", "r1-1f")
    row = store.create_rollout(new_rollout, 1.0)
    changes = [OrderChange("cam-1", "digits", choice), OrderChange("cam-2", "digits", plain)]
    store.apply_step(row.state, previous=row.state, position=0, changes=changes)
    assert store.desired("cam-1").orders == (choice,)
    again = [OrderChange("cam-1", "digits", plain)]
    store.apply_step(row.state, previous=row.state, position=0, changes=again)
    assert store.desired("cam-1").orders == (plain,)
