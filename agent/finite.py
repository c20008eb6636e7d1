"""Whether all numbers of an array are finite, as cheaply as can be told."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SUMMED_ITEM_BYTES = 4  # in half precision a sum of squares soon overflows, and is slow


def is_finite(values: NDArray[Any]) -> bool:
    """Tell whether no value is infinite or NaN; what is no floating-point number is finite.

    The sum of squares is finite only if every value is, and takes one pass and no temporary array. Where it
    is not, because values are large, each of them is looked at.

    Args:
        values: Any shape.
    """
    if values.dtype.kind != "f":
        return True
    if values.itemsize >= _SUMMED_ITEM_BYTES and math.isfinite(np.vdot(values, values)):
        return True  # of all of NumPy's products this one does not warn of an overflow
    return bool(np.isfinite(values).all())
