"""What the board exposes of itself, read from Linux' interfaces: all of it optional, none of it trusted.

==================  ======================================================================================
quantity            where
==================  ======================================================================================
temperature         the hottest of ``/sys/class/thermal/thermal_zone*/temp`` and
                    ``/sys/class/hwmon/hwmon*/temp*_input``, both in thousandths of °C
throttling          any of: a bit for now in the Raspberry Pi firmware's ``get_throttled``; a
                    ``cooling_device*`` that slows processors and is not at rest; ``core_throttle_count`` of
                    x86 that rose; an undervoltage alarm of hwmon's ``rpi_volt``
power               the largest of hwmon's ``power*_input`` and ``power*_average`` (INA and other meters) and
                    ``/sys/class/power_supply/*/power_now``, all in µW; meters of parts must not add up
free memory         `agent.memory`
pressure            ``/proc/pressure/cpu`` and ``memory``, line ``some``: µs since the start, of which the
                    difference over a span is the share
==================  ======================================================================================

Reading may take long where a sensor hangs on a slow bus: it is done in a thread, one reading at a time, of a
bounded number of files and bytes. A value that cannot be (a temperature of 10,000 °C) is left out.

Sources: the kernel's documentation, ``driver-api/thermal/sysfs-api``, ``hwmon/sysfs-interface``,
``ABI/testing/sysfs-class-power``, ``accounting/psi``; Raspberry Pi documentation, ``vcgencmd get_throttled``.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from agent.memory import Memory, measure_memory
from fleet.protocol.board import BoardWindow, Gauge

MAX_FILES = 128
"""Of each kind."""
_READ_BYTES = 256
_NOW_BITS = 0b1111
"""Of ``get_throttled``: undervoltage, frequency capped, throttled, soft temperature limit; higher bits are of
the past."""
_SLOWS = re.compile(r"cpufreq|devfreq|cpuidle|Processor|intel_powerclamp")
_SOME = re.compile(r"^some .*\btotal=(\d+)", re.MULTILINE)
_MILLION = 1_000_000


class Reading(NamedTuple):
    """The board at one time; None for what it does not expose.

    Attributes:
        temperature_millidegrees: The hottest sensor.
        power_milliwatts: The largest meter.
        throttled: Whether it is throttled now, or was since the reading before.
        free_memory_bytes: How much memory the agent can still have.
        cpu_stalled_us: Since the start of the system.
        memory_stalled_us: Likewise.
    """

    temperature_millidegrees: int | None
    power_milliwatts: int | None
    throttled: bool | None
    free_memory_bytes: int
    cpu_stalled_us: int | None
    memory_stalled_us: int | None


class Sensors:
    """Reads a board.

    Args:
        root: Where ``sys`` and ``proc`` are.
        memory: Tells what memory this process can have.
    """

    def __init__(self, root: Path = Path("/"), memory: Callable[[], Memory] = measure_memory) -> None:
        self._sys = root / "sys"
        self._proc = root / "proc"
        self._memory = memory
        self._throttle_count: int | None = None

    def read(self) -> Reading:
        """Read everything that there is; blocks."""
        return Reading(
            temperature_millidegrees=max(self._temperatures(), default=None),
            power_milliwatts=max(self._powers(), default=None),
            throttled=self._throttled(),
            free_memory_bytes=self._memory().free_bytes,
            cpu_stalled_us=self._stalled_us("cpu"),
            memory_stalled_us=self._stalled_us("memory"),
        )

    def _temperatures(self) -> Iterator[int]:
        for pattern in ("class/thermal/thermal_zone*/temp", "class/hwmon/hwmon*/temp*_input"):
            for value in self._numbers(pattern):
                if -100_000 < value < 300_000 and value != 0:  # a zone that is off reads 0
                    yield value

    def _powers(self) -> Iterator[int]:
        patterns = (
            "class/hwmon/hwmon*/power*_input",
            "class/hwmon/hwmon*/power*_average",
            "class/power_supply/*/power_now",
        )
        for pattern in patterns:
            for microwatts in self._numbers(pattern):
                if 0 < abs(microwatts) < 10**12:  # a battery that is charged may read below zero
                    yield abs(microwatts) // 1000

    def _throttled(self) -> bool | None:
        """Tell whether anything says that the board is slowed; None if nothing can say so."""
        told = [*self._firmware(), *self._cooling(), *self._counted()]
        return any(told) if told else None

    def _firmware(self) -> Iterator[bool]:
        for file in self._files("devices/platform/soc/soc:firmware/get_throttled"):
            bits = _number(_text(file), 16)
            if bits is not None:
                yield bool(bits & _NOW_BITS)
        for file in self._files("class/hwmon/hwmon*/in0_lcrit_alarm"):
            if _text(file.with_name("name")) == "rpi_volt":
                yield _text(file) == "1"

    def _cooling(self) -> Iterator[bool]:
        for file in self._files("class/thermal/cooling_device*/type"):
            if _SLOWS.search(_text(file)):
                state = _number(_text(file.with_name("cur_state")))
                if state is not None:
                    yield state > 0

    def _counted(self) -> Iterator[bool]:
        counts = list(self._numbers("devices/system/cpu/cpu*/thermal_throttle/core_throttle_count"))
        if counts:
            before, self._throttle_count = self._throttle_count, sum(counts)
            yield before is not None and self._throttle_count > before

    def _stalled_us(self, what: str) -> int | None:
        found = _SOME.search(_text(self._proc / "pressure" / what))
        return int(found[1]) if found else None

    def _numbers(self, pattern: str) -> Iterator[int]:
        for file in self._files(pattern):
            value = _number(_text(file))
            if value is not None:
                yield value

    def _files(self, pattern: str) -> Iterator[Path]:
        return islice(self._sys.glob(pattern), MAX_FILES)


class Board:
    """What was read of the board lately, a window at a time.

    Args:
        sensors: Read it.
        interval_s: How long between two readings.
        window_s: How long a window is, at least.
    """

    def __init__(self, sensors: Sensors, *, interval_s: float, window_s: float) -> None:
        self._sensors = sensors
        self._interval_s = min(interval_s, window_s)
        self._window_s = window_s
        self.window: BoardWindow | None = None
        """The last one that has ended; None before the first."""

    async def keep_reading(self) -> None:
        """Read again and again."""
        while True:
            started_at_s, started_s = time.time(), time.monotonic()
            readings = [await asyncio.to_thread(self._sensors.read)]
            while time.monotonic() - started_s < self._window_s:
                await asyncio.sleep(self._interval_s)
                readings.append(await asyncio.to_thread(self._sensors.read))
            lasted_s = time.monotonic() - started_s
            self.window = window_of(readings, started_at_s=started_at_s, lasted_s=lasted_s)


def window_of(readings: list[Reading], *, started_at_s: float, lasted_s: float) -> BoardWindow:
    """Return readings as a window.

    Args:
        readings: At least one, in their order.
        started_at_s: Unix time of the first.
        lasted_s: From the first to the last.
    """
    throttled = [reading.throttled for reading in readings if reading.throttled is not None]
    return BoardWindow(
        started_at_s=started_at_s,
        ended_at_s=started_at_s + lasted_s,
        readings=len(readings),
        throttled=sum(throttled) if throttled else None,
        temperature_millidegrees=Gauge.of(_present(each.temperature_millidegrees for each in readings)),
        power_milliwatts=Gauge.of(_present(each.power_milliwatts for each in readings)),
        free_memory_bytes=Gauge.of(each.free_memory_bytes for each in readings),
        cpu_pressure_ppm=_pressure([each.cpu_stalled_us for each in readings], lasted_s),
        memory_pressure_ppm=_pressure([each.memory_stalled_us for each in readings], lasted_s),
    )


def _pressure(stalled_us: list[int | None], lasted_s: float) -> Gauge | None:
    first, last = stalled_us[0], stalled_us[-1]
    if first is None or last is None or len(stalled_us) < 2 or lasted_s <= 0:
        return None
    share = (last - first) / (lasted_s * _MILLION)
    return Gauge.of([round(_MILLION * min(1.0, max(0.0, share)))])


def _present(values: Iterator[int | None]) -> Iterator[int]:
    return (value for value in values if value is not None)


def _text(file: Path) -> str:
    """Return the beginning of a file, stripped; nothing if it cannot be read."""
    try:
        with file.open("rb") as stream:
            return stream.read(_READ_BYTES).decode("ascii", "replace").strip()
    except OSError:
        return ""


def _number(text: str, base: int = 10) -> int | None:
    try:
        return int(text, base)
    except ValueError:
        return None
