"""The brokers that the hub can run; ``docs/reference/brokers.md`` compares them."""

from __future__ import annotations

from typing import Literal, get_args

Kind = Literal["embedded", "mosquitto"]
KINDS: tuple[Kind, ...] = get_args(Kind)

Choice = Literal["auto", Kind]
"""What a person can ask for: ``auto`` is Mosquitto if a sound version is installed, else the embedded one."""
