"""Packing: golden inputs and expected outputs for the sound variants, and the bundle of them.

A variant whose self-test would prove nothing is refused here, at the last.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import msgspec

from converters.bundles.bundle import Bundle, Identity, assemble
from converters.data.samples import Inputs
from converters.judging.golden import SURENESS, Expected, choose_golden_inputs, expected_outputs
from converters.judging.prepare import Prepared
from converters.judging.variant import Candidate
from converters.report import libraries_of
from converters.source import Source
from converters.target import Work
from fleet.protocol.errors import ConversionFailed
from fleet.protocol.manifest import Provenance

NO_DATASET_SHA256 = "0" * 64
"""Where samples were given as arrays, no file can be named."""


def pack(
    candidates: Sequence[Candidate],
    source: Source,
    prepared: Prepared,
    work: Work,
    *,
    identity: Identity | None,
    seed: int,
    embedding: str = "",
) -> Bundle | None:
    """Return the bundle of the sound variants; None without samples, or if none is sound.

    Args:
        candidates: What became of each target; those that cannot be tested on a device are refused here.
        source: What was converted.
        prepared: The samples.
        work: How it was converted.
        identity: What the bundle is called; None names it after the source.
        seed: Of every random choice.
        embedding: The tensor that was asked for as its embedding; empty for none.

    Raises:
        InvalidManifest: The name or version cannot be used.
    """
    yardstick = prepared.yardstick
    if yardstick.samples is None:
        return None
    judged = [candidate for candidate in candidates if candidate.sound]
    golden = _choose_test(judged, prepared, work, seed)
    sound = [candidate for candidate in candidates if candidate.sound]
    if not sound:
        return None
    identity = identity or _identity(source, sound, prepared, work, seed)
    if embedding:
        identity = replace(identity, provenance=_with_embedding(identity.provenance, embedding))
    return assemble(identity, sound, yardstick, golden)


def _with_embedding(provenance: Provenance, embedding: str) -> Provenance:
    """Say in a provenance which tensor was asked for."""
    how = {**provenance.hyperparameters, "embedding": embedding}
    return msgspec.structs.replace(provenance, hyperparameters=how)


def _choose_test(judged: Sequence[Candidate], prepared: Prepared, work: Work, seed: int) -> Inputs:
    """Return the golden inputs by which most variants can be tested; set what each has to give, or refuse."""
    tests = [_tested(judged, prepared, work, SURENESS[0], seed)]
    for sureness in SURENESS[1:]:
        if not tests[-1].failures or prepared.yardstick.signature.task != "classification":
            break  # of other tasks, sureness changes nothing
        tests.append(_tested(judged, prepared, work, sureness, seed))
    best = min(tests, key=lambda test: len(test.failures))
    for candidate in judged:
        candidate.expected = best.expected.get(candidate.target.name)
        candidate.failure = best.failures.get(candidate.target.name)
    return best.golden


class _Test(NamedTuple):
    """Golden inputs, and what came of them.

    Attributes:
        golden: The inputs.
        expected: What each variant has to give, by its name.
        failures: Why a variant cannot be tested by them, likewise.
    """

    golden: Inputs
    expected: dict[str, Expected]
    failures: dict[str, ConversionFailed]


def _tested(judged: Sequence[Candidate], prepared: Prepared, work: Work, sureness: float, seed: int) -> _Test:
    """Return what becomes of the variants under golden inputs of some sureness."""
    yardstick = prepared.yardstick
    assert yardstick.samples is not None
    golden = choose_golden_inputs(
        yardstick.signature,
        yardstick.inputs,
        yardstick.answers,
        yardstick.samples,
        yardstick.inputs if prepared.calibration is None else prepared.calibration,
        sureness=sureness,
    )
    test = _Test(golden, {}, {})
    for candidate in judged:
        assert candidate.session is not None
        assert candidate.model is not None
        name, runtime = candidate.target.name, candidate.target.runtime
        try:
            test.expected[name] = expected_outputs(
                runtime, candidate.session, candidate.model, work.signature, golden, seed=seed
            )
        except ConversionFailed as error:
            test.failures[name] = error
    return test


def _identity(
    source: Source, sound: Sequence[Candidate], prepared: Prepared, work: Work, seed: int
) -> Identity:
    """Name a bundle after its source, and say what it takes to build it again."""
    held_out = prepared.yardstick.samples
    assert held_out is not None
    kept = {f"keep_float of {each.target.name}": ",".join(each.kept_float) for each in sound}
    name = re.sub(r"[^a-z0-9-]+", "-", source.name.lower().rsplit(".", 1)[0]).strip("-")
    return Identity(
        model=name[:64].strip("-") or "model",
        version=1,
        provenance=Provenance(
            dataset="calibration",
            dataset_sha256=prepared.calibration_sha256 or NO_DATASET_SHA256,
            estimator=source.framework,
            hyperparameters={
                "source": source.name,
                "source_sha256": source.sha256 or hashlib.sha256(source.onnx or b"").hexdigest(),
                "held_out_sha256": held_out.sha256 or NO_DATASET_SHA256,
                "calibration_method": work.method,
                **{name: layers for name, layers in kept.items() if layers},
            },
            seed=seed,
            libraries=libraries_of(source),
        ),
    )
