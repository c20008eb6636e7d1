"""The contract of every store: state rows and counts are what judging everything anew would give."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.drift.alarms import AlarmState
from fleet.health import (
    DeviceFacts,
    HealthPolicy,
    HealthStatus,
    ModelOnDevice,
    device_health,
    fleet_health,
)
from fleet.protocol.deployment import DeploymentState
from fleet.protocol.errors import Cause, Unavailable
from fleet.protocol.messages import ModelState, StateReport, encode
from fleet.protocol.records import packed
from hub.store.protocols import Store
from hub.store.rows import DriftRow, OrderChange, QuarantineRow
from hub.store.state_rows import GroupCount, StateRules
from hub.store.telemetry_rows import TelemetryStep
from tests.contract.conftest import STORES
from tests.support.stores import (
    add_device,
    greeting,
    incoming,
    new_device,
    new_rollout,
    order,
    report,
    say,
    window,
)
from tests.support.thoroughness import examples

RULES = StateRules(HealthPolicy(silence_limit_s=100.0), ("site",))
STRICT = StateRules(HealthPolicy(silence_limit_s=50.0, minimum_requests=1), ("line",))
DEVICES = ("cam-1", "cam-2", "cam-3", "cam-4")
MODELS = ("digits", "letters")


class Mirror:
    """A store, and beside it what it was told, kept as plainly as can be."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.now_s = 1000.0
        self.rules = RULES
        self._rollout = store.create_rollout(new_rollout, 1.0).state
        self._position = 0
        self._numbers: defaultdict[str, int] = defaultdict(int)
        self.online: dict[str, bool] = {}
        self.seen: dict[str, float] = {}
        self.site: dict[str, str] = {}
        self.runs: defaultdict[str, dict[str, int | None]] = defaultdict(dict)
        self.desired: defaultdict[str, dict[str, int]] = defaultdict(dict)
        self.ends: dict[tuple[str, str], tuple[DeploymentState, Cause | None]] = {}
        self.totals: defaultdict[tuple[str, str, int], list[int]] = defaultdict(lambda: [0, 0])
        self.quarantined: dict[str, float] = {}
        self.drifting: dict[tuple[str, str, int], tuple[str, ...]] = {}
        store.adopt_rules(self.rules)

    def enrol(self, device: str, site: str) -> None:
        if device not in self.online:
            self.store.add_enrolment_token(device, created_at_s=0.0, expires_at_s=1e9)
            attributes = {"site": site, "line": device[-1]} if site else {}
            joining = msgspec.structs.replace(new_device(device), attributes=attributes)
            self.store.enrol(joining, token_sha256=device, now_s=self.now_s)
            self.online[device], self.site[device] = False, site

    def presence(self, device: str, online: bool) -> None:
        say(self.store, device, self.now_s, online=online)
        self.online[device], self.seen[device] = online, self.now_s

    def hello(self, device: str) -> None:
        say(self.store, device, self.now_s, hello=greeting())
        self.online[device], self.seen[device] = True, self.now_s

    def heartbeat(self, device: str) -> None:
        models = tuple(
            ModelState(model, version, "ab" * 32, "onnx", "COMMITTED", None)
            for model, version in self.runs[device].items()
        )
        say(self.store, device, self.now_s, report=StateReport(self.now_s, 0, models))
        self.online[device], self.seen[device] = True, self.now_s

    def runs_now(self, device: str, model: str, version: int | None) -> None:
        self.runs[device][model] = version
        self.heartbeat(device)

    def ordered(self, device: str, model: str, version: int | None) -> None:
        wanted = None if version is None else order(version, model=model)
        changes = [OrderChange(device, model, wanted)]
        self.store.apply_step(self._rollout, previous=self._rollout, position=0, changes=changes)
        self.desired[device].pop(model, None)
        if version is not None:
            self.desired[device][model] = version

    def deployment(self, device: str, model: str, state: DeploymentState) -> None:
        cause = Cause("no_space", "No space.") if state.is_failure else None
        body = msgspec.structs.replace(report(state, model=model), cause=cause)
        self.store.add_records([incoming(device, self._number(device), body)])
        self.ends[device, model] = (state, cause)

    def windows(self, device: str, model: str, version: int, predictions: int, errors: int) -> None:
        key = (device, model, version)
        sums = self.totals[key]
        sums[0] += predictions
        sums[1] += errors
        total = window(model=model, version=version, predictions=sums[0])
        total.errors = sums[1]
        self._counted(totals={key: encode(packed(total))})

    def drift(self, device: str, model: str, version: int, features: tuple[str, ...]) -> None:
        alarm = AlarmState(looks=1, raised=features)
        self._counted(drift=[DriftRow(device, model, version, alarm=alarm)])
        self.drifting[device, model, version] = features

    def quarantine(self, device: str, seconds: float) -> None:
        """As the store keeps them: when one begins, those that are over are forgotten."""
        self.store.begin_quarantine(
            QuarantineRow(device, self.now_s, self.now_s + seconds), Cause("quarantined", "Too much.")
        )
        kept = {key: until_s for key, until_s in self.quarantined.items() if until_s >= self.now_s}
        self.quarantined = {**kept, device: self.now_s + seconds}

    def set_free(self, device: str) -> None:
        self.store.end_quarantine(device)
        self.quarantined.pop(device, None)

    def other_rules(self, rules: StateRules) -> None:
        self.store.adopt_rules(rules)
        self.rules = rules

    def wait(self, seconds: float) -> None:
        self.now_s += seconds

    def refresh(self) -> None:
        while self.store.refresh_states(now_s=self.now_s, limit=3):
            pass

    def facts(self) -> list[DeviceFacts]:
        return [
            DeviceFacts(
                device,
                self.online[device],
                self.seen.get(device),
                tuple(self._models(device)),
                self.quarantined.get(device),
            )
            for device in sorted(self.online)
        ]

    def _models(self, device: str) -> Iterator[ModelOnDevice]:
        runs, desired = self.runs[device], self.desired[device]
        for model in sorted({*desired, *(name for name, version in runs.items() if version is not None)}):
            key = (device, model, runs.get(model) or 0)
            state, cause = self.ends.get((device, model), (None, None))
            predictions, errors = self.totals.get(key, (0, 0))
            yield ModelOnDevice(
                model,
                desired.get(model),
                runs.get(model),
                state,
                cause,
                predictions,
                errors,
                self.drifting.get(key, ()),
            )

    def _counted(self, **changes: Any) -> None:
        """Store what the telemetry pass comes to."""
        step = TelemetryStep(previous=self._position, position=self._position + 1, **changes)
        self.store.save_telemetry(step)
        self._position += 1

    def _number(self, device: str) -> int:
        self._numbers[device] += 1
        return self._numbers[device]


DEVICE, MODEL, VERSION = st.sampled_from(DEVICES), st.sampled_from(MODELS), st.integers(1, 2)
EVENTS = st.one_of(
    st.tuples(st.just("presence"), DEVICE, st.booleans()),
    st.tuples(st.just("hello"), DEVICE),
    st.tuples(st.just("heartbeat"), DEVICE),
    st.tuples(st.just("runs_now"), DEVICE, MODEL, st.none() | VERSION),
    st.tuples(st.just("ordered"), DEVICE, MODEL, st.none() | VERSION),
    st.tuples(st.just("deployment"), DEVICE, MODEL, st.sampled_from(DeploymentState)),
    st.tuples(st.just("windows"), DEVICE, MODEL, VERSION, st.integers(0, 60), st.integers(0, 10)),
    st.tuples(st.just("drift"), DEVICE, MODEL, VERSION, st.sampled_from([(), ("a",), ("a", "b")])),
    st.tuples(st.just("quarantine"), DEVICE, st.sampled_from([10.0, 60.0])),
    st.tuples(st.just("set_free"), DEVICE),
    st.tuples(st.just("other_rules"), st.sampled_from([RULES, STRICT])),
    st.tuples(st.just("wait"), st.sampled_from([1.0, 49.0, 51.0, 200.0])),
)


@contextmanager
def opened(kind: str) -> Iterator[Store]:
    with TemporaryDirectory() as folder:
        store = STORES[kind](Path(folder))
        yield store
        store.close()


def counted(facts: Iterable[DeviceFacts], mirror: Mirror, value: dict[str, str]) -> list[GroupCount]:
    counts: defaultdict[str, dict[HealthStatus, int]] = defaultdict(dict)
    for each in facts:
        status = device_health(each, mirror.now_s, mirror.rules.policy).status
        of_value = counts[value[each.device_id]]
        of_value[status] = of_value.get(status, 0) + 1
    groups = [GroupCount(name or None, sum(found.values()), found) for name, found in counts.items()]
    return sorted(groups, key=lambda group: (-group.devices, group.value or ""))


def paged(store: Store, **narrowed: Any) -> list[tuple[str, str, int]]:
    """Return whose drift the store gives, device after device."""
    found: list[tuple[str, str, int]] = []
    while rows := store.drift_page(limit=1, after=found[-1][0] if found else "", **narrowed):
        assert len({row.device_id for row in rows}) == 1
        found += [(row.device_id, row.model, row.version) for row in rows]
    return found


def check(mirror: Mirror) -> None:
    """Compare everything that the store answers with judging anew what it was told."""
    store, facts = mirror.store, mirror.facts()
    judged = {each.device_id: device_health(each, mirror.now_s, mirror.rules.policy) for each in facts}
    unwell = [
        device_id
        for device_id, health in judged.items()
        if health.status in {HealthStatus.UNHEALTHY, HealthStatus.OFFLINE}
    ]
    assert store.facts(DEVICES) == facts
    assert store.fleet_health() == fleet_health(facts, mirror.now_s, mirror.rules.policy)
    states = store.device_states(DEVICES)
    assert {key: (state.status, state.reasons) for key, state in states.items()} == {
        key: (health.status, health.reasons) for key, health in judged.items()
    }
    assert [state.device_id for state in store.unwell()] == unwell
    assert store.drifting_features(DEVICES) == {
        each.device_id: named
        for each in facts
        if (named := frozenset(name for model in each.models for name in model.drifting))
    }
    assert sum(group.devices for group in store.grouped_by_status().groups) == len(facts)
    key = mirror.rules.group_by[0]
    values = {
        device: (site if key == "site" else device[-1]) if site else ""
        for device, site in mirror.site.items()
    }
    assert list(store.grouped_by_trait(key).groups) == counted(facts, mirror, values)
    current = [
        (device, model, version)
        for device, model, version in sorted(mirror.drifting)
        if mirror.runs[device].get(model) == version and device in mirror.online
    ]
    alarmed = [key for key in current if mirror.drifting[key]]
    assert paged(store, current=False) == sorted(mirror.drifting)
    assert paged(store, current=True) == current
    assert paged(store, current=True, alarms=True) == alarmed
    assert paged(store, current=True, model="digits") == [key for key in current if key[1] == "digits"]
    some = DEVICES[1:3]
    assert paged(store, current=True, devices=some) == [key for key in current if key[0] in some]
    for model in MODELS:
        running = [each for each in facts if any(m.model == model for m in each.models)]
        assert list(store.grouped_by_trait(key, model=model).groups) == counted(running, mirror, values)
        assert [state.device_id for state in store.unwell(model=model)] == [
            each.device_id for each in running if each.device_id in unwell
        ]
        assert store.drifting_devices(model) == [
            each.device_id for each in running if any(m.model == model and m.drifting for m in each.models)
        ]
        assert sorted(store.traits(model)) == [each.device_id for each in running]


@pytest.mark.parametrize("kind", STORES)
@pytest.mark.thorough
@settings(max_examples=examples(20), derandomize=True, deadline=None)
@given(
    sites=st.lists(st.sampled_from(["lyon", "oslo", ""]), min_size=len(DEVICES), max_size=len(DEVICES)),
    events=st.lists(st.tuples(EVENTS, st.booleans()), max_size=25),
)
def test_whatever_happens_states_are_what_judging_anew_gives(
    kind: str, sites: list[str], events: list[tuple[tuple[Any, ...], bool]]
) -> None:
    with opened(kind) as store:
        mirror = Mirror(store)
        for device, site in zip(DEVICES, sites, strict=True):
            mirror.enrol(device, site)
            mirror.ordered(device, "digits", 1)
            mirror.runs_now(device, "digits", 1)
        mirror.refresh()
        for (name, *arguments), looked_at in [*events, (("wait", 0.0), True)]:
            getattr(mirror, name)(*arguments)
            if looked_at:
                mirror.refresh()
                check(mirror)


@pytest.mark.parametrize(
    "event",
    [
        ("presence", "cam-1", False),
        ("runs_now", "cam-1", "digits", 2),
        ("ordered", "cam-1", "digits", 2),
        ("ordered", "cam-1", "digits", None),
        ("deployment", "cam-1", "digits", DeploymentState.FAILED),
        ("windows", "cam-1", "digits", 1, 30, 30),
        ("drift", "cam-1", "digits", 1, ("input.mean",)),
        ("quarantine", "cam-1", 60.0),
        ("set_free", "cam-2"),
    ],
    ids=lambda event: "-".join(map(str, event)),
)
def test_each_change_alone_is_seen(store: Store, event: tuple[Any, ...]) -> None:
    mirror = Mirror(store)
    for device in ("cam-1", "cam-2"):
        mirror.enrol(device, "lyon")
        mirror.ordered(device, "digits", 1)
        mirror.runs_now(device, "digits", 1)
    mirror.quarantine("cam-2", 60.0)
    mirror.refresh()
    check(mirror)
    before = store.fleet_health()
    name, *arguments = event
    getattr(mirror, name)(*arguments)
    assert store.waiting() == 1
    mirror.refresh()
    check(mirror)
    assert store.fleet_health() != before


def test_only_what_changed_is_judged_again(store: Store) -> None:
    mirror = Mirror(store)
    for device in DEVICES:
        mirror.enrol(device, "lyon")
        mirror.heartbeat(device)
    assert store.refresh_states(now_s=mirror.now_s) == len(DEVICES)
    for device in DEVICES:
        mirror.heartbeat(device)
    assert store.refresh_states(now_s=mirror.now_s) == 0, "a heartbeat as before changes nothing"
    mirror.runs_now("cam-2", "digits", 1)
    assert store.refresh_states(now_s=mirror.now_s) == 1
    store.adopt_rules(mirror.rules)
    assert store.refresh_states(now_s=mirror.now_s) == 0, "these are the rules already"
    store.adopt_rules(STRICT)
    assert store.refresh_states(now_s=mirror.now_s, limit=3) == 3
    assert store.refresh_states(now_s=mirror.now_s, limit=3) == 1


def test_silence_is_found_without_a_message_and_ends_with_one(store: Store) -> None:
    mirror = Mirror(store)
    mirror.enrol("cam-1", "lyon")
    mirror.heartbeat("cam-1")
    mirror.refresh()
    mirror.now_s += 100.0
    assert store.refresh_states(now_s=mirror.now_s) == 0
    mirror.now_s += 0.5
    assert store.refresh_states(now_s=mirror.now_s) == 1
    assert store.device_states(["cam-1"])["cam-1"].reasons == ("not heard of for more than 100 s",)
    mirror.heartbeat("cam-1")
    assert store.refresh_states(now_s=mirror.now_s) == 1
    assert store.device_states(["cam-1"])["cam-1"].status is HealthStatus.HEALTHY


def test_groups_beyond_the_largest_are_added_up(store: Store) -> None:
    mirror = Mirror(store)
    for number, site in enumerate("aaabbcdef"):
        mirror.enrol(f"cam-{number}", site)
    mirror.enrol("cam-9", "")
    mirror.refresh()
    groups = store.grouped_by_trait("site", limit=2)
    assert [(group.value, group.devices) for group in groups.groups] == [("a", 3), ("b", 2)]
    assert (groups.values, groups.others and groups.others.devices) == (7, 5)
    everything = store.grouped_by_trait("site", limit=7)
    assert (everything.others, len(everything.groups)) == (None, 7)
    assert [(group.value, group.devices) for group in store.grouped_by_trait("hardware").groups] == [
        (None, 10)
    ]
    assert store.grouped_by_trait("line").groups == (), "devices are not grouped by it"


def test_devices_are_grouped_by_version_and_model(store: Store) -> None:
    mirror = Mirror(store)
    for device, version in zip(DEVICES, (1, 1, 2, None), strict=True):
        mirror.enrol(device, "lyon")
        mirror.ordered(device, "digits", 1)
        mirror.runs_now(device, "digits", version)
    mirror.runs_now("cam-1", "letters", 7)
    mirror.refresh()
    named = [(group.value, group.devices) for group in store.grouped_by_version().groups]
    assert named == [("digits 1", 2), ("digits 2", 1), ("digits none", 1), ("letters 7", 1)]
    assert [group.value for group in store.grouped_by_version(model="letters").groups] == ["letters 7"]
    assert store.grouped_by_version(model="unknown").groups == ()


def test_unwell_devices_come_in_pages(store: Store) -> None:
    mirror = Mirror(store)
    for device in DEVICES:
        mirror.enrol(device, "lyon")
    mirror.refresh()
    first = store.unwell(limit=3)
    assert [state.device_id for state in first] == ["cam-1", "cam-2", "cam-3"]
    assert [state.device_id for state in store.unwell(after="cam-3", limit=3)] == ["cam-4"]


def test_what_devices_are_is_told_for_a_model(store: Store) -> None:
    mirror = Mirror(store)
    mirror.enrol("cam-1", "lyon")
    mirror.ordered("cam-1", "digits", 1)
    mirror.runs_now("cam-1", "digits", 1)
    mirror.refresh()
    assert store.traits("digits") == {
        "cam-1": {
            "site": "lyon",
            "line": "1",
            "architecture": "x86_64",
            "agent": "0.1.0",
            "runtime.onnxruntime": "1.31.1",
            "version": "1",
            "variant": "onnx-fp32",
        }
    }


def test_without_rules_nothing_is_judged(store: Store) -> None:
    add_device(store, "cam-1")
    with pytest.raises(Unavailable):
        store.refresh_states(now_s=0.0)
    assert (store.fleet_health().devices, store.device_states(["cam-1"])) == (0, {})


def test_the_newest_report_of_each_device_and_model_counts(store: Store) -> None:
    mirror = Mirror(store)
    mirror.enrol("cam-1", "lyon")
    for model in MODELS:
        mirror.ordered("cam-1", model, 1)
    failed, done = report(DeploymentState.FAILED), report(DeploymentState.SUCCEEDED)
    store.add_records([incoming("cam-1", 1, failed), incoming("cam-1", 2, done)])
    store.add_records([incoming("cam-1", 3, report(model="letters")), incoming("cam-1", 1, failed)])
    [facts] = store.facts(["cam-1"])
    assert [(model.model, model.deployment) for model in facts.models] == [
        ("digits", DeploymentState.SUCCEEDED),
        ("letters", DeploymentState.TRIAL),
    ]
