"""Parts of a benchmark: of each the tables that show what was measured, and its aims."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from benchmarks.aims import Aim

Part = tuple[list[str], list[Aim]]
"""Tables and aims."""


def show_parts(parts: Iterable[Part]) -> None:
    """Write the tables of all parts, and all aims below them; parts are measured as they are asked for."""
    texts: list[str] = []
    aims: list[Aim] = []
    for shown, reached in parts:
        sys.stderr.write("  measured\n")
        texts += shown
        aims += reached
    sys.stdout.write("\n\n".join([*texts, "\n".join(str(aim) for aim in aims)]) + "\n")
