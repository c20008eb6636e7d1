"""Many windows at once: read, refused and added exactly as one by one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import msgspec
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fleet.drift.encoding import encode_profile
from fleet.drift.matrix import Groups, Layout
from fleet.drift.profile import MAX_COUNT, FeatureCounts, FeatureReference, ReferenceProfile
from fleet.protocol.errors import InvalidMessage
from fleet.protocol.labels import Labels
from fleet.protocol.records import SealedWindow, TelemetryWindow, packed
from fleet.protocol.window_table import Bundle, WindowTable, check_windows, read_windows
from fleet.protocol.windows import check_window, contradiction, is_misdated, merge_windows

DIGEST = "ab" * 32
REFERENCE = ReferenceProfile(
    (
        FeatureReference("output.class", (5, 5, 5)),
        FeatureReference("output.confidence", (5,) * 6, edges=(0.0, 0.2, 0.4, 0.6, 0.8)),
    )
)
BUNDLE = Bundle("digits", 1, DIGEST, Layout.of(REFERENCE))
SMALL = st.integers(0, 4)


@st.composite
def windows(draw: st.DrawFn) -> TelemetryWindow:
    """Draw a window, of which something may be wrong."""
    labelled = draw(SMALL)
    cells = draw(st.lists(SMALL, min_size=3, max_size=3))
    profile = {
        "output.class": FeatureCounts(cells),
        "output.confidence": FeatureCounts([0, *cells, 0, 0], offsets=draw(st.sampled_from([[0] * 6, []]))),
    }
    chosen = draw(st.sets(st.sampled_from(sorted(profile))))
    labels = Labels(
        draw(st.dictionaries(st.integers(0, 7), st.tuples(SMALL, SMALL), max_size=2)), draw(SMALL)
    )
    return TelemetryWindow(
        started_at_s=draw(st.integers(10, 20)),
        ended_at_s=draw(st.integers(15, 30)),
        model="digits",
        version=1,
        manifest_sha256=draw(st.sampled_from([DIGEST] * 5 + ["cd" * 32])),
        variant=draw(st.sampled_from(["onnx-fp32", "onnx-int8"])),
        predictions=draw(st.integers(4, 12)),
        errors=draw(SMALL),
        labelled=labelled,
        correct=draw(st.integers(0, 1)),
        latency=draw(st.dictionaries(st.integers(0, 127), st.integers(1, 4), max_size=3)),
        profile={name: profile[name] for name in chosen},
        labels=labels if draw(st.booleans()) else msgspec.UNSET,
    )


@given(sent=st.lists(windows(), max_size=8), are_sealed=st.booleans())
def test_what_is_refused_is_what_one_by_one_is_refused(sent: list[TelemetryWindow], are_sealed: bool) -> None:
    _, refused = check_windows(_sealed(sent) if are_sealed else sent, BUNDLE)
    assert refused.keys() == {row for row, window in enumerate(sent) if not _is_good(window)}


@given(sent=st.lists(windows(), min_size=1, max_size=8), data=st.data())
def test_sums_are_those_of_merging_one_by_one(sent: list[TelemetryWindow], data: st.DataObject) -> None:
    for window in sent:
        window.manifest_sha256 = DIGEST
    drawn = data.draw(st.lists(st.integers(0, 2), min_size=len(sent), max_size=len(sent)))
    dense = {group: number for number, group in enumerate(sorted(set(drawn)))}
    table, _ = read_windows(_sealed(sent), BUNDLE)
    summed = table.summed(Groups([dense[group] for group in drawn]))
    merged = [
        reduce(merge_windows, [window for window, of in zip(sent, drawn, strict=True) if of == group])
        for group in dense
    ]
    assert [_plain(window) for window in summed.opened()] == [_plain(window) for window in merged]
    again, refused = read_windows(summed.sealed(), BUNDLE)
    assert not refused
    assert again.opened() == summed.opened()


@given(sent=st.lists(windows(), min_size=1, max_size=8), cut=st.integers(0, 8))
def test_sums_of_sums_are_sums(sent: list[TelemetryWindow], cut: int) -> None:
    table, _ = read_windows(sent, BUNDLE)
    parts = [
        table.rows(np.arange(*part)) for part in ((0, min(cut, len(sent))), (min(cut, len(sent)), len(sent)))
    ]
    halves = [part.summed(Groups([0] * part.number)) for part in parts if part.number]
    stacked = WindowTable.stacked(halves)
    whole = table.summed(Groups([0] * table.number))
    assert stacked.summed(Groups([0] * stacked.number)).opened() == whole.opened()


def test_a_sum_that_could_not_be_read_again_is_known() -> None:
    window = TelemetryWindow(1.0, 2.0, "digits", 1, DIGEST, "onnx-fp32", predictions=MAX_COUNT, errors=1)
    fine = msgspec.structs.replace(window, errors=0)
    assert read_windows([window, fine], BUNDLE)[0].too_large().tolist() == [True, False]


def test_older_agents_beside_newer_ones_and_one_whose_counts_are_damaged() -> None:
    window = TelemetryWindow(1.0, 2.0, "digits", 1, DIGEST, "onnx-fp32", predictions=6)
    window.profile = {"output.class": FeatureCounts([1, 2, 3])}
    (sealed,) = _sealed([window])
    damaged = msgspec.structs.replace(sealed, counts=encode_profile(window.profile)[:-1])
    table, refused = check_windows([window, damaged, sealed], BUNDLE)
    assert refused.keys() == {1}
    assert table.counts.profile(0) == table.counts.profile(2) == window.profile


@given(received_s=st.integers(1_600_000_000, 4_000_000_000), delay_s=st.integers(-1200, 800 * 86400))
def test_a_clock_is_believed_if_it_is_little_ahead_and_not_years_behind(
    received_s: int, delay_s: int
) -> None:
    is_believed = -600 <= delay_s <= 400 * 86400 and received_s - delay_s >= 1_577_836_800
    assert is_misdated(received_s - delay_s, received_s) != is_believed


def _sealed(sent: Sequence[TelemetryWindow]) -> list[SealedWindow]:
    decoder = msgspec.msgpack.Decoder(SealedWindow)
    return [decoder.decode(msgspec.msgpack.encode(packed(window))) for window in sent]


def _is_good(window: TelemetryWindow) -> bool:
    try:
        check_window(window, DIGEST, REFERENCE)
    except InvalidMessage:
        return False
    return contradiction(window) is None


def _plain(window: TelemetryWindow) -> dict[str, object]:
    plain = msgspec.structs.asdict(window)
    if window.labels is not msgspec.UNSET and not (window.labels.by_confidence or window.labels.unknown):
        plain["labels"] = msgspec.UNSET
    return plain
