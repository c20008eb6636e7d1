"""Which samples calibrate, which judge, and how the source itself does on the latter.

Without a dataset there is nothing to calibrate with and no truth. Float variants are then compared with the
source on numbers drawn from the standard normal distribution: that shows a wrong operator, and says nothing
about the task.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from converters.data.samples import Inputs, Samples, bind, read_samples, split
from converters.judging.evaluate import evaluate
from converters.judging.gate import Gate
from converters.judging.variant import Yardstick
from converters.source import Source
from fleet.protocol.difference import scaled_differences
from fleet.protocol.errors import ConversionFailed, InvalidDataset
from fleet.protocol.manifest import Signature

CALIBRATION_SHARE = 0.5
MADE_UP_SAMPLES = 64
MIN_HELD_OUT_SAMPLES = 5
ALONE_SAMPLES = 4
ALONE_TOLERANCE = 1e-3
"""Sums may be ordered otherwise for one sample than for many; what depends on the others differs by more."""


class Prepared(NamedTuple):
    """What a conversion works with.

    Attributes:
        calibration: Samples for quantization, as the model takes them; None where there are none.
        calibration_sha256: Digest of the file that they came from; empty for arrays.
        yardstick: What variants are judged by.
    """

    calibration: Inputs | None
    calibration_sha256: str
    yardstick: Yardstick


def prepare(
    source: Source,
    samples: Samples | Path | str | None,
    held_out: Samples | Path | str | None,
    gate: Gate,
    seed: int,
) -> Prepared:
    """Draw the samples and judge the source.

    Args:
        source: The model.
        samples: To calibrate with and, where ``held_out`` is None, to judge by.
        held_out: To judge by.
        gate: What is demanded.
        seed: Of the split, 0 to 2^32 - 1.

    Raises:
        NotFound: There is no such dataset file.
        InvalidDataset: The samples do not suit the model, or the gate asks what cannot be known without them.
        AccuracyTooLow: The source is not good enough.
        ConversionFailed: The source cannot answer, or made-up samples do not suit it.
    """
    if samples is None and held_out is None:
        if gate.minimum is not None:
            raise InvalidDataset("A minimum can only be demanded of answers to samples.")
        return Prepared(None, "", _made_up(source, gate, seed))
    for_calibration = given_samples(samples)
    for_judging = given_samples(held_out)
    if for_judging is None:
        assert for_calibration is not None
        bind(for_calibration, source.signature)  # what is wrong is told with the dataset's own numbers
        for_calibration, for_judging = split(for_calibration, share=CALIBRATION_SHARE, seed=seed)
    return Prepared(
        None if for_calibration is None else bind(for_calibration, source.signature),
        "" if for_calibration is None else for_calibration.sha256,
        _judged(source, for_judging, gate),
    )


def given_samples(samples: Samples | Path | str | None) -> Samples | None:
    """Return samples however they were given, read from their file if need be.

    Raises:
        NotFound: There is no such file.
        InvalidDataset: It does not hold samples, or they were given as something else.
    """
    if samples is None or isinstance(samples, Samples):
        return samples
    if isinstance(samples, str | Path):
        return read_samples(Path(samples))
    raise InvalidDataset(
        f"Samples cannot be made of an object of type {type(samples).__name__}.",
        remedy="Give a dataset file, or arrays by converters.data.samples.checked_samples.",
    )


def _judged(source: Source, samples: Samples, gate: Gate) -> Yardstick:
    if len(samples) < MIN_HELD_OUT_SAMPLES:
        raise InvalidDataset(
            f"{len(samples)} samples to judge by prove nothing; {MIN_HELD_OUT_SAMPLES} are the least.",
            remedy="Give more samples.",
        )
    inputs = bind(samples, source.signature)
    answers = source.answer(inputs)
    _check_answers(source, inputs, answers)
    evaluation = evaluate(source.signature, answers, samples=samples, inputs=inputs, source_answers=answers)
    gate.check_source(evaluation)
    return Yardstick(source.signature, inputs, answers, samples, evaluation, gate)


def _check_answers(source: Source, inputs: Inputs, answers: NDArray[Any]) -> None:
    """Check that the source answers with numbers, and to each sample as if it were alone.

    Raises:
        ConversionFailed: It does not.
    """
    bad = np.flatnonzero(~np.isfinite(answers.reshape(len(answers), -1)).all(axis=1))
    if bad.size:
        raise ConversionFailed(
            f"{source.name} itself answers held-out sample {bad[0]} with values that are not finite.",
            remedy="Mend the model, or take the sample out of the dataset.",
        )
    if source.signature.inputs[0].shape[0] != -1:
        return  # it never has other company than that of its own batch
    alone = np.linspace(0, len(answers) - 1, ALONE_SAMPLES).astype(int)
    single = [source.answer({name: array[i : i + 1] for name, array in inputs.items()}) for i in alone]
    if not (scaled_differences(np.concatenate(single), answers[alone]) <= ALONE_TOLERANCE).all():
        raise ConversionFailed(
            f"{source.name} answers a held-out sample otherwise when it is alone than among others.",
            remedy="A model on a device must judge each sample by itself: export it in evaluation mode.",
        )


def _made_up(source: Source, gate: Gate, seed: int) -> Yardstick:
    inputs = _normal_inputs(source.signature, seed)
    return Yardstick(source.signature, inputs, source.answer(inputs), None, None, gate)


def _normal_inputs(signature: Signature, seed: int) -> Inputs:
    random = np.random.RandomState(seed)
    inputs: Inputs = {}
    for tensor in signature.inputs:
        if not tensor.dtype.startswith("float") or -1 in tensor.shape[1:]:
            raise ConversionFailed(
                f"No samples can be made up for input {tensor.name!r}: {tensor.dtype}, {tensor.shape}.",
                remedy="Give a dataset.",
            )
        inputs[tensor.name] = random.standard_normal((MADE_UP_SAMPLES, *tensor.shape[1:])).astype(
            tensor.dtype
        )
    return inputs
