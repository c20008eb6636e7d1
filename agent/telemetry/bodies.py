"""Bodies of records as they stand in the outbox: read, told apart, and windows of a bundle added up."""

from __future__ import annotations

import msgspec

from fleet.privacy.windows import merge_noised
from fleet.protocol.errors import InvalidMessage
from fleet.protocol.messages import encode
from fleet.protocol.noised import NoisedWindow
from fleet.protocol.records import RecordBody, ShadowReport, TelemetryWindow, packed
from fleet.protocol.windows import merge_windows

NOISED = "noised."
"""How the bundle of a noised window begins: it is never added to an exact one."""


def bundle_of(body: RecordBody) -> str | None:
    """Return of which bundle a window is, for only those of one are added up; None if it is no window."""
    if isinstance(body, TelemetryWindow):
        return f"{body.manifest_sha256}.{body.variant}"
    return f"{NOISED}{body.manifest_sha256}.{body.variant}" if isinstance(body, NoisedWindow) else None


def merged(left: bytes, right: bytes) -> bytes:
    """Return the window that covers two of one bundle.

    Raises:
        InvalidMessage: One is damaged, or they cannot be added.
    """
    older, newer = read_body(left), read_body(right)
    if isinstance(older, TelemetryWindow) and isinstance(newer, TelemetryWindow):
        return encode(packed(merge_windows(older, newer)))
    if isinstance(older, NoisedWindow) and isinstance(newer, NoisedWindow):
        return encode(merge_noised(older, newer))
    raise InvalidMessage("A window in the outbox is something else.")


def has_exact_counts(bundle: str | None, body: bytes) -> bool:
    """Return whether a record tells how many inferences there were; of one that is damaged, that it may."""
    if bundle is not None:
        return not bundle.startswith(NOISED)
    try:
        return isinstance(read_body(body), ShadowReport)
    except InvalidMessage:
        return True


def read_body(body: bytes) -> RecordBody:
    """Return a body.

    Raises:
        InvalidMessage: It is damaged.
    """
    try:
        decoded: RecordBody = msgspec.msgpack.decode(body, type=RecordBody)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidMessage("A record in the outbox cannot be understood.") from error
    return decoded
