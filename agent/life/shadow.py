"""The shadow: a candidate computes what the active version is asked, beside it, and never answers anybody.

::

    request ── active version ── answer            the only one that anybody gets
                     │ on_answer: copies, while there is room
                     ▼
               bounded queue ── thread of the shadow: candidate, comparison, rest ── ShadowReport ── hub

Budget. The thread has a low priority, and after each request it rests, so that of the time it has at most the
share that the settings give it. Requests that come meanwhile wait in a queue of bounded number and size; what
finds no room is left out and counted. So a candidate that is slow is compared less often, and takes no more.

A candidate fails here by what can be no chance: it fails on an input that the active version answered, it
answers with values that are not finite, it does not end in time, it takes too much memory, or it cannot be
compared at all. How often the two disagree is reported and judged by people and gates, not here.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from threading import Event, Lock, Thread, get_native_id
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agent.hosting.host import Host
from agent.hosting.hosted import Hosted
from agent.life.comparison import Comparison
from agent.life.footprint import check_growth, measure_footprint
from agent.log import unexpected_failure
from agent.runtimes.protocol import Tensors
from agent.settings import Settings
from fleet.protocol.errors import InferenceFailed, ShadowFailed, TrialMemoryExceeded
from fleet.protocol.records import ShadowReport

log = logging.getLogger(__name__)

CHECK_INTERVAL_S = 0.25
MEMORY_INTERVAL_S = 1.0
"""A shadow can last for days, and a look at the memory takes half a millisecond."""
NICE = 10
"""Low enough to give way; much lower, and a busy device might leave it holding the interpreter's lock."""
QUEUE_REQUESTS = 64
QUEUE_SIZE_BYTES = 4 * 1024**2
MAX_REPORTS = 100
"""Of one shadow, however long it is."""


class _Request(NamedTuple):
    """What the active version was asked and answered.

    Attributes:
        comparison: Where it is counted.
        inputs: Copies.
        answer: Its first output, a copy, shape (N, …).
        took_us: How long its runtime took.
        size_bytes: Size of the copies.
    """

    comparison: Comparison
    inputs: dict[str, NDArray[Any]]
    answer: NDArray[Any]
    took_us: float
    size_bytes: int


class Shadow:
    """Lets a candidate compute what others are asked.

    Args:
        candidate: The version, in memory; until the end nobody else may use it.
        deployment_id: The order that it came with.
        cpu_share: Greatest share of the time in which it computes, above 0 up to 1.
    """

    def __init__(self, candidate: Hosted, deployment_id: str, cpu_share: float) -> None:
        self._candidate = candidate
        self._deployment_id = deployment_id
        self._rest_factor = 1 / cpu_share - 1
        self._active: Hosted | None = None
        self._comparison: Comparison | None = None
        self._queue: SimpleQueue[_Request | None] = SimpleQueue()
        self._counting = Lock()  # so that a request counts once: as compared, or as left out by the end
        self._lock = Lock()  # of what follows
        self._waiting_requests = 0
        self._waiting_bytes = 0
        self._begun_s: float | None = None
        self._failure: ShadowFailed | None = None
        self._stopped = Event()
        name = f"shadow-{candidate.manifest.model}"
        self._thread = Thread(target=self._run, name=name, daemon=True)  # one that hangs holds up no exit

    def start(self) -> None:
        """Begin to compute what is offered."""
        self._thread.start()

    def stop(self) -> None:
        """Take no more requests, and end after the one that is being computed; it counts as left out."""
        if self._active is not None:
            self._active.on_answer = None
            self._active = None
        with self._counting, self._lock:
            if not self._stopped.is_set() and self._comparison is not None:
                self._comparison.leave_out(self._waiting_requests + (self._begun_s is not None))
            self._stopped.set()
        self._queue.put(None)

    @property
    def is_running(self) -> bool:
        """Whether the thread may still use the candidate."""
        return self._thread.is_alive()

    def follow(self, active: Hosted | None) -> ShadowReport | None:
        """Compare with this version from now on, if it is another; return the last report on the one before.

        Raises:
            ShadowFailed: The candidate cannot compute what this version is asked.
        """
        if active is self._active or active is None:
            return None
        last = self.take_report()
        if self._active is not None:
            self._active.on_answer = None
        self._comparison = Comparison(active, self._candidate, self._deployment_id)
        self._active = active
        active.on_answer = partial(self._offer, self._comparison)
        return last

    def check(self, timeout_s: float) -> None:
        """Check that the candidate does what it should.

        Args:
            timeout_s: How long one inference may take.

        Raises:
            ShadowFailed: It does not.
        """
        if self._failure is not None:
            raise self._failure
        begun_s = self._begun_s
        if begun_s is not None and time.monotonic() - begun_s > timeout_s:
            raise ShadowFailed(f"The candidate did not answer in {timeout_s:.0f} s.")

    def take_report(self) -> ShadowReport | None:
        """Return what was seen since the last report; None if that is nothing."""
        return None if self._comparison is None else self._comparison.take_report()

    def _offer(
        self, comparison: Comparison, inputs: Tensors, outputs: dict[str, NDArray[Any]], took_ns: int
    ) -> None:
        """Take a copy of a good answer if there is room for it. Called in the thread that gave the answer."""
        answer = outputs[comparison.active_output]
        size_bytes = answer.nbytes + sum(value.nbytes for value in inputs.values())
        with self._lock:
            is_taken = not self._stopped.is_set() and self._waiting_requests < QUEUE_REQUESTS
            if self._waiting_requests > 0 and self._waiting_bytes + size_bytes > QUEUE_SIZE_BYTES:
                is_taken = False
            if is_taken:
                self._waiting_requests += 1
                self._waiting_bytes += size_bytes
        if is_taken:
            copies = {name: np.array(value) for name, value in inputs.items()}
            self._queue.put(_Request(comparison, copies, np.array(answer), took_ns / 1000, size_bytes))
        else:
            comparison.leave_out(1)

    def _run(self) -> None:
        """Compute what was offered, in the shadow's thread, until it is stopped or the candidate fails."""
        with suppress(OSError):  # a system that has no priorities of threads
            os.setpriority(os.PRIO_PROCESS, get_native_id(), NICE)
        while (request := self._queue.get()) is not None:
            with self._lock:
                if self._stopped.is_set():
                    return
                self._waiting_requests -= 1
                self._waiting_bytes -= request.size_bytes
                self._begun_s = begun_s = time.monotonic()
            try:
                self._compare(request)
            except ShadowFailed as error:
                self._failure = error
                return
            except Exception:
                log.exception("Model %s: the shadow failed unexpectedly.", self._candidate.manifest.model)
                self._failure = ShadowFailed(str(unexpected_failure()))
                return
            self._stopped.wait((time.monotonic() - begun_s) * self._rest_factor)

    def _compare(self, request: _Request) -> None:
        """Let the candidate compute a request, and count what came of it.

        Raises:
            ShadowFailed: The candidate failed on it.
        """
        started_ns, outputs, failure = time.perf_counter_ns(), None, None
        try:
            outputs = self._candidate.compute(request.inputs)
        except InferenceFailed as error:
            failure = error
        took_us = (time.perf_counter_ns() - started_ns) / 1000
        with self._counting:
            self._begun_s = None
            if outputs is None:
                raise request.comparison.failed(str(failure)) from failure
            if not self._stopped.is_set():
                request.comparison.count(
                    request.answer, outputs, active_us=request.took_us, candidate_us=took_us
                )


async def run_shadow(
    candidate: Hosted,
    host: Host,
    *,
    deployment_id: str,
    duration_s: float,
    settings: Settings,
    keep: Callable[[ShadowReport], None],
) -> None:
    """Compare a candidate with what answers, and report, until the time is over.

    Args:
        candidate: The version, in memory.
        host: The versions that answer.
        deployment_id: The order that the candidate came with.
        duration_s: How long.
        settings: The budget.
        keep: Keeps a report for the hub.

    Raises:
        ShadowFailed: The candidate failed.
    """
    shadow = Shadow(candidate, deployment_id, settings.shadow_cpu_share)
    clock, model = asyncio.get_running_loop().time, candidate.manifest.model
    report_interval_s = max(settings.telemetry_interval_s, duration_s / MAX_REPORTS)
    end_s, report_due_s = clock() + duration_s, clock() + report_interval_s
    memory_due_s = clock()

    def report(taken: ShadowReport | None) -> None:
        if taken is not None:
            keep(taken)

    shadow.start()
    try:
        while clock() < end_s:
            report(shadow.follow(host.get(model)))
            shadow.check(settings.inference_timeout_s)
            if clock() >= memory_due_s:
                _check_memory(candidate, settings)
                memory_due_s = clock() + MEMORY_INTERVAL_S
            if clock() >= report_due_s:
                report(shadow.take_report())
                report_due_s = clock() + report_interval_s
            await asyncio.sleep(min(CHECK_INTERVAL_S, max(0.0, end_s - clock())))
        shadow.stop()
        while shadow.is_running:  # the candidate goes on trial only when the thread has let it go
            shadow.check(settings.inference_timeout_s)
            await asyncio.sleep(CHECK_INTERVAL_S / 10)
        shadow.check(settings.inference_timeout_s)
    finally:
        shadow.stop()
        report(shadow.take_report())


def _check_memory(candidate: Hosted, settings: Settings) -> None:
    try:
        check_growth(
            measure_footprint(),
            candidate.footprint_before,
            allowed_bytes=candidate.stated_memory_bytes + settings.shadow_memory_limit_bytes,
            reserve_bytes=settings.trial_reserve_memory_bytes,
        )
    except TrialMemoryExceeded as error:
        raise ShadowFailed(f"In the shadow of the active version: {error}") from error
