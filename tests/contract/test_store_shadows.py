"""The contract of every store: reports of candidates in the shadow, and terms of orders, such as a shadow."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from fleet.protocol.maintenance import Day, Maintenance, Mode
from fleet.protocol.records import ShadowReport
from fleet.protocol.shadow import merge_shadows
from fleet.protocol.windows import MAX_REQUESTS
from hub.store.protocols import Store
from hub.store.rows import OrderChange, ShadowTotals
from tests.support.stores import DIGEST, add_device, incoming, new_rollout, order, records_after

REPORT = ShadowReport(
    started_at_s=10.0,
    ended_at_s=20.0,
    deployment_id="r1-0f",
    model="digits",
    active_version=1,
    version=2,
    manifest_sha256=DIGEST,
    compared=10,
    disagreed=3,
    left_out=1,
    active_latency={20: 10},
    candidate_latency={22: 10},
    pairs=((0, 1, 2), (2, 1, 1)),
)
LATER = msgspec.structs.replace(REPORT, started_at_s=20.0, ended_at_s=30.0, compared=7, pairs=((0, 1, 3),))


def test_reports_of_a_shadow_add_up_once_each(store: Store) -> None:
    add_device(store, "cam-1")
    add_device(store, "cam-2")
    assert store.add_records([incoming("cam-1", 1, REPORT), incoming("cam-1", 2, LATER)]) == 2
    assert store.add_records([incoming("cam-1", 2, LATER), incoming("cam-2", 1, REPORT)]) == 1
    assert store.shadows("digits", 2) == [
        ShadowTotals("cam-1", merge_shadows(REPORT, LATER)),
        ShadowTotals("cam-2", REPORT),
    ]
    assert store.shadows("digits", 1) == store.shadows("letters", 2) == []
    assert [record.body for record in records_after(store, 0, model="digits")] == [REPORT, LATER, REPORT]
    assert store.timeline("cam-1") == []


def test_shadows_beside_different_versions_and_deployments_stay_apart(store: Store) -> None:
    add_device(store, "cam-1")
    beside_other = msgspec.structs.replace(REPORT, active_version=0)
    another = msgspec.structs.replace(REPORT, deployment_id="r2-0f")
    rebuilt = msgspec.structs.replace(REPORT, manifest_sha256="cd" * 32)
    bodies = (REPORT, beside_other, another, rebuilt)
    store.add_records([incoming("cam-1", number, body) for number, body in enumerate(bodies)])
    kept = [row.report for row in store.shadows("digits", 2)]
    assert len(kept) == 4
    assert all(body in kept for body in bodies)


def test_a_report_that_contradicts_itself_counts_nowhere(store: Store) -> None:
    add_device(store, "cam-1")
    odd = msgspec.structs.replace(REPORT, disagreed=11)
    assert store.add_records([incoming("cam-1", 1, odd), incoming("cam-1", 2, REPORT)]) == 2
    assert store.shadows("digits", 2) == [ShadowTotals("cam-1", REPORT)]


def test_sums_stay_readable_whatever_a_device_claims(store: Store) -> None:
    add_device(store, "cam-1")
    add_device(store, "cam-2")
    most = msgspec.structs.replace(REPORT, started_at_s=0.0, ended_at_s=2.0**39, left_out=MAX_REQUESTS - 10)
    claims = [incoming("cam-1", number, most) for number in range(3)]
    beyond = msgspec.structs.replace(most, left_out=2**53)
    assert store.add_records([*claims, incoming("cam-1", 3, beyond), incoming("cam-2", 1, REPORT)]) == 5
    assert store.shadows("digits", 2) == [ShadowTotals("cam-1", most), ShadowTotals("cam-2", REPORT)]


def test_a_device_cannot_invent_shadows_without_end(store: Store) -> None:
    add_device(store, "cam-1")
    add_device(store, "cam-2")
    invented = [msgspec.structs.replace(REPORT, deployment_id=f"r1-{number}") for number in range(100)]
    store.add_records([incoming("cam-2", 1, REPORT)])
    store.add_records([incoming("cam-1", number, body) for number, body in enumerate(invented)])
    kept = [row.report for row in store.shadows("digits", 2) if row.device_id == "cam-1"]
    assert 8 <= len(kept) <= 64
    assert invented[-1] in kept
    assert ShadowTotals("cam-2", REPORT) in store.shadows("digits", 2)


@pytest.mark.parametrize(
    "terms",
    [
        {"shadow_s": 3600},
        {"maintenance": Maintenance((Day.SAT, Day.SUN), "22:00", "02:00")},
        {"mode": Mode.FORCED},
    ],
    ids=["shadow", "window", "mode"],
)
def test_an_order_keeps_its_terms(store: Store, terms: dict[str, Any]) -> None:
    add_device(store, "cam-1")
    row = store.create_rollout(new_rollout, 1.0)
    asked = msgspec.structs.replace(order(), **terms)
    changes = [OrderChange("cam-1", "digits", asked)]
    store.apply_step(row.state, previous=row.state, position=0, changes=changes)
    assert store.desired("cam-1").orders == (asked,)
