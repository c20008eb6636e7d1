"""The one rule for names that appear in topics, paths and URLs.

A name has 1 to 64 characters, lower-case ASCII letters, digits, ``.``, ``_`` and ``-``, and starts with
a letter or digit. So a name can never be a path step (``..``), an MQTT wildcard (``+``, ``#``) or a
broker's own topic (``$…``), and needs no quoting anywhere.
"""

from __future__ import annotations

import re
from typing import Annotated

import msgspec

from fleet.protocol.errors import InvalidName

NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,63}$"
"""For JSON Schema and engines in which ``$`` is the end of the text alone."""
EXACT_NAME_PATTERN = NAME_PATTERN.rstrip("$") + r"\Z"
"""For Python's `re`, and so for msgspec: there ``$`` alone would let a trailing newline through."""
_NAME = re.compile(EXACT_NAME_PATTERN)
Name = Annotated[str, msgspec.Meta(pattern=EXACT_NAME_PATTERN)]
"""A name in a message or file: decoding it checks the rule."""

SHA256_PATTERN = r"^[0-9a-f]{64}$"
EXACT_SHA256_PATTERN = SHA256_PATTERN.rstrip("$") + r"\Z"
_SHA256 = re.compile(EXACT_SHA256_PATTERN)
Sha256 = Annotated[str, msgspec.Meta(pattern=EXACT_SHA256_PATTERN)]
"""A SHA-256 digest in lower-case hexadecimal, in a message or file."""


def checked_name(value: str, kind: str) -> str:
    """Return the name unchanged if it obeys the rule.

    Args:
        value: The name.
        kind: What it names, for the message: "device id", "model name".

    Raises:
        InvalidName: It does not.
    """
    if not _NAME.match(value):
        raise InvalidName(
            f"{value!r:.80} is not a usable {kind}.",
            remedy="Use 1 to 64 of a-z, 0-9, '.', '_', '-', starting with a letter or digit.",
        )
    return value


def is_sha256(value: str) -> bool:
    """Tell whether the text is a SHA-256 digest in lower-case hexadecimal."""
    return _SHA256.match(value) is not None
