"""The standard error while libraries written in C++ are at work, which write to it as they please.

LiteRT, for one, tells everybody once that it made a delegate, in the middle of a progress bar, and offers no
way to turn that off. What they say is kept in a file and told when they are done, without what they say for
information only. Of a crash `faulthandler` tells at once.
"""

from __future__ import annotations

import faulthandler
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

_FOR_INFORMATION = re.compile(rb"INFO: ")
_STDERR = 2


@contextmanager
def set_aside() -> Iterator[TextIO | None]:
    """Give the standard error to the caller alone; None where the process has none."""
    if sys.stderr is None:
        yield None
        return
    with os.fdopen(os.dup(_STDERR), "w") as ours, tempfile.TemporaryFile() as told:
        unwatched = not faulthandler.is_enabled()
        if unwatched:
            faulthandler.enable(ours)
        sys.stderr.flush()
        os.dup2(told.fileno(), _STDERR)
        try:
            yield ours
        finally:
            sys.stderr.flush()
            os.dup2(ours.fileno(), _STDERR)
            if unwatched:
                faulthandler.disable()
            told.seek(0)
            lines = [line for line in told if not _FOR_INFORMATION.match(line)]
            sys.stderr.write(b"".join(lines).decode(errors="replace"))
