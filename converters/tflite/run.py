"""Run a TFLite file with LiteRT, by the names of its signature, at any batch size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fleet.protocol.errors import ConversionFailed


class TfliteSession:
    """A model loaded into LiteRT, on one thread.

    LiteRT does not verify files: give it only what this package wrote or `inspect_tflite` accepted.

    Args:
        model: The file, or its bytes.
        keep_intermediate: Keep every tensor after a run, for `intermediate`; slower.

    Raises:
        ConversionFailed: The runtime cannot load it.
    """

    def __init__(self, model: bytes | Path, *, keep_intermediate: bool = False) -> None:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        try:
            self._interpreter: Any = Interpreter(
                model_content=model.read_bytes() if isinstance(model, Path) else model,
                num_threads=1,
                experimental_preserve_all_tensors=keep_intermediate,
                # Delegates fuse operators, and what lies between them is then no tensor any more.
                experimental_op_resolver_type=(
                    OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
                    if keep_intermediate
                    else OpResolverType.AUTO
                ),
            )
            self._inputs = self._addressed(self._interpreter.get_input_details(), "inputs")
            self._outputs = self._addressed(self._interpreter.get_output_details(), "outputs")
            self._interpreter.allocate_tensors()
            self._shapes = {name: tuple(map(int, e["shape"])) for name, e in self._inputs.items()}
        except Exception as error:  # LiteRT raises ValueError, RuntimeError and what its bindings make up
            raise ConversionFailed(f"LiteRT cannot load the model: {error}.") from error

    def run(self, inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Return the outputs by name.

        Args:
            inputs: Every input by name, all of one batch size where the model leaves it open.

        Raises:
            ConversionFailed: An input is missing or does not fit, or the runtime fails.
        """
        if inputs.keys() != self._inputs.keys():
            raise ConversionFailed(
                f"The model takes the inputs {', '.join(self._inputs)}, not {', '.join(inputs) or 'none'}."
            )
        try:
            self._resize(inputs)
            for name, value in inputs.items():
                self._interpreter.set_tensor(self._inputs[name]["index"], np.ascontiguousarray(value))
            self._interpreter.invoke()
            return {
                name: self._interpreter.get_tensor(entry["index"]) for name, entry in self._outputs.items()
            }
        except Exception as error:  # as above
            raise ConversionFailed(f"LiteRT cannot run the model: {error}.") from error

    def intermediate(self) -> dict[str, NDArray[Any]]:
        """Return every tensor of the last run by its own name; the session must keep them."""
        tensors = {}
        for entry in self._interpreter.get_tensor_details():
            try:
                tensors[entry["name"]] = self._interpreter.get_tensor(entry["index"])
            except ValueError:  # a tensor that the runtime has optimized away has no contents
                continue
        return tensors

    def _addressed(self, details: list[dict[str, Any]], side: str) -> dict[str, dict[str, Any]]:
        """Return the entries of inputs or outputs by the signature's names, or by the tensors' own."""
        signatures = self._interpreter.get_signature_list()
        if not signatures:
            return {entry["name"]: entry for entry in details}
        runner = self._interpreter.get_signature_runner(next(iter(signatures)))
        named = runner.get_input_details() if side == "inputs" else runner.get_output_details()
        names = {entry["index"]: name for name, entry in named.items()}
        return {names.get(entry["index"], entry["name"]): entry for entry in details}

    def _resize(self, inputs: dict[str, NDArray[Any]]) -> None:
        shapes = {name: value.shape for name, value in inputs.items()}
        if shapes == self._shapes:
            return
        for name, shape in shapes.items():
            self._interpreter.resize_tensor_input(self._inputs[name]["index"], shape, strict=True)
        self._interpreter.allocate_tensors()
        self._shapes = shapes
