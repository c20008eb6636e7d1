"""Memory as counts over log-spaced buckets: the grid of `fleet.protocol.latency`, with KiB in place of µs.

Bucket ``i`` holds readings from ``2^(i/4)`` KiB up to, but not including, ``2^((i+1)/4)`` KiB.
"""

from __future__ import annotations

from fleet.protocol.latency import LatencyCounts, bucket, quantile_us

MemoryCounts = LatencyCounts
"""How many readings fell into each bucket; buckets without any are left out."""

_KIB = 1024.0


def bucket_of_bytes(size_bytes: float) -> int:
    """Return the bucket of a reading."""
    return bucket(size_bytes / _KIB)


def quantile_bytes(counts: MemoryCounts, q: float) -> float | None:
    """Return an upper bound of the q-quantile; None if nothing was read."""
    found = quantile_us(counts, q)
    return None if found is None else found * _KIB
