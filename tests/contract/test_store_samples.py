"""The contract of every store: captured samples, and by what policies devices capture them."""

from __future__ import annotations

import numpy as np
import pytest

from fleet.protocol.capture import CapturePolicy
from fleet.protocol.samples import Reason, Sample, SampleMessage, read_sample, tensors_of
from hub.store.protocols import Store
from hub.store.rows import Action, OrderChange
from hub.store.sample_rows import CaptureRow, SampleFilter
from tests.support.stores import DIGEST, STREAM, add_device, new_rollout, order

POLICY = CapturePolicy(2**40, bytes_per_day=1000, sample_bytes=100, uncertain_below=600_000)
OTHER = CapturePolicy(2**40, bytes_per_day=1000, sample_bytes=100, drifted=True, redaction="faces")
DID = Action(5.0, "ana", "Samples of digits are captured.")
BUDGET = 10_000


def sample(at_s: float = 10.0, *, model: str = "digits", reason: Reason = Reason.UNCERTAIN) -> Sample:
    inputs = tensors_of({"x": np.arange(4, dtype=np.float32).reshape(1, 4)})
    return Sample(at_s, model, 1, DIGEST, reason, inputs, category=3, confidence=0.4)


def put(
    store: Store, device_id: str, number: int, kept: Sample | None = None, *, now_s: float = 20.0
) -> bool:
    message = SampleMessage(STREAM, number, kept or sample())
    return store.add_sample(device_id, message, now_s=now_s, budget_bytes=BUDGET)


def numbers(store: Store, wanted: SampleFilter | None = None) -> list[tuple[str, float]]:
    return [(row.device_id, row.received_at_s) for row in store.samples(wanted or SampleFilter())]


def _apply(store: Store, *changes: OrderChange) -> None:
    row = store.create_rollout(new_rollout, 1.0)
    store.apply_step(row.state, previous=row.state, position=0, changes=changes)


def test_a_policy_travels_with_the_orders_of_its_model_and_raises_the_sequence_number(store: Store) -> None:
    add_device(store, "cam-1")
    add_device(store, "cam-2")
    assert store.set_capture("digits", ["cam-1", "nobody"], POLICY, DID) == ["cam-1"]
    assert store.desired("cam-1").orders == ()  # there is no order that it could travel with
    assert (store.desired("cam-1").sequence, store.desired("cam-2").sequence) == (1, 0)
    _apply(
        store,
        OrderChange("cam-1", "digits", order(1)),
        OrderChange("cam-1", "faces", order(1, model="faces")),
    )
    captures = {each.model: each.capture for each in store.desired("cam-1").orders}
    assert captures == {"digits": POLICY, "faces": None}
    _apply(store, OrderChange("cam-1", "digits", order(2)))
    (still, _) = store.desired("cam-1").orders
    assert (still.version, still.capture) == (2, POLICY)
    assert store.actions("cam-1") == [DID]
    assert store.captures(model="digits") == [CaptureRow("cam-1", "digits", POLICY, 5.0, "ana")]


def test_a_policy_is_replaced_and_taken_back_and_what_changes_nothing_is_no_action(store: Store) -> None:
    add_device(store, "cam-1")
    store.set_capture("digits", ["cam-1"], POLICY, DID)
    assert store.set_capture("digits", ["cam-1"], POLICY, DID) == []
    assert store.set_capture("digits", ["cam-1"], OTHER, DID) == ["cam-1"]
    assert [row.policy for row in store.captures(device_id="cam-1")] == [OTHER]
    assert store.set_capture("digits", ["cam-1"], None, DID) == ["cam-1"]
    assert store.set_capture("digits", ["cam-1"], None, DID) == []
    assert store.captures() == []
    assert store.desired("cam-1").sequence == 3
    assert len(store.actions("cam-1")) == 3


def test_a_sample_is_kept_once_also_if_it_was_deleted_meanwhile(store: Store) -> None:
    assert put(store, "cam-1", 1)
    assert not put(store, "cam-1", 1)
    assert put(store, "cam-2", 1)
    assert put(store, "cam-1", 5)  # those between were given up on the device
    assert not put(store, "cam-1", 3)
    assert store.delete_samples(SampleFilter(device_id="cam-1")) == 2
    assert not put(store, "cam-1", 5)
    again = SampleMessage("f" * 16, 1, sample())
    assert store.add_sample("cam-1", again, now_s=20.0, budget_bytes=BUDGET)
    assert len(store.samples(SampleFilter())) == 2


def test_samples_are_listed_in_pages_and_given_back_whole(store: Store) -> None:
    for number in range(1, 6):
        put(store, "cam-1", number, sample(float(number)))
    first = store.samples(SampleFilter(), limit=3)
    rest = store.samples(SampleFilter(), after=first[-1].number, limit=3)
    assert [row.at_s for row in (*first, *rest)] == [1.0, 2.0, 3.0, 4.0, 5.0]
    row = first[0]
    assert (row.model, row.version, row.category, row.confidence, row.size_bytes) == ("digits", 1, 3, 0.4, 16)
    data = store.sample_data([row.number, rest[-1].number, 10**9])
    assert read_sample(data[row.number]) == sample(1.0)
    assert data.keys() == {row.number, rest[-1].number}


@pytest.mark.parametrize(
    ("wanted", "left"),
    [
        (SampleFilter(model="digits"), [("cam-2", 40.0)]),
        (SampleFilter(device_id="cam-1"), [("cam-2", 40.0)]),
        (SampleFilter(reason=Reason.DRIFTED), [("cam-1", 20.0), ("cam-2", 40.0)]),
        (SampleFilter(until_s=30.0), [("cam-1", 30.0), ("cam-2", 40.0)]),
        (SampleFilter(since_s=30.0), [("cam-1", 20.0)]),
        (SampleFilter(device_id="cam-2", until_s=40.0), [("cam-1", 20.0), ("cam-1", 30.0), ("cam-2", 40.0)]),
    ],
    ids=["model", "device", "reason", "until", "since", "none of both"],
)
def test_samples_are_chosen_by_what_is_given(
    store: Store, wanted: SampleFilter, left: list[tuple[str, float]]
) -> None:
    put(store, "cam-1", 1, now_s=20.0)
    put(store, "cam-1", 2, sample(reason=Reason.DRIFTED), now_s=30.0)
    put(store, "cam-2", 1, sample(model="faces"), now_s=40.0)
    listed = numbers(store, wanted)
    assert store.delete_samples(wanted) == len(listed)
    assert numbers(store) == left
    assert not set(listed) & set(left)


def test_over_the_budget_the_oldest_samples_go(store: Store) -> None:
    for number in range(1, 6):
        message = SampleMessage(STREAM, number, sample(float(number)))
        assert store.add_sample("cam-1", message, now_s=20.0, budget_bytes=3 * 16)
    assert [row.at_s for row in store.samples(SampleFilter())] == [3.0, 4.0, 5.0]
    store.delete_samples(SampleFilter(device_id="cam-1"))
    assert store.add_sample("cam-1", SampleMessage(STREAM, 6, sample()), now_s=20.0, budget_bytes=3 * 16)
    assert len(store.samples(SampleFilter())) == 1


def test_what_a_device_sent_since_a_time_is_counted(store: Store) -> None:
    put(store, "cam-1", 1, now_s=20.0)
    put(store, "cam-1", 2, now_s=30.0)
    put(store, "cam-2", 1, now_s=30.0)
    assert store.sample_bytes("cam-1", "digits", since_s=25.0) == 16
    assert store.sample_bytes("cam-1", "digits", since_s=0.0) == 32
    assert store.sample_bytes("cam-1", "faces", since_s=0.0) == 0
