"""Choosing among the variants that an order offers, by running each of them here.

::

    first pass    A  B  C     load, golden inputs, measure; one variant in memory at a time
    second pass   C  B  A     load, measure again: what drifts meanwhile meets all alike

A variant that fails its golden inputs, or with which the process ended, is left out and told as an
incident. `fleet.variants.choose` decides; `agent.life.measurements` remembers, so that the same bundle is
not measured twice, and that a crash costs a variant and not the deployment.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from msgspec.structs import replace as _replace

from agent.life.measurements import Entry, Measurements
from agent.life.slots import Slot, Slots
from agent.life.terms import Life, Release
from agent.runtimes.benchmark import Timing, measure, sample_of
from agent.runtimes.protocol import LoadedModel
from agent.runtimes.self_test import run_self_test
from agent.telemetry.outbox import Outbox
from agent.threads import run_to_end
from fleet.protocol.assignment import VariantPolicy
from fleet.protocol.errors import (
    ModelError,
    MusterError,
    SelfTestFailed,
    SelfTestTimedOut,
    StorageError,
    error_of,
)
from fleet.protocol.messages import Capabilities
from fleet.protocol.records import Candidate, Measurement
from fleet.protocol.requirement import suitable_runtime
from fleet.variants import choose

log = logging.getLogger(__name__)


class Chooser:
    """Chooses variants.

    Args:
        slots: Installed versions.
        measurements: What was measured before.
        outbox: Where measurements are sent from.
        open_model: Loads a version, given the name of the runtime; called in a thread.
        capabilities: Tells what the device can run.
        timeout_s: How long the golden inputs and the measurement may take, each.
        on_incident: Told of variants that were left out.
    """

    def __init__(
        self,
        slots: Slots,
        measurements: Measurements,
        outbox: Outbox,
        open_model: Callable[[Slot, str], LoadedModel],
        *,
        capabilities: Callable[[], Capabilities],
        timeout_s: float,
        on_incident: Callable[[MusterError], None],
    ) -> None:
        self._slots = slots
        self._measurements = measurements
        self._outbox = outbox
        self._open_model = open_model
        self._capabilities = capabilities
        self._timeout_s = timeout_s
        self._on_incident = on_incident
        self._measuring = asyncio.Lock()  # two measurements at once would disturb each other

    def known(self, manifest_sha256: str, variants: Iterable[str], policy: VariantPolicy) -> str | None:
        """Return what was chosen before among these variants; None if some of them was not tried."""
        entry = self._measurements.find(manifest_sha256, self._capabilities())
        if entry is None or not entry.complete:
            return None
        tried = [entry.of(variant) for variant in variants]
        best = choose([candidate for candidate in tried if candidate is not None], policy)
        return None if best is None or None in tried else best.variant

    def forget(self, manifest_sha256: str) -> None:
        """Let a bundle be measured again: what was chosen does not work any more.

        Raises:
            StorageError: The file cannot be written.
        """
        entry = self._measurements.find(manifest_sha256, self._capabilities())
        if entry is not None:
            self._measurements.forget(entry)

    async def choose(self, model: str, life: Life) -> str:
        """Try every variant that is offered and return the best.

        Args:
            model: Name of the model.
            life: Its state; what it offers is installed.

        Raises:
            MusterError: None of them passed, for the reason of the first; or files are damaged, or what is
                under test cannot be written down.
        """
        assert life.candidate is not None
        offered = [release.variant for release in life.offered]
        known = self.known(life.candidate.manifest_sha256, offered, life.policy)
        if known is not None:  # the process ended between the choice and what follows it
            return known
        async with self._measuring:
            entry = self._begin(life)
            for release in life.offered:
                if entry.of(release.variant) is None:
                    entry = await self._try(model, release, entry)
            passed = [release for release in life.offered if _has_passed(entry, release.variant)]
            for release in reversed(passed) if len(passed) > 1 else ():
                entry = await self._try(model, release, entry)
            self._measurements.keep(entry)  # nothing is under test any more
        return self._decide(model, life, entry)

    def _begin(self, life: Life) -> Entry:
        """Return the entry to go on with: that of a test during which the process ended, or a new one."""
        assert life.candidate is not None
        device, digest = self._capabilities(), life.candidate.manifest_sha256
        entry = self._measurements.find(digest, device)
        if entry is None or entry.complete or entry.deployment_id != life.deployment_id:
            return _replace(self._measurements.new(digest, device, life.deployment_id), crashes=life.crashes)
        if entry.under_test is not None and life.crashes > entry.crashes:
            crash = SelfTestFailed(f"The agent ended while variant {entry.under_test} was tested.")
            entry = self._leave_out(entry, Candidate(entry.under_test, "", "", 0), crash)
        return _replace(entry, crashes=life.crashes)

    async def _try(self, model: str, release: Release, entry: Entry) -> Entry:
        """Load a variant, test it if that was not done yet, and measure it."""
        self._measurements.keep(_replace(entry, under_test=release.variant))
        known = entry.of(release.variant)
        slot = await run_to_end(lambda: self._slots.open(model, release))
        device = self._capabilities()
        name = suitable_runtime(slot.variant.requirement, device)
        size_bytes = slot.variant.model_file.size_bytes
        candidate = Candidate(release.variant, name, device.runtimes[name], size_bytes)
        try:
            timing = await self._timed(slot, name, test=known is None)
        except ModelError as error:
            return self._leave_out(entry, candidate, error)
        if known is not None:
            timing = timing.better(Timing(known.median_us, known.p90_us, known.cpu_us))
        return entry.with_candidate(_replace(candidate, **timing._asdict()))

    async def _timed(self, slot: Slot, name: str, *, test: bool) -> Timing:
        """Load a variant into memory, measure it there and let it go.

        Raises:
            ModelError: It cannot be loaded, fails its golden inputs or does not end in time.
        """

        def test_and_measure() -> Timing:
            if test:
                run_self_test(loaded, slot.manifest, slot.variant, slot.folder)
            return measure(loaded, sample_of(slot.manifest, slot.folder))

        loop = asyncio.get_running_loop()
        thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"measure-{slot.variant.name}")
        try:
            loaded = await loop.run_in_executor(thread, self._open_model, slot, name)
            async with asyncio.timeout(self._timeout_s):
                return await loop.run_in_executor(thread, test_and_measure)
        except TimeoutError as error:
            raise SelfTestTimedOut(
                f"Variant {slot.variant.name} was not tested and measured in {self._timeout_s:.0f} s."
            ) from error
        finally:
            thread.shutdown(wait=False)

    def _leave_out(self, entry: Entry, candidate: Candidate, error: ModelError) -> Entry:
        """Tell why a variant is not considered."""
        kind, detail = type(error), f"Variant {candidate.variant} is left out: {error}"
        self._on_incident(kind(detail))
        return entry.with_candidate(_replace(candidate, cause=error.cause()))

    def _decide(self, model: str, life: Life, entry: Entry) -> str:
        """Choose, tell the hub, and remember it.

        Raises:
            MusterError: None of the variants passed; the error is that of the first.
            StorageError: It cannot be remembered.
        """
        assert life.candidate is not None
        best = choose(entry.candidates, life.policy)
        measurement = Measurement(
            at_s=time.time(),
            deployment_id=life.deployment_id,
            model=model,
            version=life.candidate.version,
            manifest_sha256=entry.manifest_sha256,
            architecture=entry.device.architecture,
            hardware=entry.device.hardware,
            runtimes=dict(entry.device.runtimes),
            policy=life.policy,
            candidates=entry.candidates,
            chosen=best.variant if best else None,
        )
        try:
            self._outbox.put(measurement)
        except StorageError as error:  # the choice is as good without the hub's knowing
            self._on_incident(error)
        if best is None:
            self._measurements.forget(entry)
            first = entry.of(life.candidate.variant)
            assert first is not None
            assert first.cause is not None
            raise error_of(first.cause.code)(first.cause.detail)
        self._measurements.keep(_replace(entry, complete=True))
        log.info("Model %s: variant %s is chosen (%s).", model, best.variant, life.policy)
        return best.variant


def _has_passed(entry: Entry, variant: str) -> bool:
    candidate = entry.of(variant)
    return candidate is not None and candidate.cause is None
