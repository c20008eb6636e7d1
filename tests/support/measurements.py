"""What devices measure, for tests: valid, and short to write."""

from __future__ import annotations

from fleet.protocol.assignment import VariantPolicy
from fleet.protocol.errors import Cause
from fleet.protocol.records import Candidate, Measurement
from fleet.variants import choose

DIGEST = "ab" * 32
HARDWARE = "Board 4"
RUNTIMES = {"onnxruntime": "1.31.1", "litert": "2.1.0"}


def candidate(
    variant: str, median_us: float, *, cpu_us: float = 1.0, size_bytes: int = 1000, cause: Cause | None = None
) -> Candidate:
    """Return how a variant did."""
    return Candidate(variant, "litert", "2.1.0", size_bytes, median_us, 2 * median_us, cpu_us, cause)


def measurement(
    *candidates: Candidate,
    policy: VariantPolicy = VariantPolicy.FASTEST,
    hardware: str = HARDWARE,
    at_s: float = 10.0,
) -> Measurement:
    """Return a measurement that chose as it should."""
    best = choose(candidates, policy)
    return Measurement(
        at_s=at_s,
        deployment_id="r1-0f",
        model="digits",
        version=1,
        manifest_sha256=DIGEST,
        architecture="x86_64",
        hardware=hardware,
        runtimes=RUNTIMES,
        policy=policy,
        candidates=candidates,
        chosen=best.variant if best else None,
    )
