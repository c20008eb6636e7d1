"""Names of the features that are components of an embedding: what a model itself makes of its input.

Statistics of an input's numbers do not see what is in it: digits that lie on their side have the mean,
contrast and energy of those that stand. A layer inside the model does, so a conversion can project one to a
few numbers (`converters.embedding`), each of which is a feature like any other::

    embedding.0, embedding.1, …    at most `MAX_COMPONENTS`, the widest first

To reduce images by a trained classifier, and to test each number that is left by itself, corrected for how
many there are, found shifts best among the methods that Rabanser, Günnemann and Lipton compare ("Failing
Loudly: An Empirical Study of Methods for Detecting Dataset Shift", NeurIPS 2019).
"""

from __future__ import annotations

import re

MAX_COMPONENTS = 8
"""Most that a model can have: each is as much of a manifest and of a telemetry window as any feature."""

_COMPONENT = re.compile(rf"embedding\.([0-{MAX_COMPONENTS - 1}])")


def component_feature(number: int) -> str:
    """Return the name of the feature that is one component, numbered from 0."""
    return f"embedding.{number}"


def component_of(feature: str) -> int | None:
    """Return the number of the component that a feature is; None if it is none."""
    found = _COMPONENT.fullmatch(feature)
    return int(found[1]) if found else None
