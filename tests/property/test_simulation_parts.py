"""The parts of the simulator, against slow and plain reckoning."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.protocol.maintenance import DAYS, Day, Maintenance, minute_of
from hub.simulation.calendar import Calendar
from hub.simulation.devices import Devices
from hub.simulation.installs import REPORT, until_open_s
from hub.simulation.scenario import Fleet, Offline, Pattern

WHOLE = st.integers(0, 400).map(float)


@given(
    period_s=st.integers(2, 40),
    up=st.integers(1, 40),
    phase_s=st.integers(0, 39),
    at_s=st.integers(0, 200),
    work_s=st.integers(0, 60),
)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_work_goes_on_only_while_a_device_is_up(
    period_s: int, up: int, phase_s: int, at_s: int, work_s: int
) -> None:
    up_s = min(up, period_s)
    devices = Devices(Fleet(), 1, np.random.default_rng(0))
    devices.period_s[:], devices.up_s[:], devices.phase_s[:] = period_s, up_s, phase_s
    half_s, left = at_s + 0.5, work_s  # within a second in which it is up or not, so that nothing is a tie
    found = devices.up_after(np.array([0]), np.array([half_s]), np.array([float(work_s)]))[0]
    moment_s = half_s
    while (moment_s + phase_s) % period_s >= up_s or left:
        if (moment_s + phase_s) % period_s < up_s:
            left -= 1
        moment_s += 1.0
    assert half_s <= found <= moment_s
    up_seconds = sum((half_s + n + phase_s) % period_s < up_s for n in range(int(found - half_s)))
    assert up_seconds <= work_s + 1
    assert (found + phase_s) % period_s < up_s or found == moment_s


def test_who_is_never_there_does_nothing() -> None:
    devices = Devices(Fleet(offline=Offline(share=1.0)), 3, np.random.default_rng(0))
    assert np.isinf(devices.up_from(np.arange(3), np.zeros(3))).all()
    devices = Devices(Fleet(days=Pattern(share=1.0, up_share=1.0)), 3, np.random.default_rng(0))
    assert (devices.up_from(np.arange(3), np.full(3, 5.0)) == 5.0).all()


@given(
    st.lists(st.tuples(st.lists(WHOLE, max_size=8), st.integers(0, 90)), max_size=8),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_a_calendar_gives_everything_once_in_its_order(turns: list[tuple[list[float], int]]) -> None:
    calendar, now_s, number = Calendar(REPORT), 0.0, 0
    waiting: list[tuple[float, int]] = []
    for arrivals, step_s in turns:
        rows = np.zeros(len(arrivals), REPORT)
        rows["arrives_s"], rows["device"] = arrivals, np.arange(number, number + len(arrivals))
        calendar.put(rows)
        waiting += zip(arrivals, range(number, number + len(arrivals)), strict=True)
        number += len(arrivals)
        now_s += step_s
        taken = calendar.take(now_s)
        due = sorted(device for at_s, device in waiting if at_s <= now_s)
        assert sorted(taken["device"].tolist()) == due
        waiting = [one for one in waiting if one[0] > now_s]
        assert len(calendar) == len(waiting)


@given(
    days=st.sets(st.sampled_from(DAYS), min_size=1),
    begins=st.integers(0, 47).map(lambda n: f"{n // 2:02d}:{30 * (n % 2):02d}"),
    ends=st.integers(0, 47).map(lambda n: f"{n // 2:02d}:{30 * (n % 2):02d}"),
    wall_s=st.integers(0, 3 * 7 * 86400),
)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_a_maintenance_window_is_waited_for(days: set[str], begins: str, ends: str, wall_s: int) -> None:
    window = Maintenance(days=tuple(sorted(days)), from_=begins, to=ends)  # type: ignore[arg-type]
    if window.length_minutes == 0:
        return

    def is_open(at_s: float) -> bool:
        for back in (0, 1):
            day = int(at_s // 86400) - back
            since_s = at_s - day * 86400 - minute_of(begins) * 60
            if DAYS[(day + 3) % 7] in days and 0 <= since_s < window.length_minutes * 60:
                return True
        return False

    waits_s = until_open_s(window, np.array([float(wall_s)]))[0]
    assert is_open(wall_s + waits_s)
    assert waits_s == 0 or not is_open(wall_s + waits_s - 1)
    assert is_open(wall_s) == (waits_s == 0)


def test_who_is_never_there_has_no_clock_and_waits_for_no_window() -> None:
    window = Maintenance(days=(Day.MON,), from_="02:00", to="03:00")
    assert until_open_s(window, np.array([np.inf])).tolist() == [0.0]
