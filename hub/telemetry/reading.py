"""From stored records to windows that count: decoded by bundle, checked, and placed in time.

Ingest stores a window without looking at what it counts. Here it is looked at, once. A window that cannot be
read, is of no known version, or contradicts itself counts nowhere; it becomes a dead letter with its cause.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fleet.drift.matrix import Layout
from fleet.drift.profile import ReferenceProfile
from fleet.privacy.sums import NoisedSum
from fleet.protocol.errors import InvalidMessage, NotFound
from fleet.protocol.heads import read_sealed
from fleet.protocol.noised import NoisedWindow
from fleet.protocol.records import SealedWindow
from fleet.protocol.window_table import Bundle, WindowTable, check_windows
from fleet.protocol.windows import is_misdated
from hub.store.rows import DeadLetter, RawRecord
from hub.store.telemetry_rows import NoisedKey
from hub.telemetry.letters import letter
from hub.telemetry.noised import SentNoised, noised_sums

log = logging.getLogger(__name__)

MAX_NUMBERS = 2**20
"""Most counts of one step, of all windows together: some 100 MB of memory, whatever devices send."""

Reference = Callable[[str, int], tuple[str, ReferenceProfile]]
"""Returns the bundle digest and reference profile of a version; raises `NotFound`."""


class Counted(NamedTuple):
    """Windows of one bundle that count.

    Attributes:
        table: The windows; those of a clock that is not believed end when they were received.
        devices: Which device each is of.
    """

    table: WindowTable
    devices: Sequence[str]


class Reading(NamedTuple):
    """What records came to.

    Attributes:
        position: The last of them.
        received_at_s: When it was received.
        counted: By bundle.
        noised: Noised windows, by version and day.
        letters: What does not count.
        misdated: How many windows ended when no believable clock would say so.
    """

    position: int
    received_at_s: float
    counted: list[Counted]
    noised: dict[NoisedKey, NoisedSum]
    letters: list[DeadLetter]
    misdated: int


class _Sent(NamedTuple):
    record: RawRecord
    window: SealedWindow


class WindowReader:
    """Reads windows out of records.

    Args:
        reference: See `Reference`.
    """

    def __init__(self, reference: Reference) -> None:
        self._reference = reference
        self._bundles: dict[tuple[str, int], Bundle] = {}

    def read(self, records: Sequence[RawRecord]) -> Reading:
        """Read as many of the records as fit into a step, at least those of the first position.

        Raises:
            MusterError: A reference profile could not be read just now.
        """
        sent: dict[tuple[str, int], list[_Sent]] = {}
        noised: dict[tuple[str, int], list[SentNoised]] = {}
        letters: list[DeadLetter] = []
        numbers = 0
        last = records[0]
        for record in records:
            if record.position != last.position and numbers > MAX_NUMBERS:
                break
            last = record
            try:
                window = read_sealed(record.data)
                if isinstance(window, NoisedWindow):
                    numbers += self._bundle(window.model, window.version).layout.columns
                    noised.setdefault((window.model, window.version), []).append(SentNoised(record, window))
                elif isinstance(window, SealedWindow):
                    bundle = self._bundle(window.model, window.version)
                    numbers += bundle.layout.columns
                    sent.setdefault((window.model, window.version), []).append(_Sent(record, window))
            except (InvalidMessage, NotFound) as error:
                letters.append(letter(record, error))
        counted, misdated = [], 0
        for (model, version), group in sent.items():
            table, devices, wrong = _checked(self._bundle(model, version), group, letters)
            counted.append(Counted(table, devices))
            misdated += wrong
        sums: dict[NoisedKey, NoisedSum] = {}
        for (model, version), group_noised in noised.items():
            sums |= noised_sums(self._bundle(model, version), group_noised, letters)
        return Reading(last.position, last.received_at_s, counted, sums, letters, misdated)

    def _bundle(self, model: str, version: int) -> Bundle:
        known = self._bundles.get((model, version))
        if known is None:
            digest, reference = self._reference(model, version)
            known = Bundle(model, version, digest, Layout.of(reference))
            if len(self._bundles) >= _MAX_BUNDLES:
                self._bundles.clear()
            self._bundles[model, version] = known
        return known


_MAX_BUNDLES = 1024


def _checked(
    bundle: Bundle, group: Sequence[_Sent], letters: list[DeadLetter]
) -> tuple[WindowTable, list[str], int]:
    """Return the windows of a bundle that count, whose they are, and how many are misdated."""
    table, refused = check_windows([each.window for each in group], bundle)
    letters += [letter(group[row].record, refused[row]) for row in sorted(refused)]
    good = [row for row in range(len(group)) if row not in refused]
    table, misdated = _placed(table.rows(np.array(good, dtype=np.intp)), [group[row].record for row in good])
    return table, [group[row].record.device_id for row in good], misdated


def _placed(table: WindowTable, records: Iterable[RawRecord]) -> tuple[WindowTable, int]:
    """Put windows of clocks that are not believed where they were received; return how many those are."""
    received_s = np.array([record.received_at_s for record in records], dtype=np.float64)
    times = zip(table.ended_at_s.tolist(), received_s.tolist(), strict=True)
    wrong = np.array([is_misdated(ended_s, at_s) for ended_s, at_s in times], dtype=np.bool_)
    if not wrong.any():
        return table, 0
    ended_s: NDArray[np.float64] = np.where(wrong, received_s, table.ended_at_s)
    lasted_s = np.minimum(table.ended_at_s - table.started_at_s, received_s)
    started_s = np.where(wrong, ended_s - lasted_s, table.started_at_s)
    return table._replace(started_at_s=started_s, ended_at_s=ended_s), int(wrong.sum())
