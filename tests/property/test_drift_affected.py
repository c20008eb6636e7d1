"""What affected devices share: exact against the definition, seldom false, and found where it is true."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fleet.drift.affected import FALSE_FIND_RATE, FleetTraits, shared_traits, told
from fleet.drift.alarms import FeatureDrift
from fleet.drift.fleet_alarms import DeviceAlarm, fleet_alarms
from tests.support.thoroughness import ALL

ROUNDS = 600


def fleet_of(rng: np.random.Generator, size: int) -> dict[str, dict[str, str]]:
    """A fleet with attributes of few, many and unique values, and one that few have."""
    return {
        f"cam-{number}": {
            "site": f"s{rng.integers(12)}",
            "hardware": f"h{rng.integers(3)}",
            "firmware": f"f{rng.integers(4)}",
            "lot": f"l{rng.integers(size // 2)}",
            "serial": str(number),
            **({"lens": f"n{rng.integers(2)}"} if rng.random() < 0.2 else {}),
        }
        for number in range(size)
    }


@pytest.mark.thorough
@pytest.mark.parametrize("affected", [2, 5, 12, 60] if ALL else [5, 60])
def test_where_nothing_is_shared_something_is_named_as_seldom_as_is_stated(affected: int) -> None:
    rng = np.random.default_rng(affected)
    devices = fleet_of(rng, 120)
    fleet = FleetTraits(devices)
    drawn = (rng.choice(fleet.device_ids, size=affected, replace=False) for _ in range(ROUNDS))
    false_finds = sum(bool(shared_traits(fleet, list(each))) for each in drawn)
    # the bound holds on average: so many are more than chance makes of it once in a thousand times
    assert false_finds <= stats.binom.ppf(0.999, ROUNDS, FALSE_FIND_RATE)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(
    holders=st.integers(2, 30),
    others=st.integers(1, 60),
    affected_holders=st.integers(0, 30),
    affected_others=st.integers(0, 60),
)
def test_one_value_is_judged_by_fishers_exact_test(
    holders: int, others: int, affected_holders: int, affected_others: int
) -> None:
    inside, outside = min(affected_holders, holders), min(affected_others, others)
    devices = {f"a-{n}": {"camera": "cam-b"} for n in range(holders)} | {f"b-{n}": {} for n in range(others)}
    affected = [f"a-{n}" for n in range(inside)] + [f"b-{n}" for n in range(outside)]
    found = shared_traits(FleetTraits(devices), affected)
    if found:
        table = [[inside, holders - inside], [outside, others - outside]]
        assert found[0].p == pytest.approx(stats.fisher_exact(table, alternative="greater").pvalue, rel=1e-9)
        assert found[0].p <= FALSE_FIND_RATE / 2
        assert found[0].share > found[0].other_holders / max(1, found[0].others)


def test_what_is_shared_is_said_in_a_sentence() -> None:
    devices = {f"cam-{n}": {"camera": "cam-b" if n < 21 else "cam-a"} for n in range(100)}
    shared = shared_traits(FleetTraits(devices), [f"cam-{n}" for n in (*range(9), 50)])
    assert told(shared) == "9 of 10 affected devices have camera=cam-b, against 12 of 90 others (p = 1e-06)"
    assert told(shared_traits(FleetTraits(devices), ["cam-3", "cam-50"])) == (
        "nothing stands out among the affected devices"
    )


def test_a_pair_is_named_where_it_says_more_than_each_of_its_values() -> None:
    devices = {
        f"cam-{n}": {"camera": "ab"[n % 2], "firmware": str(n // 2 % 2), "site": f"s{n % 5}"}
        for n in range(400)
    }
    both = [name for name, has in devices.items() if (has["camera"], has["firmware"]) == ("b", "1")]
    camera = [name for name, has in devices.items() if has["camera"] == "b"]
    fleet = FleetTraits(devices)
    assert shared_traits(fleet, both[:60])[0].trait == {"camera": "b", "firmware": "1"}
    assert [each.trait for each in shared_traits(fleet, camera)] == [{"camera": "b"}]


def test_a_value_that_everybody_has_and_devices_that_nobody_knows_say_nothing() -> None:
    fleet = FleetTraits({f"cam-{n}": {"site": "lyon"} for n in range(50)})
    assert shared_traits(fleet, [f"cam-{n}" for n in range(20)]) == ()
    assert shared_traits(fleet, fleet.device_ids) == ()
    assert shared_traits(fleet, ["unknown-1", "unknown-2"]) == ()
    assert shared_traits(FleetTraits({}), []) == ()


def test_alarms_are_gathered_by_model_and_feature() -> None:
    devices = {f"cam-{n}": {"lens": "dirty" if n < 6 else "clean"} for n in range(40)}
    alarms = [
        DeviceAlarm(
            f"cam-{n}",
            "digits",
            1 + n % 2,
            FeatureDrift(feature, 300, True, 4.0, 5.0 + n),
            10.0 - n,
            20.0 + n,
        )
        for n in range(6)
        for feature in (("input.contrast", "input.mean") if n == 2 else ("input.contrast",))
    ]
    contrast, mean = fleet_alarms(alarms, {"digits": FleetTraits(devices)})
    assert (contrast.feature, contrast.devices) == ("input.contrast", tuple(f"cam-{n}" for n in range(6)))
    assert (contrast.versions, contrast.since_s, contrast.until_s) == ((1, 2), 5.0, 25.0)
    assert (contrast.strongest, contrast.of_devices) == ("cam-5", 40)
    assert [each.trait for each in contrast.shared] == [{"lens": "dirty"}]
    assert contrast.sentence.startswith("6 of 40 devices drift in input.contrast of digits")
    assert (mean.devices, mean.shared) == (("cam-2",), ())
