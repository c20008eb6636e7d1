"""From a model's files to the loaded model that computes soonest and rightly.

The accelerators of a runtime are tried, best first. One is used only if the golden inputs, through the very
session that will answer, give the golden outputs; else the next is tried, and the failure is told: a device
that computes on its processor what was meant for its GPU is slow, and somebody should know why. The last one,
the processor, is not tested here: each version is tested before its trial in any case.
"""

from __future__ import annotations

from pathlib import Path

from agent.runtimes.protocol import LoadedModel, Runtime
from agent.runtimes.self_test import run_self_test
from fleet.protocol.errors import AcceleratorFailed, SelfTestFailed, StorageError, VariantUnsupported
from fleet.protocol.manifest import Manifest, Variant


def load_best(
    runtime: Runtime, manifest: Manifest, variant: Variant, folder: Path
) -> tuple[LoadedModel, list[AcceleratorFailed]]:
    """Load a model with the best accelerator that computes it rightly.

    Args:
        runtime: What runs it.
        manifest: Describes the tensors.
        variant: The variant that is installed.
        folder: Where the verified files of the bundle are.

    Returns:
        The model, and why better accelerators were passed over.

    Raises:
        VariantUnsupported: Not even the last can run it.
        StorageError: The golden inputs cannot be read.
    """
    passed_over = []
    path = folder / variant.model_file.name
    *accelerators, last = runtime.accelerators()
    for accelerator in accelerators:
        try:
            model = runtime.load(path, manifest.signature, accelerator)
            run_self_test(model, manifest, variant, folder)
        except (VariantUnsupported, SelfTestFailed, StorageError) as error:
            passed_over.append(
                AcceleratorFailed(
                    f"{manifest.model} version {manifest.version} is not run by {accelerator}: {error}"
                )
            )
        else:
            return model, passed_over
    return runtime.load(path, manifest.signature, last), passed_over
