"""How thorough tests are: `make test-faults` asks for everything, `make test` for what stands for it.

A file that has more cases there is marked ``thorough``; a test that takes long and runs only there, ``long``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from hub.broker.kinds import KINDS, Kind

ALL = bool(os.environ.get("MUSTER_ALL_FAULTS"))
"""Whether every fault is tried at every place and on every broker, or a few of them."""


def brokers(one: Kind) -> Sequence[Kind]:
    """Return the brokers to test on, for what hardly depends on which it is.

    Args:
        one: That stands for both.
    """
    return KINDS if ALL else (one,)


def examples(full: int) -> int:
    """Return how many examples of a property to try: all, or the first quarter of them.

    Args:
        full: How many are all.
    """
    return full if ALL else max(full // 4, 5)
