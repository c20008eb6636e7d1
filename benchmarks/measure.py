"""What things cost: a process its seconds and memory, a call its time, an environment its bytes."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

K = TypeVar("K", bound=Hashable)

ROOT = Path(__file__).parents[1]
_ERROR = re.compile(r"[\w.]+(Error|Exception): ")
"""The last line of a traceback."""


class Run(NamedTuple):
    """One run of a program.

    Attributes:
        wall_s: From its start to its end.
        peak_bytes: Most resident memory of the process, or of the largest that it waited for.
        failure: The error that came first, or the last line that it wrote, where it failed; else empty.
    """

    wall_s: float
    peak_bytes: int
    failure: str = ""


def run_program(command: Sequence[str], log: Path, *, timeout_s: float) -> Run:
    """Run a program from this project's folder and wait for it.

    Linux gives a new process the peak of the one that started it, so the caller must have stayed small.
    Python may write compiled bytecode, as it does by default, so that only the first run compiles.

    Args:
        command: The program and its arguments.
        log: Takes what it writes.
        timeout_s: It is killed after so long.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with log.open("wb") as stream:
        started_s = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=stream, stderr=subprocess.STDOUT
        )
        killer = threading.Timer(timeout_s, process.kill)
        killer.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
        finally:
            killer.cancel()
        wall_s = time.perf_counter() - started_s
    process.returncode = os.waitstatus_to_exitcode(status)  # it is waited for: Popen must not do so again
    failure = "" if process.returncode == 0 else _reason(log) or f"exit status {process.returncode}"
    return Run(wall_s, usage.ru_maxrss * 1024, failure)


def _reason(log: Path) -> str:
    """Return what is most likely why: of errors that were raised from one another the first is the cause."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if _ERROR.match(line)]
    return (errors[:1] or lines[-1:] or [""])[0]


def median_run(runs: Sequence[Run]) -> Run:
    """Return the medians of the runs, or the first that failed."""
    failed = [run for run in runs if run.failure]
    if failed:
        return failed[0]
    return Run(statistics.median(r.wall_s for r in runs), int(statistics.median(r.peak_bytes for r in runs)))


def median_calls_s(
    calls: Mapping[K, Callable[[], object]],
    *,
    rounds: int,
    burst: int,
    budget_s: float,
    fewest_rounds: int = 20,
) -> dict[K, float]:
    """Return the time of each call, in seconds: the median over turns, each of a few calls in a row.

    Args:
        calls: By any key.
        rounds: How many turns each gets.
        burst: How many calls are timed together in a turn, after one that brings code and data back into the
            processor's caches.
        budget_s: No further round begins after so long,
        fewest_rounds: but so many there are in any case.
    """
    times_s: dict[K, list[float]] = {name: [] for name in calls}
    started_s = time.perf_counter()
    for done in range(rounds):
        if done >= fewest_rounds and time.perf_counter() - started_s > budget_s:
            break
        for name, call in calls.items():
            call()
            before_s = time.perf_counter()
            for _ in range(burst):
                call()
            times_s[name].append((time.perf_counter() - before_s) / burst)
    return {name: statistics.median(values) for name, values in times_s.items()}


class Installation(NamedTuple):
    """What an environment consists of.

    Attributes:
        packages: How many distributions.
        size_bytes: The sum of all files in ``site-packages``, without compiled bytecode.
    """

    packages: int
    size_bytes: int


def installation(environment: Path) -> Installation | None:
    """Measure an environment; None if there is none.

    Args:
        environment: Its folder.
    """
    packages = next(environment.glob("lib/python3*/site-packages"), None)
    if packages is None:
        return None
    files = [path for path in packages.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    return Installation(len(list(packages.glob("*.dist-info"))), sum(path.stat().st_size for path in files))
