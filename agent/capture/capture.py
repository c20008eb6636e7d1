"""Capturing samples: from an answer, in whichever thread gave it, to the spool.

::

    thread that answers:  policy? budget? ─► pick ─► copy ─► queue, bounded
    event loop:           queue ─► redaction, if there is one ─► spool ─► `agent.capture.sender`

Nothing is captured unless the device's owner allows it (``allow_sample_capture``) and the hub orders it. What
cannot be captured is dropped and counted, by cause; a model's answers never wait for any of this.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agent.capture.budget import Budget
from agent.capture.redaction import redact
from agent.capture.selection import Picked, confidences, pick
from agent.capture.spool import Spool, remove_spool
from agent.hosting.answers import Answer
from agent.hosting.host import Host
from agent.hosting.hosted import Hosted
from agent.runtimes.protocol import Tensors
from agent.settings import Settings
from agent.telemetry.rate import TokenBucket
from fleet.drift.features import OUTPUT_CONFIDENCE
from fleet.protocol.assignment import Assignment
from fleet.protocol.capture import CapturePolicy, SampleCounts
from fleet.protocol.errors import MusterError, StorageError
from fleet.protocol.samples import MAX_ANSWER, Sample, SampleTensor, tensors_of

log = logging.getLogger(__name__)

EXAMINED_PER_S = 50
"""How many requests are compared with the reference in a second: each takes some 100 µs."""
MAX_WAITING = 32
"""How many samples may wait for their redaction."""


class _Waiting(NamedTuple):
    """A sample that was picked."""

    hosted: Hosted
    picked: Picked
    inputs: Tensors
    output: NDArray[Any]
    at_s: float


class Capture:
    """Captures samples of what answers.

    Args:
        state: The state folder.
        settings: What the owner allows.
        host: The models that answer.
        on_sample: Told when a sample was put into the spool.
        on_incident: Told of what a person may have to know.
    """

    def __init__(
        self,
        state: Path,
        settings: Settings,
        host: Host,
        *,
        on_sample: Callable[[], None],
        on_incident: Callable[[MusterError], None],
    ) -> None:
        self._settings = settings
        self._host = host
        self._on_sample = on_sample
        self._on_incident = on_incident
        self._loop = asyncio.get_running_loop()
        self._policies: dict[str, CapturePolicy] = {}
        self._budgets: dict[str, Budget] = {}
        self._lock = Lock()
        self._examined = TokenBucket(EXAMINED_PER_S, EXAMINED_PER_S, time.monotonic())
        self._random = np.random.default_rng()
        self._told_damage: MusterError | None = None
        self._waiting: deque[_Waiting] = deque()
        self._wake = asyncio.Event()
        self.dropped: Counter[str] = Counter()
        """How many samples were not captured that would have been, by cause, since the start."""
        redaction = repr((settings.sample_redaction, settings.sample_redaction_command))
        self.spool = Spool(state, settings.sample_spool_bytes, redaction)
        if settings.allow_sample_capture:
            host.on_put = self._attach
        else:
            try:
                remove_spool(state)
            except StorageError as error:
                on_incident(error)

    def apply(self, assignment: Assignment) -> None:
        """Capture by the policies of an accepted assignment, in place of those before."""
        if not self._settings.allow_sample_capture:
            return
        now = {order.model: order.capture for order in assignment.models if order.capture is not None}
        for model, policy in now.items():
            if self._policies.get(model) != policy:
                self._budgets[model] = self._new_budget(model, policy)
        self._policies = now
        try:
            self.spool.keep_models(model for model, policy in now.items() if self._redacts(policy))
        except StorageError as error:
            self._on_incident(error)
        for model, hosted in self._host.all().items():
            self._attach(model, hosted)

    async def run(self) -> None:
        """Redact and keep what was picked, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                await self._keep(self._waiting.popleft())

    def counts(self) -> SampleCounts | None:
        """Return how many samples wait, and how many were dropped; None where none may be captured."""
        if not self._settings.allow_sample_capture:
            return None
        with self._lock:
            dropped = dict(self.dropped)
        try:
            waiting = len(self.spool)
            self._tell_damage()
            return SampleCounts(waiting, dropped)
        except StorageError as error:
            log.warning("%s", error)
            return SampleCounts(0, dropped)

    def _tell_damage(self) -> None:
        """Tell of a damaged spool, once."""
        damage = self.spool.damage
        if damage is not None and damage is not self._told_damage:
            self._told_damage = damage
            self._on_incident(damage)

    def close(self) -> None:
        """Close the spool."""
        self.spool.close()

    def _attach(self, model: str, hosted: Hosted) -> None:
        hosted.on_sample = self._offer if model in self._policies else None

    def _new_budget(self, model: str, policy: CapturePolicy) -> Budget:
        try:
            day, spent_bytes = self.spool.spent(model)
        except StorageError as error:
            log.warning("%s", error)
            day, spent_bytes = 0, 0
        known = self._budgets.get(model)
        if known is not None and (known.day, known.spent_bytes) > (day, spent_bytes):
            day, spent_bytes = known.day, known.spent_bytes  # picked, and not kept yet
        limit_bytes = self._settings.sample_bytes_per_day
        return Budget(policy, limit_bytes, day=day, spent_bytes=spent_bytes, now_s=time.monotonic())

    def _offer(self, hosted: Hosted, inputs: Tensors, answer: Answer) -> None:
        """Pick samples of an answered request, in the thread that answered it; a fault ends capturing."""
        try:
            self._pick(hosted, inputs, answer)
        except Exception:
            hosted.on_sample = None  # answers are worth more than samples
            log.exception("No more samples of %s are captured until the next order.", hosted.manifest.model)

    def _pick(self, hosted: Hosted, inputs: Tensors, answer: Answer) -> None:
        model, at_s = hosted.manifest.model, time.time()
        policy, budget = self._policies.get(model), self._budgets.get(model)
        if policy is None or budget is None or at_s >= policy.expires_at_s:
            return
        if not self._redacts(policy):
            self._drop("redaction_missing", len(answer.outputs[hosted.reader.output_name]))
            return
        with self._lock:
            has_room = budget.has_room(time.monotonic())
        if not has_room:
            return
        outputs = answer.outputs[hosted.reader.output_name]
        numbers = hosted.reader.profiled(inputs, len(outputs))
        draws = self._random.random(len(outputs))
        examine = policy.drifted and self._may_examine()
        for picked in pick(policy, hosted.manifest.reference, numbers, outputs, draws, examine=examine):
            self._take(_Waiting(hosted, picked, inputs, outputs, at_s), policy, budget)

    def _redacts(self, policy: CapturePolicy) -> bool:
        """Tell whether samples go through what a policy requires."""
        return policy.redaction in (None, self._settings.sample_redaction)

    def _may_examine(self) -> bool:
        """Tell whether a request may be compared with the reference now, and count it."""
        now_s = time.monotonic()
        with self._lock:
            may = self._examined.available(now_s) > 0
            if may:
                self._examined.take(1, now_s)
        return may

    def _take(self, found: _Waiting, policy: CapturePolicy, budget: Budget) -> None:
        """Copy a picked sample into the queue, if the budget has room for it."""
        row = found.picked.row
        given = {name: values[row : row + 1] for name, values in found.inputs.items()}
        size_bytes = sum(_size_bytes(values) for values in given.values())
        if size_bytes > policy.sample_bytes:
            self._drop("too_large")
            return
        with self._lock:
            full = len(self._waiting) >= MAX_WAITING
            taken = not full and budget.take(size_bytes, at_s=found.at_s, now_s=time.monotonic())
            if taken:
                copies = {name: values.copy() for name, values in given.items()}
                output = found.output[row : row + 1].copy()
                self._waiting.append(found._replace(inputs=copies, output=output))
        if not taken:
            self._drop("busy" if full else "over_budget")
            return
        with suppress(RuntimeError):  # the agent ends
            self._loop.call_soon_threadsafe(self._wake.set)

    async def _keep(self, found: _Waiting) -> None:
        settings, manifest = self._settings, found.hosted.manifest
        policy, budget = self._policies.get(manifest.model), self._budgets.get(manifest.model)
        if policy is None or budget is None:
            return  # taken back meanwhile
        if not self._redacts(policy):  # required meanwhile
            self._drop("redaction_missing")
            return
        tensors = tensors_of(found.inputs)
        try:
            if settings.sample_redaction_command:
                command, timeout_s = settings.sample_redaction_command, settings.sample_redaction_timeout_s
                tensors = await redact(command, timeout_s, manifest.model, tensors)
        except MusterError as error:
            self._drop("redaction_failed")
            self._on_incident(error)
            return
        sample = _sample(found, tensors, settings.sample_redaction or None)
        if sample.size_bytes > policy.sample_bytes:
            self._drop("too_large")
            return
        try:
            given_up = self.spool.put(sample, day=budget.day, spent_bytes=budget.spent_bytes)
        except StorageError as error:
            self._drop("storage")
            log.warning("A sample is lost: %s", error)
            return
        self._drop("spool_full", given_up)
        self._on_sample()

    def _drop(self, cause: str, count: int = 1) -> None:
        if count:
            with self._lock:
                self.dropped[cause] += count


def _sample(found: _Waiting, tensors: tuple[SampleTensor, ...], redaction: str | None) -> Sample:
    hosted, output = found.hosted, found.output
    manifest = hosted.manifest
    category, confidence = None, None
    if manifest.signature.task == "classification":
        category = int(output.reshape(-1).argmax())
        if any(feature.name == OUTPUT_CONFIDENCE for feature in manifest.reference.features):
            confidence = min(1.0, max(0.0, float(confidences(manifest.reference, output)[0])))
    return Sample(
        at_s=found.at_s,
        model=manifest.model,
        version=manifest.version,
        manifest_sha256=hosted.release.manifest_sha256,
        reason=found.picked.reason,
        inputs=tensors,
        feature=found.picked.feature,
        redaction=redaction,
        category=category,
        confidence=confidence,
        answer=tuple(output.reshape(-1).astype(float).tolist()) if output.size <= MAX_ANSWER else (),
    )


def _size_bytes(values: NDArray[Any]) -> int:
    """Return how many bytes an input takes in a sample."""
    if values.dtype == object:
        return sum(4 + len(str(value).encode()) for value in values.ravel())
    return values.nbytes
