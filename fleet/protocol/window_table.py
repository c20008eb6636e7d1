"""Telemetry windows of one bundle as arrays, a row for each: read, checked and added thousands at a time.

What can be wrong with a window is the same as for one window alone, `fleet.protocol.windows.check_window` and
`contradiction`, and so is a sum, `merge_windows`; property tests hold them against each other. Only the bound
differs: a sum on the hub is of many devices, and may be as large as a count can be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import NamedTuple, Self, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from fleet.drift.batch import decode_profiles, layout_of
from fleet.drift.batch_encoding import encode_profiles
from fleet.drift.encoding import MAX_SENT_COUNT
from fleet.drift.matrix import CountsMatrix, Groups, Integers, Layout
from fleet.drift.profile import MAX_COUNT, check_counts
from fleet.protocol.errors import InvalidMessage
from fleet.protocol.labels import NO_LABELS, Labels
from fleet.protocol.latency import LAST_BUCKET
from fleet.protocol.records import SealedWindow, TelemetryWindow
from fleet.protocol.windows import check_head, contradiction

_SCALARS = 4
_PREDICTIONS, _ERRORS, _LABELLED, _CORRECT = range(_SCALARS)

Refused = dict[int, InvalidMessage]
_Window = TypeVar("_Window", bound=SealedWindow)


class Bundle(NamedTuple):
    """What windows are of.

    Attributes:
        model: Name of the model.
        version: Its version.
        manifest_sha256: Digest of the bundle.
        layout: Of the counts.
    """

    model: str
    version: int
    manifest_sha256: str
    layout: Layout


class WindowTable(NamedTuple):
    """N windows.

    Attributes:
        bundle: Of which all of them are.
        started_at_s: Shape (N,).
        ended_at_s: Shape (N,).
        scalars: Predictions, errors, labelled and correct, shape (N, 4).
        latency: Durations in each bucket, shape (N, 128).
        labels: What else is to say of labels, of the rows of which there is anything.
        variants: Name of the variant of each.
        counts: The profiles.
    """

    bundle: Bundle
    started_at_s: NDArray[np.float64]
    ended_at_s: NDArray[np.float64]
    scalars: Integers
    latency: Integers
    labels: Mapping[int, Labels]
    variants: Sequence[str]
    counts: CountsMatrix

    @property
    def predictions(self) -> Integers:
        """Answers given, shape (N,)."""
        return self.scalars[:, _PREDICTIONS]

    @property
    def number(self) -> int:
        """How many windows there are."""
        return len(self.scalars)

    @classmethod
    def stacked(cls, parts: Sequence[WindowTable]) -> Self:
        """Return the windows of all parts, which are of one bundle, one after the other."""
        labels, before = dict[int, Labels](), 0
        for part in parts:
            labels.update((before + row, each) for row, each in part.labels.items())
            before += part.number
        return cls(
            parts[0].bundle,
            np.concatenate([part.started_at_s for part in parts]),
            np.concatenate([part.ended_at_s for part in parts]),
            np.concatenate([part.scalars for part in parts]),
            np.concatenate([part.latency for part in parts]),
            labels,
            [variant for part in parts for variant in part.variants],
            CountsMatrix.stacked([part.counts for part in parts]),
        )

    def rows(self, chosen: NDArray[np.intp]) -> WindowTable:
        """Return some of the windows, in that order."""
        return WindowTable(
            self.bundle,
            self.started_at_s[chosen],
            self.ended_at_s[chosen],
            self.scalars[chosen],
            self.latency[chosen],
            {to: self.labels[row] for to, row in enumerate(chosen.tolist()) if row in self.labels},
            [self.variants[row] for row in chosen.tolist()],
            self.counts.rows(chosen),
        )

    def summed(self, groups: Groups) -> WindowTable:
        """Return the sum of each group; its variant is that of the last window of the group."""
        labels = {
            group: reduce(Labels.merged, (self.labels[row] for row in rows))
            for group, rows in groups.members(self.labels).items()
        }
        return WindowTable(
            self.bundle,
            groups.smallest(self.started_at_s),
            groups.largest(self.ended_at_s),
            groups.sum(self.scalars),
            groups.sum(self.latency),
            labels,
            [self.variants[row] for row in groups.last().tolist()],
            self.counts.summed(groups),
        )

    def without_counts(self) -> WindowTable:
        """Return the same windows without their profiles."""
        nothing = self.bundle._replace(layout=Layout(()))
        return self._replace(bundle=nothing, counts=CountsMatrix.empty(nothing.layout, self.number))

    def too_large(self) -> NDArray[np.bool_]:
        """Return which sums are more than can be stored and read again, shape (N,)."""
        requests = self.scalars[:, _PREDICTIONS] + self.scalars[:, _ERRORS]
        largest = np.maximum(requests, self.scalars[:, _LABELLED])
        for row, labels in self.labels.items():
            largest[row] = max(largest[row], labels.unknown)
        too_large: NDArray[np.bool_] = largest > MAX_COUNT
        return too_large

    def sealed(self) -> list[SealedWindow]:
        """Return the windows with sealed counts, which are not compressed."""
        has_counts = (self.counts.present.sum(axis=1) > 0).tolist()
        counts = encode_profiles(self.counts)
        return [
            self._window(SealedWindow, row, latency, counts[row] if has_counts[row] else None)
            for row, latency in enumerate(self._latencies())
        ]

    def opened(self) -> list[TelemetryWindow]:
        """Return the windows with their profiles."""
        windows = []
        for row, latency in enumerate(self._latencies()):
            window = self._window(TelemetryWindow, row, latency, None)
            window.profile = self.counts.profile(row)
            windows.append(window)
        return windows

    def _latencies(self) -> list[dict[int, int]]:
        latencies: list[dict[int, int]] = [{} for _ in range(self.number)]
        rows, buckets = np.nonzero(self.latency)
        numbers = self.latency[rows, buckets]
        for row, bucket, number in zip(rows.tolist(), buckets.tolist(), numbers.tolist(), strict=True):
            latencies[row][bucket] = number
        return latencies

    def _window(
        self, kind: type[_Window], row: int, latency: dict[int, int], counts: bytes | None
    ) -> _Window:
        predictions, errors, labelled, correct = self.scalars[row].tolist()
        return kind(
            started_at_s=float(self.started_at_s[row]),
            ended_at_s=float(self.ended_at_s[row]),
            model=self.bundle.model,
            version=self.bundle.version,
            manifest_sha256=self.bundle.manifest_sha256,
            variant=self.variants[row],
            predictions=predictions,
            errors=errors,
            labelled=labelled,
            correct=correct,
            latency=latency,
            counts=msgspec.UNSET if counts is None else counts,
            labels=self.labels.get(row, msgspec.UNSET),
        )


def check_windows(windows: Sequence[SealedWindow], bundle: Bundle) -> tuple[WindowTable, Refused]:
    """Read what devices sent of a bundle.

    Returns:
        A row for each window, and why which of them must not be counted.
    """
    table, refused = read_windows(windows, bundle, MAX_SENT_COUNT)
    cells = dict(bundle.layout.features)
    for row, window in enumerate(windows):
        try:
            if row not in refused:
                check_head(window, bundle.manifest_sha256, cells)
                _refuse_contradiction(contradiction(window))
        except InvalidMessage as error:
            refused[row] = error
    counted = table.counts.counted()
    for row, place in np.argwhere(counted > table.predictions[:, None]).tolist():
        name = bundle.layout.features[place][0]
        why = f"{counted[row, place]} values of {name!r:.80} for {windows[row].predictions} answers"
        refused.setdefault(row, _contradicting(why))
    return table, refused


def read_windows(
    windows: Sequence[SealedWindow], bundle: Bundle, most: int = MAX_COUNT
) -> tuple[WindowTable, Refused]:
    """Read windows, without asking whether they can be true.

    Args:
        windows: Any number.
        bundle: Of which they are.
        most: Largest count of a value.

    Returns:
        A row for each window, and why which of them cannot be read.
    """
    counts, refused = _counts(windows, bundle.layout, most)
    number = len(windows)
    scalars = [(each.predictions, each.errors, each.labelled, each.correct) for each in windows]
    latency = np.zeros((number, LAST_BUCKET + 1), dtype=np.int64)
    rows = np.repeat(np.arange(number), [len(window.latency) for window in windows])
    buckets = [bucket for window in windows for bucket in window.latency]
    latency[rows, buckets] = [durations for window in windows for durations in window.latency.values()]
    labels = {row: window.labels for row, window in enumerate(windows) if window.labels is not msgspec.UNSET}
    table = WindowTable(
        bundle,
        np.array([window.started_at_s for window in windows], dtype=np.float64),
        np.array([window.ended_at_s for window in windows], dtype=np.float64),
        np.array(scalars, dtype=np.int64).reshape(number, _SCALARS),
        latency,
        {row: each for row, each in labels.items() if each != NO_LABELS},
        [window.variant for window in windows],
        counts,
    )
    return table, refused


def open_windows(windows: Sequence[SealedWindow]) -> list[TelemetryWindow]:
    """Return sums, as they were stored, with their profiles.

    Args:
        windows: Of any models and versions.

    Raises:
        InvalidMessage: One of them is damaged.
    """
    opened: dict[int, TelemetryWindow] = {}
    of_bundle: dict[tuple[str, int, str], list[int]] = {}
    for row, window in enumerate(windows):
        of_bundle.setdefault((window.model, window.version, window.manifest_sha256), []).append(row)
    for bundle, rows in of_bundle.items():
        group = [windows[row] for row in rows]
        layout = layout_of(window.counts for window in group if window.counts is not msgspec.UNSET)
        table, damaged = read_windows(group, Bundle(*bundle, layout))
        for error in damaged.values():
            raise error
        opened.update(zip(rows, table.opened(), strict=True))
    return [opened[row] for row in range(len(windows))]


def _counts(windows: Sequence[SealedWindow], layout: Layout, most: int) -> tuple[CountsMatrix, Refused]:
    """Return the profiles of windows, sealed ones and, of older agents, open ones."""
    sealed = [row for row, window in enumerate(windows) if window.counts is not msgspec.UNSET]
    encoded = [window.counts for window in windows if window.counts is not msgspec.UNSET]
    decoded = decode_profiles(encoded, layout, most)
    if len(sealed) == len(windows):
        return decoded.matrix, decoded.refused
    matrix = CountsMatrix.empty(layout, len(windows))
    matrix.copy_rows(sealed, decoded.matrix)
    refused = {sealed[row]: error for row, error in decoded.refused.items()}
    for row, window in enumerate(windows):
        if window.counts is msgspec.UNSET:
            try:
                layout.check({name: len(counts.cells) for name, counts in window.profile.items()})
                for counts in window.profile.values():
                    check_counts(counts)
                matrix.put(row, window.profile)
            except InvalidMessage as error:
                refused[row] = error
    return matrix, refused


def _refuse_contradiction(why: str | None) -> None:
    if why is not None:
        raise _contradicting(why)


def _contradicting(why: str) -> InvalidMessage:
    return InvalidMessage(f"The window contradicts itself: {why}.")
