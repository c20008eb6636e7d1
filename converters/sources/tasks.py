"""What a model is for, where nobody says so.

A graph tells shapes and numbers, not meanings. These rules, in this order, are what can be seen:

1. names of classes are given, or stated in the graph, one for each column of the output: classification;
2. the answers to probes are probabilities: C > 1 columns, none negative, each row's sum 1: classification;
3. the output has the shape of the only input, and a sample more than one element: reconstruction;
4. otherwise: regression. A score of strangeness cannot be told from any other number.

A guess is always a caution that says what was seen and how to say otherwise.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from converters.source import Source
from fleet.protocol.errors import InvalidModel
from fleet.protocol.manifest import Signature, Task, Tensor

_SUM_TOLERANCE = 0.02
"""int8 probabilities come in steps of 1/256, and not every row adds up."""

_ASSUMED = "The task was not given."


class Judged(NamedTuple):
    """A signature, and what had to be assumed for it."""

    signature: Signature
    cautions: tuple[str, ...]


def judged_signature(
    name: str,
    inputs: tuple[Tensor, ...],
    outputs: tuple[Tensor, ...],
    answers: NDArray[Any],
    *,
    task: Task | None,
    classes: tuple[str, ...],
    stated_classes: tuple[str, ...] = (),
) -> Judged:
    """Return the signature of a model, its task checked or guessed.

    Args:
        name: What to call the model in messages.
        inputs: What it takes.
        outputs: What it gives, the judged output first.
        answers: Its first output for probes, shape (N, …).
        task: What it is for; None to find out.
        classes: Names of the classes; empty where none are given.
        stated_classes: Names that the model itself states.

    Raises:
        InvalidModel: The output's shape does not suit the task or the classes.
    """
    output = outputs[0]
    columns = output.shape[1] if len(output.shape) == 2 else 0
    cautions: tuple[str, ...] = ()
    if task is None:
        task, why = _guess(inputs, output, answers, classes or stated_classes)
        cautions = (f"{_ASSUMED} It is taken for {task}, because {why}. Say which it is with task (--task).",)
    _check(name, task, inputs, output)
    if task != "classification":
        return Judged(Signature(inputs, outputs, (), task), cautions)
    if classes and len(classes) != columns:
        raise InvalidModel(
            f"{name} answers with {columns} numbers for each sample; {len(classes)} classes are named.",
            remedy="Name one class for each, in the order of the output.",
        )
    if not classes and len(stated_classes) == columns:
        classes = stated_classes
    return Judged(Signature(inputs, outputs, classes, task), cautions)


def with_task(source: Source, task: Task | None) -> Source:
    """Return a source with the task that a person says it is for; None leaves it as it is.

    Raises:
        InvalidModel: The output's shape does not suit the task.
    """
    signature = source.signature
    if task is None:
        return source
    _check(source.name, task, signature.inputs, signature.outputs[0])
    classes = signature.classes if task == "classification" else ()
    cautions = tuple(caution for caution in source.cautions if not caution.startswith(_ASSUMED))
    told = Signature(signature.inputs, signature.outputs, classes, task)
    return replace(source, signature=told, cautions=cautions)


def _guess(
    inputs: tuple[Tensor, ...], output: Tensor, answers: NDArray[Any], classes: tuple[str, ...]
) -> tuple[Task, str]:
    columns = output.shape[1] if len(output.shape) == 2 else 0
    if columns > 1 and len(classes) == columns:
        return "classification", f"output {output.name!r} has one number for each of the {columns} classes"
    if columns > 1 and (answers >= 0).all() and np.allclose(answers.sum(axis=1), 1, atol=_SUM_TOLERANCE):
        return "classification", f"the {columns} numbers of output {output.name!r} are probabilities"
    if _same_shape(inputs, output) and int(np.prod(output.shape[1:])) > 1:
        return "reconstruction", f"output {output.name!r} has the shape of the input"
    return "regression", f"output {output.name!r} is neither probabilities nor of the input's shape"


def _same_shape(inputs: tuple[Tensor, ...], output: Tensor) -> bool:
    return len(inputs) == 1 and inputs[0].shape == output.shape and inputs[0].dtype != "str"


def _check(name: str, task: Task, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    """Refuse an output whose shape is not the task's."""
    shape = output.shape
    suits = {
        "classification": len(shape) == 2 and shape[1] > 1,
        "clustering": len(shape) == 2,
        "anomaly": int(np.prod(shape[1:])) == 1,
        "reconstruction": inputs[0].shape == shape and inputs[0].dtype != "str",
    }
    if not suits.get(task, True):
        needed = {
            "classification": "a number for each class, (N, C) with C of 2 or more",
            "clustering": "the distance to each centre, (N, K)",
            "anomaly": "one score, (N, 1)",
            "reconstruction": f"the shape of the first input, {inputs[0].shape}",
        }[task]
        raise InvalidModel(
            f"{name} is said to be for {task}, which needs {needed}; its first output {output.name!r} has"
            f" shape {shape}.",
            remedy="Give another task, or export the output that belongs to it.",
        )
