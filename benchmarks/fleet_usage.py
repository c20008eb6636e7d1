"""What a hub and its broker use, read from ``/proc``: also what those used that were killed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
BROKER = "mosquitto"


class Usage(NamedTuple):
    """What one kind of process used.

    Attributes:
        cpu_s: CPU time of all that there were.
        peak_bytes: Most resident memory of one of them.
    """

    cpu_s: float
    peak_bytes: int


class UsageMeter:
    """Adds up what is read at each `look`; what a process uses after the last one is not seen."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[int, Usage]] = {"hub": {}, BROKER: {}}

    def look(self, hub: int) -> None:
        """Read what the hub of that process number and its broker have used so far."""
        for kind, process in (("hub", hub), *((BROKER, broker) for broker in _brokers(hub))):
            with suppress(OSError):
                self._seen[kind][process] = _usage(process)

    def total(self, kind: str) -> Usage:
        """Return the sum over the processes of a kind, ``hub`` or ``mosquitto``."""
        seen = self._seen[kind].values()
        return Usage(sum(one.cpu_s for one in seen), max((one.peak_bytes for one in seen), default=0))


def _usage(process: int) -> Usage:
    folder = Path(f"/proc/{process}")
    fields = (folder / "stat").read_text().rpartition(")")[2].split()
    peak = next(line for line in (folder / "status").read_text().splitlines() if line.startswith("VmHWM"))
    return Usage((int(fields[11]) + int(fields[12])) / _TICKS_A_SECOND, 1024 * int(peak.split()[1]))


def _brokers(hub: int) -> Iterator[int]:
    """Yield the brokers below a hub; between them is what holds the broker on a leash."""
    for process in (grandchild for child in _children(hub) for grandchild in _children(child)):
        with suppress(OSError):
            if Path(f"/proc/{process}/comm").read_text().strip() == BROKER:
                yield process


def _children(process: int) -> list[int]:
    found: list[int] = []
    with suppress(OSError):
        for task in Path(f"/proc/{process}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found
