"""TensorFlow Lite models, with one thread: in LiteRT, or where it has no build in tflite-runtime.

LiteRT is the newer name of the same interpreter, so one adapter serves both. On the processor kernels are
XNNPACK's where it has them, which is the interpreter's default. Another delegate can be a shared library, as
makers of accelerators ship them; it runs in this process with all its rights, so only a library that nobody
but root and the agent's account can have written is loaded.

A tensor is found by the name that the manifest gives it:

===================================================  ==================================
the file has                                         the names are those of
===================================================  ==================================
a signature ``serving_default``, or only one other   that signature
no signature, or several others                      the inputs and outputs themselves
===================================================  ==================================

The interpreter plans its memory for one batch size, and again whenever another size comes.
"""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agent.runtimes.conversion import check_names, first_line
from agent.runtimes.options import RuntimeOptions
from agent.runtimes.protocol import Tensors
from fleet.protocol.errors import InferenceFailed, VariantUnsupported
from fleet.protocol.manifest import Signature

_DEFAULT_SIGNATURE = "serving_default"
_CPU = "cpu"
_DELEGATE_FUNCTIONS = ("tflite_plugin_create_delegate", "tflite_plugin_destroy_delegate")
"""What an external delegate's library exports (TensorFlow Lite, ``external_delegate_interface.h``)."""

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_Details = Mapping[str, Any]
"""What the interpreter tells of a tensor."""


class _Input(NamedTuple):
    """Where an input goes.

    Attributes:
        number: Of the tensor in the file.
        shape: Its shape; the batch and what else the file leaves open are -1.
    """

    number: int
    shape: tuple[int, ...]

    def takes(self, shape: tuple[int, ...]) -> bool:
        """Whether a value of that shape fits; the interpreter itself would take some that do not."""
        return len(shape) == len(self.shape) and all(
            want in (-1, size) for want, size in zip(self.shape, shape, strict=True)
        )


class TfliteModel:
    """An interpreter with a model.

    Args:
        interpreter: The interpreter, its tensors allocated.
        platform: Name of runtime and format.
        inputs: The inputs by the signature's names.
        outputs: Numbers of the outputs by the signature's names.
        accelerator: What computes.
    """

    def __init__(
        self,
        interpreter: Any,
        platform: str,
        inputs: dict[str, _Input],
        outputs: dict[str, int],
        accelerator: str,
    ) -> None:
        self.platform = platform
        self.accelerator = accelerator
        self._interpreter = interpreter
        self._inputs = inputs
        self._outputs = outputs
        self._planned: list[tuple[int, ...]] = []  # the inputs' shapes that memory is planned for

    def infer(self, inputs: Tensors) -> dict[str, NDArray[Any]]:
        """Return the outputs for the inputs.

        Raises:
            InferenceFailed: The runtime refused the inputs or failed while computing.
        """
        for name, tensor in self._inputs.items():
            if not tensor.takes(inputs[name].shape):
                raise InferenceFailed(
                    f"Input {name} has the shape {inputs[name].shape}; the model takes {tensor.shape}."
                )
        try:
            self._plan([inputs[name].shape for name in self._inputs])
            for name, tensor in self._inputs.items():
                self._interpreter.set_tensor(tensor.number, inputs[name])
            self._interpreter.invoke()
            return {name: self._interpreter.get_tensor(index) for name, index in self._outputs.items()}
        except Exception as error:  # the runtime's exceptions share no narrower base
            raise InferenceFailed(f"{self.platform} failed: {first_line(error)}") from error

    def _plan(self, shapes: list[tuple[int, ...]]) -> None:
        if shapes == self._planned:
            return
        self._planned = []  # until it has succeeded
        for tensor, shape in zip(self._inputs.values(), shapes, strict=True):
            self._interpreter.resize_tensor_input(tensor.number, shape)
        self._interpreter.allocate_tensors()
        self._planned = shapes


class LiteRt:
    """Loads ``.tflite`` files into LiteRT.

    Args:
        options: How it computes.
    """

    platform: ClassVar[str] = "litert_tflite"
    module: ClassVar[str] = "ai_edge_litert.interpreter"

    def __init__(self, options: RuntimeOptions = RuntimeOptions()) -> None:  # noqa: B008 - it cannot change
        self._delegate = options.litert_delegate

    def accelerators(self) -> tuple[str, ...]:
        """Return the delegate, if there is one, and the processor."""
        return (f"delegate:{Path(self._delegate).name}", _CPU) if self._delegate else (_CPU,)

    def load(self, path: Path, signature: Signature, accelerator: str = _CPU) -> TfliteModel:
        """Load a model whose bytes were verified.

        Raises:
            VariantUnsupported: The runtime cannot run it so, or it lacks a tensor of the signature.
        """
        accelerator = accelerator or _CPU
        if any(tensor.dtype == "str" for tensor in (*signature.inputs, *signature.outputs)):
            raise VariantUnsupported("Text is not carried to TensorFlow Lite models.")
        try:
            runtime = import_module(self.module)
            delegates = [] if accelerator == _CPU else [runtime.load_delegate(_checked(self._delegate))]
            interpreter = runtime.Interpreter(
                model_path=str(path), num_threads=1, experimental_delegates=delegates
            )
            interpreter.allocate_tensors()
            inputs, outputs = _named(interpreter)
        except VariantUnsupported:
            raise
        except Exception as error:  # the runtime's exceptions share no narrower base
            raise VariantUnsupported(f"{self.platform} cannot load the model: {first_line(error)}") from error
        check_names(signature, inputs, outputs)
        return TfliteModel(
            interpreter,
            self.platform,
            {name: _Input(details["index"], _open_shape(details)) for name, details in inputs.items()},
            {tensor.name: outputs[tensor.name]["index"] for tensor in signature.computed},
            accelerator,
        )


class TfliteRuntime(LiteRt):
    """Loads ``.tflite`` files into tflite-runtime."""

    platform = "tensorflow_tflite"
    module = "tflite_runtime.interpreter"


def _checked(library: str) -> str:
    """Return the path of a delegate's library, its links followed, if it may be loaded.

    Raises:
        VariantUnsupported: There is none, it is none, or others than root and this account can change it.
        OSError: The system cannot load it.
    """
    try:
        path = Path(library).resolve(strict=True)
        found = [each.stat() for each in (path, *path.parents)]
    except OSError as error:
        raise VariantUnsupported(f"The delegate {library:.200} cannot be read: {error.strerror}.") from error
    for each, at in zip((path, *path.parents), found, strict=True):
        is_shared = at.st_mode & _OTHERS_WRITE and not at.st_mode & stat.S_ISVTX
        if at.st_uid not in {0, os.geteuid()} or is_shared:
            raise VariantUnsupported(
                f"The delegate {library:.200} is not loaded: others may change {each}.",
                remedy="Let root own it, and let nobody else write to it.",
            )
    code = ctypes.PyDLL(str(path))
    if not all(hasattr(code, name) for name in _DELEGATE_FUNCTIONS):
        raise VariantUnsupported(
            f"{library:.200} is no delegate: it lacks {' or '.join(_DELEGATE_FUNCTIONS)}."
        )
    return str(path)


def _named(interpreter: Any) -> tuple[dict[str, _Details], dict[str, _Details]]:
    """Return inputs and outputs by the names that a manifest uses, as the table at the head says."""
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    keys = list(interpreter.get_signature_list())
    if _DEFAULT_SIGNATURE not in keys and len(keys) != 1:
        return {each["name"]: each for each in inputs}, {each["name"]: each for each in outputs}
    runner = interpreter.get_signature_runner(_DEFAULT_SIGNATURE if _DEFAULT_SIGNATURE in keys else keys[0])
    named = runner.get_input_details()
    if _places(named.values()) != _places(inputs):  # tensors are counted anew in each graph of a file
        raise VariantUnsupported("The model's signature is not about the file's first graph.")
    return named, runner.get_output_details()


def _places(tensors: Any) -> set[tuple[int, str]]:
    return {(each["index"], each["name"]) for each in tensors}


def _open_shape(details: _Details) -> tuple[int, ...]:
    """Return the shape that a tensor may take: any batch, and whatever else its signature leaves open."""
    stated = np.asarray(details["shape_signature"]).tolist() or np.asarray(details["shape"]).tolist()
    return (-1, *stated[1:])
