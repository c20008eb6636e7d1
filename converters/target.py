"""A target: one form in which a model can be packed, for one runtime at one precision.

Adding one takes a file in `converters.targets` that ends in a `Target`, an entry in the registry there, and
whatever the contract in ``tests/contract/test_targets.py`` then asks of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from converters.runtimes.runtime import Runtime
from converters.samples import Inputs
from converters.source import Precision
from fleet.protocol.manifest import Signature

CalibrationMethod = Literal["minmax", "entropy", "percentile"]


@dataclass(frozen=True, eq=False)
class Work:
    """What a target builds from.

    Attributes:
        onnx: The fp32 graph, serialized: core operators of opset `converters.graph.OPSET` or newer, symbolic
            batch dimension.
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
    """

    name: str
    precision: Precision
    runtime: Runtime
    file_name: str
    calibrated: bool
    build: Callable[[Work], bytes]

    @property
    def quantized(self) -> bool:
        """Whether it is judged by its metric rather than by numeric parity."""
        return self.precision in {"int8", "int4"}
