"""Which variant the hub orders, with a real store: forward, and on the way back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from fleet.protocol.assignment import VariantPolicy as P
from fleet.protocol.deployment import DeploymentState
from fleet.protocol.errors import VariantUnsupported
from fleet.protocol.maintenance import Day, Maintenance, Mode
from fleet.protocol.messages import Capabilities
from fleet.rollout.engine import create, step
from fleet.rollout.events import Assign, DeploymentReported, DeploymentsReported, Promote, Start, Supersede
from fleet.rollout.plans.plan import Plan, default_plan, rollback_plan
from fleet.rollout.state.rollout import Kind, Rollout
from hub.store.sqlite import SqliteStore
from hub.variants import Offers
from tests.support.agent_bundles import TFLITE_VARIANT, VARIANT
from tests.support.measurements import HARDWARE, RUNTIMES, candidate, measurement
from tests.support.rollout_shell import released, store_with
from tests.support.stores import greeting, incoming, say

ABLE = Capabilities("0.1.0", "x86_64", RUNTIMES, 2**32, 2**32, HARDWARE)


@pytest.fixture(name="store")
def store_fixture(tmp_path: Path) -> Iterator[SqliteStore]:
    """A store with four devices of one class."""
    devices = [f"cam-{number}" for number in range(4)]
    with store_with(tmp_path, devices) as store:
        for device_id in devices:
            say(store, device_id, 1.0, hello=greeting(ABLE))
        yield store


def rollout(store: SqliteStore, version: int, plan: Plan, kind: Kind = Kind.UPDATE) -> Rollout:
    """Store a rollout to all devices and return it."""
    digest, _ = released("digits", version)
    devices = {f"cam-{number}": None for number in range(4)}
    row = store.create_rollout(
        lambda number: create(
            number=number,
            kind=kind,
            model="digits",
            version=version,
            manifest_sha256=digest,
            plan=plan,
            seed=0,
            devices=devices,
            now_s=1.0,
        ),
        1.0,
    )
    return row.state


def policy(chosen: P) -> Plan:
    return msgspec.structs.replace(default_plan(4), variant_policy=chosen)


def tell_measurement(store: SqliteStore, *numbers: int) -> None:
    """Let devices have measured that version 1 is faster on LiteRT."""
    measured = measurement(candidate(VARIANT, 9.0), candidate(TFLITE_VARIANT, 5.0))
    measured = msgspec.structs.replace(measured, manifest_sha256=released("digits", 1)[0])
    store.add_records([incoming(f"cam-{number}", 1, measured) for number in numbers])


def test_a_rollout_offers_by_its_policy_what_is_known(store: SqliteStore) -> None:
    state = rollout(store, 1, policy(P.FASTEST))
    order = Offers(store, released, state).order(Assign("cam-3", "r1-3f", 1), 1)
    assert (order.variant, order.alternatives, order.policy) == (VARIANT, (TFLITE_VARIANT,), P.FASTEST)
    tell_measurement(store, 0)
    order = Offers(store, released, state).order(Assign("cam-3", "r1-3f", 1), 1)
    assert (order.variant, order.alternatives, order.policy) == (TFLITE_VARIANT, (VARIANT,), P.FASTEST)
    tell_measurement(store, 1, 2)
    order = Offers(store, released, state).order(Assign("cam-3", "r1-3f", 1), 1)
    assert (order.variant, order.alternatives, order.policy) == (TFLITE_VARIANT, (), P.FIRST)


@pytest.mark.parametrize(("brought_by", "variant"), [(P.FASTEST, TFLITE_VARIANT), (P.FIRST, VARIANT)])
@pytest.mark.parametrize("way", ["rollback", "restore"])
def test_a_device_goes_back_to_the_variant_that_it_ran(
    store: SqliteStore, brought_by: P, variant: str, way: str
) -> None:
    rollout(store, 1, policy(brought_by))
    tell_measurement(store, 0)
    if way == "rollback":
        state = rollout(store, 1, rollback_plan(), Kind.ROLLBACK)
    else:
        state = rollout(store, 2, policy(P.COOLEST))
    order = Offers(store, released, state).order(Assign("cam-0", "r2-0b", 1), 1)
    assert (order.version, order.variant, order.policy) == (1, variant, brought_by)


def finish(store: SqliteStore, state: Rollout, *numbers: int) -> None:
    """Let some devices run what a rollout brings, and end it there."""
    parts = [state.deployments.of_device(f"cam-{number}") for number in numbers]
    told = tuple(
        DeploymentReported(part.device_id, part.attempt.deployment_id, DeploymentState.SUCCEEDED, 2.0)
        for part in parts
        if part is not None
    )
    after = state
    for event in (Start("ann"), Promote("ann", ""), DeploymentsReported(told), Supersede("ann", "")):
        after, _ = step(after, event, 2.0)
    store.apply_step(after, previous=state, position=0, changes=[])


@pytest.mark.parametrize("newer", [P.FIRST, P.FASTEST])
@pytest.mark.parametrize("is_read", [True, False])
def test_of_rollouts_side_by_side_the_one_that_brought_it_says_how(
    store: SqliteStore, newer: P, is_read: bool
) -> None:
    older = P.FASTEST if newer is P.FIRST else P.FIRST
    variants = {P.FIRST: VARIANT, P.FASTEST: TFLITE_VARIANT}
    whole = msgspec.structs.replace(default_plan(4), stages=default_plan(4).stages[-1:])
    for chosen, numbers in ((older, (0, 1)), (newer, (2,))):
        plan = msgspec.structs.replace(whole, variant_policy=chosen)
        finish(store, rollout(store, 1, plan), *numbers)
    tell_measurement(store, 0, 2)
    offers = Offers(store, released, rollout(store, 2, policy(P.COOLEST)))
    if is_read:
        offers.read(f"cam-{number}" for number in range(4))
    for number, said in enumerate((older, older, newer, newer)):
        order = offers.order(Assign(f"cam-{number}", f"r3-{number}b", 1), 1)
        assert (number, order.variant) == (number, variants[said])


WINDOW = Maintenance((Day.SAT,), "02:00", "05:00")


def test_a_window_and_a_mode_go_to_agents_that_know_them_and_forward_only(store: SqliteStore) -> None:
    plan = default_plan(4)
    windowed = msgspec.structs.replace(plan, maintenance=WINDOW, deployment_timeout_s=8 * 86400.0)
    state = rollout(store, 2, windowed)
    forced = rollout(store, 2, msgspec.structs.replace(plan, mode=Mode.FORCED))
    with pytest.raises(VariantUnsupported, match="keeps to no plan's window"):
        Offers(store, released, state).order(Assign("cam-0", "r1-0f", 2), 2)
    assert Offers(store, released, forced).order(Assign("cam-0", "r2-0f", 2), 2).mode is Mode.SOFT
    say(store, "cam-0", 2.0, hello=greeting(msgspec.structs.replace(ABLE, keeps_windows=True)))
    order = Offers(store, released, state).order(Assign("cam-0", "r1-0f", 2), 2)
    assert (order.maintenance, order.mode) == (WINDOW, Mode.SOFT)
    assert Offers(store, released, forced).order(Assign("cam-0", "r2-0f", 2), 2).mode is Mode.FORCED
    for rolled in (state, forced):
        back = Offers(store, released, rolled).order(Assign("cam-0", "r1-0b", 1), 1)
        assert (back.maintenance, back.mode) == (None, Mode.SOFT)


def test_an_agent_that_would_refuse_a_shadow_is_sent_none(store: SqliteStore) -> None:
    state = rollout(store, 1, default_plan(4))
    with pytest.raises(VariantUnsupported, match="knows no shadow"):
        Offers(store, released, state).order(Assign("cam-0", "r1-0f", 1, 60), 1)
    say(store, "cam-0", 2.0, hello=greeting(msgspec.structs.replace(ABLE, obeys_wishes=True)))
    assert Offers(store, released, state).order(Assign("cam-0", "r1-0f", 1, 60), 1).shadow_s == 60
