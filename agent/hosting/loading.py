"""An installed version comes into memory, with the runtime that suits it best."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from agent.hosting.hosted import Hosted
from agent.life.slots import Slot
from agent.runtimes.joining import joinable_samples
from agent.runtimes.protocol import LoadedModel
from agent.runtimes.registry import runtime
from fleet.protocol.messages import Capabilities
from fleet.protocol.requirement import suitable_runtime


def open_plainly(slot: Slot, name: str) -> LoadedModel:
    """Load a model as its runtime does by itself, whatever memory it needs.

    Raises:
        ModelError: The runtime cannot run it.
    """
    return runtime(name).load(slot.model_path, slot.manifest.signature)


async def load(
    slot: Slot,
    device: Capabilities,
    timeout_s: float,
    open_model: Callable[[Slot, str], LoadedModel] = open_plainly,
    batch_limit: int = 1,
) -> Hosted:
    """Load an installed version into memory, with the runtime that suits it best.

    Args:
        slot: Its verified files.
        device: What the device can run.
        timeout_s: How long one inference may take.
        open_model: Loads it, given the name of the runtime; called in the version's thread.
        batch_limit: How many samples a joined run may have at most.

    Raises:
        ModelError: No runtime here can run it.
    """
    name = suitable_runtime(slot.variant.requirement, device)
    thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"model-{slot.manifest.model}")
    loop = asyncio.get_running_loop()

    opened: list[tuple[LoadedModel, int]] = []  # a result would stay in asyncio's futures, a cycle, for long

    def open_and_measure() -> None:
        model = open_model(slot, name)
        opened.append((model, joinable_samples(model, slot.manifest, slot.variant, slot.folder, batch_limit)))

    try:
        await loop.run_in_executor(thread, open_and_measure)
    except BaseException:
        thread.shutdown(wait=False)
        raise
    model, joined_samples = opened.pop()
    return Hosted(slot, model, thread, timeout_s, loop=loop, joined_samples=joined_samples)
