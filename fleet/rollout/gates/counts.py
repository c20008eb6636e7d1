"""Evidence of one metric as one array, so that what is done to it is done to all of it at once.

====  =====  ==========================================================================================
axis         what it goes over
====  =====  ==========================================================================================
0     view   the evidence, or what is left of it without one group of devices and another (`groups`)
1     class  all devices first, then each stratum, by name
2     span   the whole stage first, then each of its spans (`spans`), of one the same again
3     arm    canaries, controls
4     field  `DEVICES` to `TOTAL`, then how many samples fell into each cell, from cell 0 on
====  =====  ==========================================================================================

The numbers are floats, which are exact for counts up to 2^53.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fleet.rollout.gates.evidence import Arm, Evidence, Tally

Floats = NDArray[np.float64]

WHOLE = ""
"""The name of all classes together."""
CANARY, CONTROL = 0, 1
DEVICES, WINDOWS, BAD_SQUARED, CROSS, TOTAL_SQUARED, BAD, TOTAL = range(7)
CELLS = 7
"""The first cell's field."""


class Part(NamedTuple):
    """One side of a comparison, or of one class of devices in it.

    Attributes:
        devices: That contributed.
        windows: That were counted.
        tally: What they said.
    """

    devices: int
    windows: int
    tally: Tally


_NOTHING = Part(0, 0, Tally())
_NO_EVIDENCE = Evidence.empty(0)


def names_of(evidence: Evidence) -> list[str]:
    """Return what axis 1 goes over."""
    return [WHOLE, *sorted(evidence.canary.strata.keys() | evidence.control.strata.keys())]


def flattened(whole: Evidence, parts: Sequence[Evidence], place: int) -> Floats:
    """Return the whole as view 0 and parts of it as those after, in the classes and spans that it has.

    Args:
        whole: All of the evidence.
        parts: Of it.
        place: Of the metric in the arms' tallies.
    """
    names = names_of(whole)
    numbers = sorted(whole.spans, reverse=True) if len(whole.spans) > 1 else []
    spans = [
        [one, *([one.spans.get(number, _NO_EVIDENCE) for number in numbers] or [one])]
        for one in (whole, *parts)
    ]
    flat = flattened_parts(
        [
            _said(arm if name == WHOLE else arm.strata.get(name), place)
            for view in spans
            for name in names
            for one in view
            for arm in (one.canary, one.control)
        ]
    )
    return flat.reshape(len(spans), len(names), len(spans[0]), 2, -1)


def flattened_parts(parts: Sequence[Part]) -> Floats:
    """Return one row of fields for each part."""
    cells = [tally.cells for _, _, tally in parts]
    flat = np.zeros((len(parts), CELLS + max(map(max, filter(None, cells)), default=-1) + 1))
    flat[:, :CELLS] = [
        (devices, windows, tally.bad_squared, tally.cross, tally.total_squared, tally.bad, tally.total)
        for devices, windows, tally in parts
    ]
    rows = np.repeat(np.arange(len(parts)), [len(one) for one in cells])
    columns = np.fromiter(chain.from_iterable(cells), np.intp, len(rows))
    flat[rows, CELLS + columns] = np.fromiter(chain.from_iterable(one.values() for one in cells), float)
    return flat


def part(fields: Floats) -> Part:
    """Return a row of fields as a part."""
    devices, windows, bad_squared, cross, total_squared, bad, total, *cells = fields.tolist()
    seen = {cell: int(number) for cell, number in enumerate(cells) if number}
    tally = Tally(int(bad), int(total), bad_squared, cross, total_squared, seen)
    return Part(int(devices), int(windows), tally)


def minus(counts: Floats, parts: Floats) -> Floats:
    """Return counts without parts of them; of one that cannot be a part, nothing is left."""
    left = np.maximum(0.0, counts - parts)
    if left.shape[-1] > CELLS:
        left[..., TOTAL] = left[..., CELLS:].sum(axis=-1)
    else:
        left[..., BAD] = np.minimum(left[..., BAD], left[..., TOTAL])
    return left


def ratio(above: Floats, below: Floats) -> Floats:
    """Return ``above / below``, and 0 where that has no value."""
    shape = np.broadcast_shapes(np.shape(above), np.shape(below))
    found: Floats = np.divide(above, below, out=np.zeros(shape), where=below > 0.0)
    return found


def _said(arm: Arm | None, place: int) -> Part:
    if arm is None or not arm.tallies:
        return _NOTHING
    return Part(arm.devices, arm.windows, arm.tallies[place])
