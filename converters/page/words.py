"""Numbers as people read them."""

from __future__ import annotations


def size_text(size_bytes: float) -> str:
    """Return a size with a decimal unit: 1,500 bytes are "1.5 kB"."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.3g} {unit}"
    return f"{size_bytes:.0f} B"


def latency_text(latency_us: float) -> str:
    """Return a duration of microseconds in the unit that suits it."""
    if latency_us >= 1e6:
        return f"{latency_us / 1e6:.3g} s"
    return f"{latency_us / 1e3:.3g} ms" if latency_us >= 1e3 else f"{latency_us:.3g} µs"


def drop_text(drop: float) -> str:
    """Return the loss of a metric: a gain is negative, and nothing lost has no sign."""
    return f"{drop:.4f}".replace("-", "−") if round(drop, 4) else "0.0000"
