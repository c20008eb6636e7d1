"""Where what a runtime says becomes what we say: its errors, and the names that its file gives to tensors."""

from __future__ import annotations

from collections.abc import Iterable

from fleet.protocol.errors import VariantUnsupported
from fleet.protocol.manifest import Signature

_MAX_LENGTH = 300


def first_line(error: Exception) -> str:
    """Return the first line of a runtime's message; the lines that follow are about its own code."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:_MAX_LENGTH]


def check_names(signature: Signature, inputs: Iterable[str], outputs: Iterable[str]) -> None:
    """Check that a file has the tensors of the signature.

    Args:
        signature: What the manifest says.
        inputs: Names of the file's inputs: exactly those of the signature, or one would stay without a value.
        outputs: Names of the file's outputs: at least those of the signature, its embedding among them.

    Raises:
        VariantUnsupported: It has not.
    """
    differing = {tensor.name for tensor in signature.inputs} ^ set(inputs)
    differing |= {tensor.name for tensor in signature.computed} - set(outputs)
    if differing:
        raise VariantUnsupported(
            f"The model and its manifest do not name the same tensors: {', '.join(sorted(differing)):.200}."
        )
