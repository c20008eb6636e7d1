"""Bringing models into memory: with the best that this device has, within the memory that they may have.

A version needs what its manifest states: the peak of weights and tensors while it answers, and its file. That
must fit three times over; the first two are the owner's, and chosen here where they are not set::

    one version     ≤ model_memory_limit_bytes      else all that models may have
    all in memory   ≤ models_memory_limit_bytes     else half of what this process may ever have
    one version     ≤ what is free now

All in memory are really all: the versions that answer, those that a trial may bring back at once, a candidate
that is tested or measured. So an update needs room for both versions. What was refused was never loaded, and
what is known to be too large is not even downloaded.

A version that was committed is loaded whatever is free: it fitted when it was tested, and a device that
answers nothing because memory is short for a moment would be the worse failure.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from typing import NamedTuple
from weakref import WeakKeyDictionary

from agent.life.slots import Slot
from agent.memory import Memory, measure_memory
from agent.runtimes.loading import load_best
from agent.runtimes.options import RuntimeOptions
from agent.runtimes.protocol import LoadedModel
from agent.runtimes.registry import runtime
from agent.settings import Settings
from fleet.protocol.errors import MemoryBudgetExceeded, MusterError
from fleet.protocol.requirement import RuntimeRequirement


class Budget(NamedTuple):
    """What memory models may have.

    Attributes:
        model_bytes: One version.
        total_bytes: All that are in memory.
        free_bytes: What this process can have now.
    """

    model_bytes: int
    total_bytes: int
    free_bytes: int

    def room_bytes(self, held_bytes: int) -> int:
        """Return what one more version may need.

        Args:
            held_bytes: Needed by the versions in memory.
        """
        return max(0, min(self.model_bytes, self.total_bytes - held_bytes, self.free_bytes))

    def check(self, needed_bytes: int, held_bytes: int) -> None:
        """Check that a version fits.

        Args:
            needed_bytes: What it needs.
            held_bytes: Needed by the versions in memory.

        Raises:
            MemoryBudgetExceeded: It does not.
        """
        if needed_bytes <= self.room_bytes(held_bytes):
            return
        needs = f"It needs {needed_bytes} bytes of memory"
        if needed_bytes > self.model_bytes:
            raise MemoryBudgetExceeded(f"{needs}; one model may have {self.model_bytes}.")
        if needed_bytes > self.total_bytes - held_bytes:
            raise MemoryBudgetExceeded(
                f"{needs}; models may have {self.total_bytes}, and those in memory need {held_bytes} of it."
            )
        raise MemoryBudgetExceeded(f"{needs}; {self.free_bytes} are free.")


def budget(settings: Settings, memory: Memory) -> Budget:
    """Return what memory models may have.

    Args:
        settings: The owner's limits; 0 where there is none.
        memory: What this process can have.
    """
    total_bytes = settings.models_memory_limit_bytes or memory.limit_bytes // 2
    model_bytes = settings.model_memory_limit_bytes or total_bytes
    return Budget(min(model_bytes, total_bytes), total_bytes, memory.free_bytes)


def needed_bytes(requirement: RuntimeRequirement) -> int:
    """Return what memory a variant needs while it answers."""
    return requirement.peak_memory_bytes + requirement.size_bytes


def prepacks(setting: str, requirement: RuntimeRequirement, room_bytes: int) -> bool:
    """Tell whether weights are copied into the kernels' order: if a second copy fits, or as it is set.

    Args:
        setting: ``auto``, ``always`` or ``never``.
        requirement: The variant's.
        room_bytes: What one more version may need.
    """
    if setting != "auto":
        return setting == "always"
    return needed_bytes(requirement) + requirement.size_bytes <= room_bytes


class Opener:
    """Brings models into memory. Any thread may use it.

    Args:
        settings: The agent's settings.
        on_passed_over: Told of accelerators that did not do; called in the thread that opens.
        memory: Tells what memory this process can have.
    """

    def __init__(
        self,
        settings: Settings,
        on_passed_over: Callable[[MusterError], None],
        memory: Callable[[], Memory] = measure_memory,
    ) -> None:
        self._settings = settings
        self._on_passed_over = on_passed_over
        self._memory = memory
        self._lock = threading.Lock()
        self._held: WeakKeyDictionary[LoadedModel, int] = WeakKeyDictionary()  # as long as they are in memory
        self._coming_bytes = 0

    @property
    def held_bytes(self) -> int:
        """What the models that are in memory, or on their way there, need."""
        with self._lock:
            return self._count()

    def fits(self, requirement: RuntimeRequirement) -> bool:
        """Tell whether a variant would fit beside the models in memory."""
        try:
            self.check(requirement)
        except MemoryBudgetExceeded:
            return False
        return True

    def check(self, requirement: RuntimeRequirement) -> None:
        """Check that a variant would fit beside the models in memory.

        Raises:
            MemoryBudgetExceeded: It would not.
        """
        with self._lock:
            self._check(needed_bytes(requirement), self._budget())

    def open(self, slot: Slot, name: str, *, must_fit: bool = True) -> LoadedModel:
        """Load a version into memory.

        Args:
            slot: Its verified files.
            name: The runtime that runs it.
            must_fit: Whether it is refused if it does not fit.

        Raises:
            MemoryBudgetExceeded: It does not fit.
            ModelError: The runtime cannot run it.
        """
        requirement = slot.variant.requirement
        needed = needed_bytes(requirement)
        with self._lock:
            limits = self._budget()
            if must_fit:
                self._check(needed, limits)
            room_bytes = limits.room_bytes(self._count())
            self._coming_bytes += needed
        try:
            adapter = runtime(name, self._options(requirement, room_bytes))
            model, passed_over = load_best(adapter, slot.manifest, slot.variant, slot.folder)
            with self._lock:
                self._held[model] = needed
        finally:
            with self._lock:
                self._coming_bytes -= needed
        for error in passed_over:
            self._on_passed_over(error)
        return model

    def _count(self) -> int:
        return self._coming_bytes + sum(self._held.values())

    def _check(self, needed: int, limits: Budget) -> None:
        if needed > limits.room_bytes(self._count()):
            gc.collect()  # a version that was let go of may still wait to be collected
        limits.check(needed, self._count())

    def _budget(self) -> Budget:
        return budget(self._settings, self._memory())

    def _options(self, requirement: RuntimeRequirement, room_bytes: int) -> RuntimeOptions:
        """Return how a runtime computes."""
        return RuntimeOptions(
            execution_providers=self._settings.execution_providers,
            litert_delegate=self._settings.litert_delegate,
            device_memory_bytes=self._settings.model_memory_limit_bytes,
            prepacks=prepacks(self._settings.onnx_prepacking, requirement, room_bytes),
        )
