"""What the hub and a process that works for it say to each other.

The hub starts ``python -m`` with the worker's module, writes one job as JSON to its standard input and reads
its standard output, JSON line by line::

    {"step": "train", "done": 1, "of": 7}                          any number of times
    {"result": {…}}  or  {"error": {"code": "…", "detail": "…"}}   once, at the end

The process exits with 0 after a result and with 1 after an error. Anything else is a crash.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from fleet.protocol.errors import Cause

FilePath = Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]


class Progress(msgspec.Struct, frozen=True):
    """How far a job is.

    Attributes:
        step: What it does now.
        done: Steps that are done.
        of: Steps in all.
    """

    step: str
    done: int
    of: int


class ResultLine(msgspec.Struct, frozen=True):
    """The last line of a job that succeeded."""

    result: msgspec.Struct


class ErrorLine(msgspec.Struct, frozen=True):
    """The last line of a job that failed."""

    error: Cause


class AnyLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whichever line it is: exactly one of step, result (not decoded yet) and error is set."""

    step: str | None = None
    done: int = 0
    of: int = 0
    result: msgspec.Raw = msgspec.Raw()
    error: Cause | None = None
