"""PyTorch modules, and programs saved by ``torch.export.save``.

A module is traced by ``torch.export`` with a symbolic batch, written as ONNX by ``torch.onnx.export``, and
from there on treated as any `onnx_file`. What the module itself answers to the example inputs is the measure.

A ``.pt2`` file is such a traced program. It is read by ``torch.export.load`` only if a person says that they
trust its maker, because reading one can run code. As of PyTorch 2.13 that function unpickles the example
inputs and whatever the archive declares as pickled (``torch.load(…, weights_only=False)``), and evaluates the
symbolic expressions in ``model.json`` as Python. Its documentation warns of it.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from converters.data.samples import Inputs
from converters.source import Source
from converters.sources.onnx_file import source_of_model
from converters.sources.onnx_reading import read_file
from converters.sources.onnx_session import OnnxSession
from converters.sources.pytorch_archive import RECIPE, check_exported_program
from fleet.protocol.errors import ConversionFailed, InvalidModel
from fleet.protocol.manifest import Task

OPSET = 18
"""The lowest that the exporter writes without converting."""

LIBRARIES = ("torch", "onnxscript", "onnx", "onnxruntime")
_TOLERANCE = 1e-4
"""Of the greatest answer: rounding of float32 in another order of additions."""

_BATCH = 256


@dataclass(frozen=True, eq=False)
class _Program:
    """Something that answers, with what it takes to trace it.

    Attributes:
        name: What to call it in messages.
        traced: What ``torch.onnx.export`` takes: a module or an exported program.
        call: Answers tensors.
        examples: Tensors with which it is traced and compared, all of one batch.
        batch: Samples that it takes at once; 0 for any number.
    """

    name: str
    traced: Any
    call: Any
    examples: tuple[Any, ...]
    batch: int = 0


def open_pytorch(
    module_or_path: Any,
    *,
    example_inputs: Any = None,
    name: str = "",
    classes: tuple[str, ...] = (),
    task: Task | None = None,
    trusted: bool = False,
) -> Source:
    """Return the source of a PyTorch module or saved program.

    Args:
        module_or_path: A ``torch.nn.Module`` in evaluation mode on the processor, or a ``.pt2`` file.
        example_inputs: A tensor or array of shape (N, …) for each positional argument of the module, in a
            tuple if there are several; a ``.pt2`` file has its own. float64 arrays are taken as float32.
        name: What to call it; the module's class or the file's name if empty.
        classes: Names of the classes, in the order of the output's columns.
        task: What the model is for; guessed, with a caution, if None.
        trusted: Whether the code that a file may hold may run; not needed for a module.

    Raises:
        NotFound: There is no such file.
        InvalidModel: It is not a module or program that can be used; the message says why.
        ConversionFailed: PyTorch is not installed, cannot trace or export it, or the graph answers otherwise.
        UnsupportedOperator: A node of the graph is one that devices cannot run.
    """
    sha256 = ""
    if isinstance(module_or_path, str | Path):
        path = Path(module_or_path)
        program, sha256 = _loaded(path, name or path.name, example_inputs, trusted)
    else:
        program = _traceable(module_or_path, name, example_inputs)
    model, position = _exported(program)
    inputs = [value.name for value in model.graph.input]

    def answer(batch: Inputs) -> NDArray[Any]:
        return _answers(program, [batch[each] for each in inputs], position)

    source = source_of_model(
        model,
        name=program.name,
        framework="PyTorch",
        classes=classes,
        task=task,
        sha256=sha256,
        answer=answer,
        libraries=LIBRARIES,
    )
    _check_parity(source, {each: t.numpy() for each, t in zip(inputs, program.examples, strict=True)})
    return source


def _torch() -> Any:
    """Import PyTorch by name: it is optional, and type checkers need not read all of it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importlib.import_module("onnxscript")
            return importlib.import_module("torch")
    except ImportError as error:
        raise ConversionFailed(
            f"PyTorch models need PyTorch, and {error.name} is not installed.",
            remedy="Install it: pip install 'muster[torch]' (in a checkout: make setup-torch).",
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep PyTorch's remarks on its own future to itself; what goes wrong is raised."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _traceable(module: Any, name: str, example_inputs: Any) -> _Program:
    torch = _torch()
    if not isinstance(module, torch.nn.Module):
        raise InvalidModel(f"A torch.nn.Module or a .pt2 file is needed, not {type(module).__name__}.")
    name = name or type(module).__name__
    if isinstance(module, torch.jit.ScriptModule):
        raise InvalidModel(f"{name} is TorchScript, which cannot be traced.", remedy=RECIPE)
    if any(part.training for part in module.modules()):
        raise InvalidModel(
            f"{name} is in training mode, in which dropout and batch normalization answer by chance.",
            remedy="Call module.eval() first.",
        )
    tensors = (*module.parameters(), *module.buffers())
    if any(tensor.device.type != "cpu" for tensor in tensors):
        raise InvalidModel(f"{name} is not on the processor.", remedy="Call module.cpu() first.")
    if example_inputs is None:
        raise InvalidModel(
            f"{name} cannot be traced without inputs.", remedy="Give example_inputs, a few real samples."
        )
    return _Program(name, module, module, _examples(torch, example_inputs, name))


def _examples(torch: Any, example_inputs: Any, name: str) -> tuple[Any, ...]:
    """Return tensors of two samples or more: a size of 1 would be taken for a constant."""
    given = example_inputs if isinstance(example_inputs, tuple | list) else (example_inputs,)
    try:
        tensors = [each if isinstance(each, torch.Tensor) else _tensor(torch, each) for each in given]
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidModel(f"The example inputs of {name} are not tensors or arrays: {error}.") from error
    counts = {tensor.shape[0] if tensor.ndim else 0 for tensor in tensors}
    if len(counts) != 1 or 0 in counts:
        raise InvalidModel(
            f"The example inputs of {name} have shapes {', '.join(str(tuple(t.shape)) for t in tensors)};"
            " they must have equally many samples, one or more, as first dimension."
        )
    tensors = [tensor.detach().cpu() for tensor in tensors]
    return tuple(torch.cat([tensor, tensor]) if counts == {1} else tensor for tensor in tensors)


def _tensor(torch: Any, values: Any) -> Any:
    array = np.asarray(values)
    return torch.from_numpy(
        np.ascontiguousarray(array.astype(np.float32) if array.dtype == np.float64 else array)
    )


def _loaded(path: Path, name: str, example_inputs: Any, trusted: bool) -> tuple[_Program, str]:
    """Return the program in a file, and the file's digest."""
    data = read_file(path)
    check_exported_program(data, path)
    if not trusted:
        raise InvalidModel(
            f"{path} may hold code that runs when PyTorch reads it.",
            remedy="If you trust its maker, say so (--trust-pickle); otherwise ask for an .onnx file.",
        )
    torch = _torch()
    try:
        with _quiet():
            program = torch.export.load(io.BytesIO(data))
            module = program.module()
            examples = program.example_inputs
    except Exception as error:  # what a file makes PyTorch raise has no root
        raise InvalidModel(
            f"{path} cannot be read by PyTorch {torch.__version__}: {_told(error)}",
            remedy="Save it again with the PyTorch that is installed here: " + RECIPE,
        ) from error
    if example_inputs is None:
        arguments, keywords = examples or ((), {})
        if keywords or not arguments:
            raise InvalidModel(
                f"{path} has no example inputs, or some by keyword.",
                remedy="Export it with all inputs as positional arguments.",
            )
        example_inputs = arguments
    tensors = _examples(torch, example_inputs, name)
    fixed = _fixed_batch(program)
    if fixed:
        tensors = tuple(tensor[:1].repeat(fixed, *[1] * (tensor.ndim - 1)) for tensor in tensors)
    return _Program(name, program, module, tensors, fixed), hashlib.sha256(data).hexdigest()


def _fixed_batch(program: Any) -> int:
    """Return how many samples a program takes at once; 0 for any number."""
    names = set(program.graph_signature.user_inputs)
    values = [node.meta.get("val") for node in program.graph.nodes if node.name in names]
    sizes = [value.shape[0] for value in values if getattr(value, "ndim", 0)]
    return max((int(size) for size in sizes if isinstance(size, int)), default=0)


def _exported(program: _Program) -> tuple[Any, int]:
    """Return the program as ONNX, and which of its outputs the first floating-point one is."""
    torch = _torch()
    leaves = _leaves(torch, program, program.examples)
    floats = [index for index, leaf in enumerate(leaves) if leaf.is_floating_point()]
    if not floats:
        raise InvalidModel(
            f"{program.name} answers with no tensor of floating-point numbers.",
            remedy="Let forward() return scores rather than the chosen class.",
        )
    names = ["output"] if len(leaves) == 1 else [f"output_{index}" for index in range(len(leaves))]
    options: dict[str, Any] = {}
    if isinstance(program.traced, torch.nn.Module):
        batch = torch.export.Dim("batch")
        options = {"args": program.examples, "dynamic_shapes": tuple({0: batch} for _ in program.examples)}
    try:
        with _quiet(), torch.no_grad():
            exported = torch.onnx.export(
                program.traced,
                **options,
                dynamo=True,
                opset_version=OPSET,
                output_names=names,
                external_data=False,
                verbose=False,
            )
        return exported.model_proto, floats[0]
    except Exception as error:  # the exporter's errors have no root, and wrap whatever the module raises
        cause = error.__cause__ or error
        raise ConversionFailed(
            f"PyTorch {torch.__version__} cannot export {program.name} to ONNX: {_told(cause)}",
            remedy="Use operators that the exporter knows, and let no size depend on the number of samples.",
        ) from error


def _leaves(torch: Any, program: _Program, tensors: Sequence[Any]) -> list[Any]:
    """Return all tensors that a program answers with."""
    tree = importlib.import_module("torch.utils._pytree")
    try:
        with _quiet(), torch.no_grad():
            leaves = tree.tree_leaves(program.call(*tensors))
    except Exception as error:  # a module may raise anything
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors)
        raise InvalidModel(f"{program.name} fails on inputs of shape {shapes}: {_told(error)}") from error
    if not leaves or not all(isinstance(leaf, torch.Tensor) for leaf in leaves):
        raise InvalidModel(f"{program.name} answers with something else than tensors.")
    return list(leaves)


def _answers(program: _Program, arrays: list[NDArray[Any]], position: int) -> NDArray[Any]:
    """Return one output for any number of samples, float32."""
    torch = _torch()
    count, at_once = len(arrays[0]), program.batch or _BATCH
    parts = []
    for start in range(0, count, at_once):
        indices = np.arange(start, start + at_once)
        indices = np.minimum(indices, count - 1) if program.batch else indices[indices < count]
        tensors = [torch.from_numpy(np.ascontiguousarray(array[indices])) for array in arrays]
        parts.append(_leaves(torch, program, tensors)[position].float().numpy())
    return np.concatenate(parts)[:count]


def _check_parity(source: Source, examples: Inputs) -> None:
    """Compare the graph with the module on the example inputs."""
    from onnx import load_model_from_string

    assert source.onnx is not None
    output = source.signature.outputs[0].name
    expected = source.answer(examples)
    (found,) = OnnxSession(load_model_from_string(source.onnx), source.name).run(examples, [output])
    scale = float(np.max(np.abs(expected), initial=1.0))
    if found.shape != expected.shape or not np.allclose(found, expected, rtol=0, atol=_TOLERANCE * scale):
        raise ConversionFailed(
            f"The ONNX graph of {source.name} does not answer the example inputs as the module does.",
            remedy="Its forward() may depend on the values of its inputs: use torch.where or torch.cond.",
        )


def _told(error: BaseException) -> str:
    return " ".join(str(error).split())[:400] or type(error).__name__
