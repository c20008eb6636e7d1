"""What the server and its models say of themselves, in the protocol's form.

==================  =====================================  ================================================
document            extension                              of Triton's fields
==================  =====================================  ================================================
server metadata     (the protocol itself)                  all
model metadata      (the protocol itself)                  all
configuration       ``model_configuration``                those that say something of a model here
repository index    ``model_repository``                   all
==================  =====================================  ================================================

Source: the KServe and Triton protocol documents. The configuration says ``max_batch_size`` 0: shapes are
whole, with the batch, and requests are not joined.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from agent.capabilities import agent_version
from agent.hosting.hosted import Hosted
from agent.serving.tensors import DATATYPES
from fleet.protocol.manifest import Tensor
from fleet.protocol.messages import ModelState

EXTENSIONS = ("binary_tensor_data", "model_configuration", "model_repository", "statistics", "feedback")


def server(*, shared_memory: bool) -> dict[str, Any]:
    """Return the server's metadata.

    Args:
        shared_memory: Whether that extension is offered too.
    """
    extensions = (*EXTENSIONS, "system_shared_memory") if shared_memory else EXTENSIONS
    return {"name": "muster-agent", "version": agent_version(), "extensions": extensions}


def metadata(hosted: Hosted) -> dict[str, Any]:
    """Return a model's metadata."""
    manifest = hosted.manifest
    return {
        "name": manifest.model,
        "versions": [str(manifest.version)],
        "platform": hosted.platform,
        "inputs": [_metadata(tensor) for tensor in manifest.signature.inputs],
        "outputs": [_metadata(tensor) for tensor in manifest.signature.outputs],
    }


def configuration(hosted: Hosted) -> dict[str, Any]:
    """Return a model's configuration."""
    manifest = hosted.manifest
    return {
        "name": manifest.model,
        "platform": hosted.platform,
        "backend": hosted.platform.partition("_")[0],
        "max_batch_size": 0,
        "version_policy": {"specific": {"versions": [manifest.version]}},
        "input": [_configuration(tensor) for tensor in manifest.signature.inputs],
        "output": [_configuration(tensor) for tensor in manifest.signature.outputs],
        "default_model_filename": "",
        "parameters": {
            "task": {"string_value": manifest.signature.task},
            "variant": {"string_value": hosted.release.variant},
            "accelerator": {"string_value": hosted.accelerator},
        },
    }


def index(
    states: Iterable[ModelState], answering: dict[str, int], *, only_ready: bool
) -> list[dict[str, Any]]:
    """Return the repository's index.

    Args:
        states: What the device holds of each model.
        answering: The version that answers now, by model.
        only_ready: Leave out models for which nothing answers.
    """
    ready = [
        {"name": model, "version": str(version), "state": "READY", "reason": ""}
        for model, version in answering.items()
    ]
    waiting = [
        {
            "name": state.model,
            "version": "",
            "state": "UNAVAILABLE",
            "reason": f"no version answers: {state.phase}",
        }
        for state in states
        if state.model not in answering
    ]
    return ready if only_ready else ready + waiting


def _metadata(tensor: Tensor) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": DATATYPES.get(tensor.dtype, tensor.dtype), "shape": tensor.shape}


def _configuration(tensor: Tensor) -> dict[str, Any]:
    datatype = DATATYPES.get(tensor.dtype, tensor.dtype)
    named = "STRING" if datatype == "BYTES" else datatype
    return {"name": tensor.name, "data_type": f"TYPE_{named}", "dims": tensor.shape}
