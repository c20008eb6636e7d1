"""A target: one form in which a model can be packed, for one runtime at one precision.

Adding one takes a file in `converters.targets` that ends in a `Target`, an entry in the registry there, and
whatever the contract in ``tests/contract/test_targets.py`` then asks of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from converters.data.samples import Inputs
from converters.runtimes.runtime import Runtime
from converters.source import Precision
from fleet.protocol.errors import ConversionFailed
from fleet.protocol.manifest import Signature

CalibrationMethod = Literal["minmax", "entropy", "percentile"]

PARITY_TOLERANCE = {"fp32": 1e-4, "fp16": 1e-2}
"""By precision; see `converters.judging.gate.parity` for what is compared. 2^-24 and 2^-11 are the unit
roundoffs (IEEE 754), and sums of some hundred terms lose two digits more."""


@dataclass(frozen=True, eq=False)
class Work:
    """What a target builds from.

    Attributes:
        onnx: The fp32 graph, serialized: opset `converters.graphs.versions.OPSET` or newer, symbolic batch
            dimension.
        signature: What it takes and gives.
        calibration: Samples for quantization; None where none were given.
        method: How activations' ranges are found from them.
        keep_float: Names of the ONNX nodes that stay float in a quantized variant.
    """

    onnx: bytes
    signature: Signature
    calibration: Inputs | None = None
    method: CalibrationMethod = "minmax"
    keep_float: frozenset[str] = frozenset()

    def samples(self) -> Inputs:
        """Return the calibration samples, for what cannot do without them.

        Raises:
            ConversionFailed: None were given.
        """
        if self.calibration is None:
            raise ConversionFailed(
                "Quantization needs calibration samples to find the range of every activation.",
                remedy="Give a dataset to calibrate with (--calibrate).",
            )
        return self.calibration


@dataclass(frozen=True, eq=False)
class Target:
    """One form in which a model can be packed.

    Attributes:
        name: Of the variant, such as ``onnx-int8``.
        precision: Of its weights.
        runtime: What runs it here, and on devices.
        file_name: Of the model in the bundle.
        calibrated: Whether it needs samples to be built.
        build: Returns the model's bytes; the same work gives the same bytes.
            Raises ConversionFailed, or its subclass UnsupportedOperator, where the model has no such form.
        as_it_is: Whether it is the source itself, which nothing was done to.
    """

    name: str
    precision: Precision
    runtime: Runtime
    file_name: str
    calibrated: bool
    build: Callable[[Work], bytes]
    as_it_is: bool = False

    @property
    def quantized(self) -> bool:
        """Whether building it turns weights into integers."""
        return not self.as_it_is and self.precision not in PARITY_TOLERANCE

    @property
    def parity_tolerance(self) -> float | None:
        """How far its numbers may be from the source's; None where the metric alone judges."""
        if self.quantized:
            return None
        return PARITY_TOLERANCE["fp32" if self.as_it_is else self.precision]
