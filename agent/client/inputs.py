"""What an application gives a model, as arrays by name: one array, a list, or several by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fleet.protocol.errors import InvalidInput

TEXT = "str"

Array = NDArray[Any]


def named_arrays(
    inputs: ArrayLike | Mapping[str, ArrayLike], element_types: Mapping[str, str], model: str
) -> dict[str, Array]:
    """Return inputs as arrays by name: arrays as they are, lists as arrays of the model's types.

    Args:
        inputs: By name, or one for a model of one input.
        element_types: What the model takes: NumPy's name of the type, or ``str`` for text, by input.
        model: Its name.

    Raises:
        InvalidInput: The model takes several inputs and one was given without a name, or a list is no array
            of its type.
    """
    if not isinstance(inputs, Mapping):
        if len(element_types) != 1:
            raise InvalidInput(f"Model {model} takes {len(element_types)} inputs: give them by name.")
        inputs = {next(iter(element_types)): inputs}
    return {
        name: value if isinstance(value, np.ndarray) else _array(name, value, element_types.get(name))
        for name, value in inputs.items()
    }


def _array(name: str, value: ArrayLike, element_type: str | None) -> Array:
    try:
        return np.asarray(value, dtype=object if element_type == TEXT else element_type)
    except (ValueError, TypeError, OverflowError) as error:
        raise InvalidInput(f"Input {name} is no array of {element_type}: {error}.") from error
