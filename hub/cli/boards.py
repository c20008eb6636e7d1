"""How a device's board is shown: a line of what it told last."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hub.cli.output import ago, console


def print_board(board: dict[str, Any] | None) -> None:
    """Print what the API says of a board; nothing if it said nothing."""
    if board is not None:
        parts = ", ".join(_parts(board))
        console.out(f"board:     {parts} ({ago(board['ended_at_s'])})", highlight=False)


def _parts(board: dict[str, Any]) -> Iterator[str]:
    if (temperature := board["temperature_celsius"]) is not None:
        yield f"{temperature['mean']:.1f} °C, at most {temperature['greatest']:.1f} °C"
    if (share := board["throttled_share"]) is not None:
        yield f"throttled {share:.0%} of the time" if share else "not throttled"
    if (power := board["power_watts"]) is not None:
        yield f"{power['mean']:.2f} W, at most {power['greatest']:.2f} W"
    if (memory := board["free_memory_bytes"]) is not None:
        yield f"{memory['least'] / 1e6:,.0f} MB of memory free at least"
    if (pressure := board["cpu_pressure"]) is not None:
        yield f"work waited for a processor {pressure['mean']:.0%} of the time"
    if (pressure := board["memory_pressure"]) is not None and pressure["mean"] > 0:
        yield f"for memory {pressure['mean']:.1%}"
