"""Durations, as people write them: ``90s``, ``15min``, ``24h``, ``7d``, ``2w``."""

from __future__ import annotations

import re

from fleet.protocol.errors import InvalidInput

_UNITS_S = {"s": 1, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_DURATION = re.compile(rf"(\d{{1,9}})({'|'.join(_UNITS_S)})", re.ASCII)


def duration_s(text: str) -> int:
    """Return a duration in seconds; raises `InvalidInput` if the text is none."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise InvalidInput(f"{text!r:.40} is no duration.", remedy="Use for example 90s, 30min, 2h or 7d.")
    return int(found[1]) * _UNITS_S[found[2]]
