"""How thorough tests are: everything, as `make test-faults` asks, or what stands for it, as `make test` does."""

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
