"""Aims: what a benchmark is to reach, one line for each.

::

    AIM name measured limit OK|MISS [reason]

    AIM tflite-int8-points-lost-mlp 0.17 <=0.5 OK
    AIM install-share-of-onnx2tf - <=0.2 MISS onnx2tf could not be installed

What could not be measured is missed, and the reason follows; a number that is not one is missed as well.
"""

from __future__ import annotations

import math
import operator
from typing import Literal, NamedTuple

_HOLDS = {"<=": operator.le, ">=": operator.ge}
_MOST_DIGITS = 18
"""More than a float has."""


class Aim(NamedTuple):
    """One aim.

    Attributes:
        name: In one word.
        measured: What was reached; None where it could not be measured.
        relation: How it has to stand to the limit.
        limit: See ``relation``.
        reason: Why it could not be measured, or what else there is to say.
    """

    name: str
    measured: float | None
    relation: Literal["<=", ">="]
    limit: float
    reason: str = ""

    @property
    def reached(self) -> bool:
        """Whether it was measured and holds."""
        return self.measured is not None and self._holds(self.measured)

    def __str__(self) -> str:
        shown = "-" if self.measured is None else self._shown(self.measured)
        verdict = "OK" if self.reached else "MISS"
        reason = " ".join(self.reason.split())
        return f"AIM {self.name} {shown} {self.relation}{self.limit:g} {verdict} {reason}".rstrip()

    def _holds(self, value: float) -> bool:
        return bool(_HOLDS[self.relation](value, self.limit))

    def _shown(self, value: float) -> str:
        """Return three significant digits, or as many as it takes to be on the right side of the limit."""
        if not math.isfinite(value) or value == 0:
            return f"{value:g}"
        fewest = max(0, 2 - math.floor(math.log10(abs(value))))
        texts = (f"{value:.{decimals}f}" for decimals in range(fewest, fewest + _MOST_DIGITS))
        text = next(text for text in texts if self._holds(float(text)) == self._holds(value))
        return text.rstrip("0").rstrip(".") if "." in text else text
