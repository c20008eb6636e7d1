"""The kinds of fields that messages and records are made of, each with the limits that decoding checks."""

from __future__ import annotations

from typing import Annotated

import msgspec

Text = Annotated[str, msgspec.Meta(max_length=1024)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
"""Also a number or an offset: what every language's floats hold exactly."""
Microseconds = Annotated[float, msgspec.Meta(ge=0, le=1e12)]
"""A duration."""
UnixTime = Annotated[float, msgspec.Meta(ge=0, le=2**40)]
"""Seconds since 1970 by the sender's clock."""
Stream = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}\Z")]
"""Which outbox a record's number is of."""
