"""What boards expose, in trees of files as their kernels have them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.memory import Memory
from agent.sensors import MAX_FILES, Board, Reading, Sensors, window_of
from fleet.protocol.board import BoardWindow, Gauge
from fleet.protocol.messages import StateReport, decode, encode

FREE = Memory(2**30, 2**29)
NOTHING = Reading(None, None, None, FREE.free_bytes, None, None)
PI = {
    "sys/class/thermal/thermal_zone0/temp": "61322\n",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/cooling_device0/type": "pwm-fan\n",
    "sys/class/thermal/cooling_device0/cur_state": "3\n",
    "sys/devices/platform/soc/soc:firmware/get_throttled": "50000\n",
    "sys/class/hwmon/hwmon1/name": "rpi_volt\n",
    "sys/class/hwmon/hwmon1/in0_lcrit_alarm": "0\n",
    "proc/pressure/cpu": "some avg10=0.00 avg60=0.00 avg300=0.00 total=5000\n",
}


def tree(root: Path, files: Mapping[str, str]) -> Sensors:
    for name, text in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return Sensors(root, lambda: FREE)


def test_a_machine_that_exposes_nothing_has_its_memory(tmp_path: Path) -> None:
    assert Sensors(tmp_path, lambda: FREE).read() == NOTHING


def test_a_raspberry_pi_that_was_throttled_before_is_not_now(tmp_path: Path) -> None:
    assert tree(tmp_path, PI).read() == Reading(61322, None, False, FREE.free_bytes, 5000, None)


@pytest.mark.parametrize(
    "files",
    [
        {"sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n"},
        {"sys/class/hwmon/hwmon1/in0_lcrit_alarm": "1\n"},
        {
            "sys/class/thermal/cooling_device1/type": "cpufreq-cpu0\n",
            "sys/class/thermal/cooling_device1/cur_state": "2\n",
        },
    ],
    ids=["firmware", "undervoltage", "cooling device"],
)
def test_each_sign_of_throttling_counts(tmp_path: Path, files: dict[str, str]) -> None:
    assert tree(tmp_path, {**PI, **files}).read().throttled is True


def test_the_counter_of_x86_tells_what_happened_since_the_reading_before(tmp_path: Path) -> None:
    counters = {
        f"sys/devices/system/cpu/cpu{cpu}/thermal_throttle/core_throttle_count": "7\n" for cpu in (0, 1)
    }
    sensors = tree(tmp_path, counters)
    assert [sensors.read().throttled, sensors.read().throttled] == [False, False]
    tree(tmp_path, {next(iter(counters)): "9\n"})
    assert [sensors.read().throttled, sensors.read().throttled] == [True, False]


def test_the_hottest_sensor_and_the_largest_meter_are_told(tmp_path: Path) -> None:
    sensors = tree(
        tmp_path,
        {
            "sys/class/thermal/thermal_zone0/temp": "40000",
            "sys/class/hwmon/hwmon0/temp1_input": "55500",
            "sys/class/hwmon/hwmon0/temp2_input": "9999999",
            "sys/class/hwmon/hwmon3/name": "ina226",
            "sys/class/hwmon/hwmon3/power1_input": "4800000",
            "sys/class/hwmon/hwmon4/power1_average": "1200000",
            "sys/class/power_supply/BAT0/power_now": "-6500000",
        },
    )
    reading = sensors.read()
    assert (reading.temperature_millidegrees, reading.power_milliwatts) == (55500, 6500)


@pytest.mark.parametrize("text", ["", "hot", "1e3", "0x", "9" * 5000, "\xff\xfe", "\0"])
def test_what_is_no_reading_is_left_out(tmp_path: Path, text: str) -> None:
    sensors = tree(
        tmp_path,
        {
            "sys/class/thermal/thermal_zone0/temp": text,
            "sys/class/hwmon/hwmon0/power1_input": text,
            "sys/devices/platform/soc/soc:firmware/get_throttled": text,
            "sys/class/thermal/cooling_device0/type": "cpufreq-cpu0",
            "sys/class/thermal/cooling_device0/cur_state": text,
            "proc/pressure/cpu": text,
        },
    )
    reading = sensors.read()
    assert reading.temperature_millidegrees is None
    assert reading.power_milliwatts is None
    assert reading.cpu_stalled_us is None


def test_a_folder_in_place_of_a_sensor_and_a_flood_of_sensors_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "sys/class/thermal/thermal_zone9/temp").mkdir(parents=True)
    zones = {f"sys/class/hwmon/hwmon{n}/temp1_input": "30000" for n in range(MAX_FILES + 50)}
    assert tree(tmp_path, zones).read().temperature_millidegrees == 30000


def test_readings_become_a_window() -> None:
    readings = [
        NOTHING._replace(temperature_millidegrees=50000, throttled=False, cpu_stalled_us=1_000_000),
        NOTHING._replace(temperature_millidegrees=70000, throttled=True, cpu_stalled_us=1_500_000),
        NOTHING._replace(cpu_stalled_us=3_000_000),
    ]
    window = window_of(readings, started_at_s=10.0, lasted_s=4.0)
    assert window == BoardWindow(
        started_at_s=10.0,
        ended_at_s=14.0,
        readings=3,
        throttled=1,
        temperature_millidegrees=Gauge(2, 120000, 50000, 70000),
        free_memory_bytes=Gauge(3, 3 * FREE.free_bytes, FREE.free_bytes, FREE.free_bytes),
        cpu_pressure_ppm=Gauge(1, 500000, 500000, 500000),
    )
    report = StateReport(20.0, 1, (), board=window)
    assert decode(encode(report), StateReport).board == window


def test_a_hub_that_does_not_know_boards_reads_the_report_and_a_new_one_reads_old_reports() -> None:
    class OldReport(msgspec.Struct):
        at_s: float
        sequence: int
        models: list[str]
        unacknowledged_records: int = 0

    report = StateReport(20.0, 1, (), board=BoardWindow(1.0, 2.0, 3))
    assert msgspec.msgpack.decode(encode(report), type=OldReport).sequence == 1
    plain = StateReport(20.0, 1, ())
    assert b"board" not in encode(plain)
    assert decode(encode(plain), StateReport) == plain


@given(
    left=st.lists(st.integers(-(10**6), 10**6), min_size=1), right=st.lists(st.integers(-9, 9), min_size=1)
)
def test_gauges_of_two_spans_add_up_to_that_of_both(left: list[int], right: list[int]) -> None:
    one, other, both = Gauge.of(left), Gauge.of(right), Gauge.of([*left, *right])
    assert one is not None
    assert other is not None
    assert both is not None
    assert one.merged(other) == other.merged(one) == both
    assert both.mean == sum([*left, *right]) / len([*left, *right])


def test_a_board_is_read_again_and_again(tmp_path: Path) -> None:
    board = Board(tree(tmp_path, PI), interval_s=0.01, window_s=0.02)

    async def read() -> BoardWindow:
        reading = asyncio.ensure_future(board.keep_reading())
        async with asyncio.timeout(10.0):
            while board.window is None:  # noqa: ASYNC110 - it is set, and nobody is told
                await asyncio.sleep(0.01)
        reading.cancel()
        return board.window

    window = asyncio.run(read())
    assert window.readings >= 2
    assert window.throttled == 0
