"""Noised windows of a step of the telemetry pass: checked, and added up by version and day.

They are added to nothing else: totals, roll-ups, looks for drift, estimates of accuracy and metrics of
answers are of exact counts. Which device a window is of is forgotten once it is added up.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec

from fleet.privacy.sums import NoisedSum, summed
from fleet.privacy.windows import noised_contradiction
from fleet.protocol.errors import InvalidMessage
from fleet.protocol.noised import NoisedWindow
from fleet.protocol.window_table import Bundle
from fleet.protocol.windows import is_misdated
from hub.store.protocols import NoisedStore
from hub.store.rows import DeadLetter, RawRecord
from hub.store.telemetry_rows import DAY_S, NoisedKey
from hub.telemetry.letters import letter

log = logging.getLogger(__name__)


class SentNoised(NamedTuple):
    """A record and the noised window in it."""

    record: RawRecord
    window: NoisedWindow


def noised_sums(
    bundle: Bundle, sent: Sequence[SentNoised], letters: list[DeadLetter]
) -> dict[NoisedKey, NoisedSum]:
    """Return the windows of a version added up by day; those that cannot be true become dead letters."""
    alone, reasons = summed([each.window for each in sent], bundle.layout)
    sums: dict[NoisedKey, NoisedSum] = {}
    for (record, window), one, unreadable in zip(sent, alone, reasons, strict=True):
        why = unreadable or _objection(bundle, window)
        if one is None or why is not None:
            letters.append(letter(record, InvalidMessage(f"The noised window cannot be true: {why}.")))
            continue
        misdated = is_misdated(window.ended_at_s, record.received_at_s)
        at_s = record.received_at_s if misdated else window.ended_at_s
        key = (bundle.model, bundle.version, int(at_s // DAY_S) * DAY_S)
        before = sums.get(key)
        sums[key] = one if before is None else before.plus(one)
    return sums


def with_stored(sums: Mapping[NoisedKey, NoisedSum], store: NoisedStore) -> dict[NoisedKey, bytes]:
    """Return sums with what is stored of the same days, as they are to be stored."""
    stored = store.noised_of(sums)
    bodies: dict[NoisedKey, bytes] = {}
    for key, one in sums.items():
        try:
            whole = one.plus(stored[key]) if key in stored else one
        except InvalidMessage as error:
            log.warning("Noised windows of %s version %d are not added: %s", key[0], key[1], error)
        else:
            bodies[key] = msgspec.msgpack.encode(whole)
    return bodies


def _objection(bundle: Bundle, window: NoisedWindow) -> str | None:
    if window.manifest_sha256 != bundle.manifest_sha256:
        return f"it is of bundle {window.manifest_sha256[:12]}…, not of {bundle.manifest_sha256[:12]}…"
    return noised_contradiction(window)
