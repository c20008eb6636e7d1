"""What an operator wishes of one device beside the models that it runs: part of the assignment.

They travel with the desired state because they are some of it: signed by the director, the newest in place of
all before, repaired by the same announcements when a message is lost. In the assignment they are a CBOR map::

    { ? 1: log level (tstr), ? 2: updates are held (true), ? 3: diagnostics request id (tstr),
      ? 4: epsilon of noise on counts (uint, thousandths, 1 to 100,000) }

A wish that is not there is no wish; a map without wishes is not sent. So there is one form for each content.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from fleet.protocol.errors import InvalidAssignment
from fleet.protocol.names import checked_name

_KEYS = frozenset({1, 2, 3, 4})
THOUSAND = 1000
MOST_NOISE_EPSILON = 100 * THOUSAND


class LogLevel(StrEnum):
    """The least severe entries that a device logs."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Wishes(msgspec.Struct, frozen=True):
    """What is wished of a device.

    Attributes:
        log_level: In place of its own setting; None to leave it that.
        updates_held: No version may be swapped until this is taken back.
        diagnostics: Id of the last request for a diagnostic bundle; answered once. None before the first.
        count_noise: Epsilon, in thousandths, of the noise that its counts need at least, see `fleet.privacy`;
            None for as the device is set.
    """

    log_level: LogLevel | None = None
    updates_held: bool = False
    diagnostics: str | None = None
    count_noise: int | None = None


NO_WISHES = Wishes()


def wishes_fields(wishes: Wishes) -> dict[int, Any]:
    """Return the map to be encoded; empty if nothing is wished."""
    fields: dict[int, Any] = {}
    if wishes.log_level is not None:
        fields[1] = wishes.log_level.value
    if wishes.updates_held:
        fields[2] = True
    if wishes.diagnostics is not None:
        fields[3] = wishes.diagnostics
    if wishes.count_noise is not None:
        fields[4] = wishes.count_noise
    return fields


def read_wishes(fields: Any) -> Wishes:
    """Return the wishes in a decoded map.

    Args:
        fields: As it was decoded.

    Raises:
        InvalidAssignment: It is not of the form at the head of this file.
        InvalidName: The request id breaks the naming rule.
    """
    if not isinstance(fields, dict) or not fields or not fields.keys() <= _KEYS:
        raise InvalidAssignment("The assignment's wishes are not a map of known wishes.")
    return Wishes(
        log_level=_log_level(fields[1]) if 1 in fields else None,
        updates_held=_held(fields[2]) if 2 in fields else False,
        diagnostics=_request_id(fields[3]) if 3 in fields else None,
        count_noise=_count_noise(fields[4]) if 4 in fields else None,
    )


def _log_level(value: Any) -> LogLevel:
    try:
        return LogLevel(value)
    except ValueError as error:
        raise InvalidAssignment(f"The assignment wishes for the unknown log level {value!r:.40}.") from error


def _held(value: Any) -> bool:
    if value is not True:
        raise InvalidAssignment("The assignment's wish to hold updates is not true.")
    return True


def _request_id(value: Any) -> str:
    if not isinstance(value, str):
        raise InvalidAssignment("The assignment's diagnostics request id is not text.")
    return checked_name(value, "diagnostics request id")


def _count_noise(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MOST_NOISE_EPSILON:
        raise InvalidAssignment(f"The assignment's epsilon is not 1 to {MOST_NOISE_EPSILON} thousandths.")
    return value
