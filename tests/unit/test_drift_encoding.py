"""Profiles as bytes, against shared vectors, and every way in which bytes can be wrong.

The vectors were written by an encoder of their own, so that an error of ours cannot agree with itself.
"""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from fleet.drift import encoding
from fleet.drift.encoding import MAX_BODY_SIZE_BYTES, decode_profile, encode_profile
from fleet.drift.profile import FeatureCounts, Profile, ReferenceProfile, count, numeric_reference
from fleet.protocol.errors import InvalidMessage
from fleet.protocol.messages import Record, decode, encode
from fleet.protocol.records import TelemetryWindow, packed
from fleet.protocol.windows import check_window

CASES: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent.parent / "vectors" / "drift-profiles.json").read_text(encoding="utf-8")
)["cases"]
STORED = b"\x01\x00"
PROFILE = {"x": FeatureCounts([0, 3, 2, 0], 1, 0.0, 2.0, offsets=[0, 100, 200, 0])}


def profile_of(case: dict[str, Any]) -> Profile:
    named = [(feature["name"], dict(feature)) for feature in case["features"]]
    return {name: msgspec.convert({**fields, "name": None}, FeatureCounts) for name, fields in named}


def feature(cells: bytes = b"\x03", flags: bytes = b"\x00", numbers: bytes = b"\0\1\2\3") -> bytes:
    """Return a profile of one feature of three cells, with what is to differ."""
    return STORED + b"\x01\x01x" + cells + flags + numbers


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_the_bytes_say_the_counts_and_the_counts_give_the_bytes(case: dict[str, Any]) -> None:
    data, profile = bytes.fromhex(case["bytes"]), profile_of(case)
    assert decode_profile(data) == profile
    assert decode_profile(encode_profile(profile)) == profile
    if data.startswith(STORED):
        assert STORED + encoding._body(profile) == data


def test_what_the_cases_of_this_file_start_from_is_a_profile() -> None:
    assert decode_profile(feature()) == {"x": FeatureCounts([1, 2, 3])}


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x01", id="a version alone"),
        pytest.param(b"\x02" + feature()[1:], id="another version"),
        pytest.param(b"\x01\x02" + feature()[2:], id="another compression"),
        pytest.param(feature()[:-1], id="cut short"),
        pytest.param(feature() + b"\0", id="something behind"),
        pytest.param(feature(cells=b"\x04"), id="too few numbers"),
        pytest.param(feature(cells=b"\xff\xff\x7f"), id="more cells than bytes"),
        pytest.param(feature(cells=b"\xff" * 7 + b"\x7f"), id="2^56 cells"),
        pytest.param(feature(cells=b"\x80" * 8 + b"\x01"), id="a number without end"),
        pytest.param(feature(flags=b"\x04"), id="something unknown"),
        pytest.param(feature(numbers=b"\x80\1\2\3" + b"\x80" * 7), id="a count without end"),
        pytest.param(feature(numbers=b"\xff\1\2\3" + b"\xff" * 6 + b"\x7f"), id="2^56 missing values"),
        pytest.param(feature(flags=b"\x01", numbers=b"\0\1\2\3\0\xff\0\x04"), id="a negative offset"),
        pytest.param(feature(flags=b"\x01", numbers=b"\0\0\2\3\x02\0\0"), id="offsets without values"),
        pytest.param(feature(flags=b"\x02", numbers=bytes(15)), id="half an extreme"),
        pytest.param(
            feature(flags=b"\x02", numbers=struct.pack("<dd", 1.0, 0.0) + b"\0\1\2\3"), id="extremes crossed"
        ),
        pytest.param(
            feature(flags=b"\x02", numbers=struct.pack("<dd", np.nan, 0.0) + b"\0\1\2\3"), id="no number"
        ),
        pytest.param(STORED + b"\x01\x01\xff\x01\x00\0\0", id="a name that is no text"),
        pytest.param(STORED + b"\x02" + b"\x01x\x01\x00" * 2 + b"\0\0\0\0", id="a feature twice"),
        pytest.param(STORED + b"\x81\x02" + b"\x01x\x01\x00" * 257 + bytes(514), id="too many features"),
        pytest.param(STORED + b"\x01\xff\xff\x03" + bytes(70_000), id="a name of any size"),
        pytest.param(b"\x01\x01" + feature()[2:], id="not compressed"),
        pytest.param(b"\x01\x01" + zlib.compress(feature()[2:])[:-1], id="half compressed"),
        pytest.param(b"\x01\x01" + zlib.compress(feature()[2:]) + b"\0", id="compressed and more"),
        pytest.param(b"\x01\x01" + zlib.compress(bytes(50_000_000), 9), id="a bomb"),
        pytest.param(STORED + bytes(MAX_BODY_SIZE_BYTES + 1), id="too large"),
    ],
)
def test_bytes_that_are_no_profile_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidMessage):
        decode_profile(data)


def window(profile: Profile) -> TelemetryWindow:
    return TelemetryWindow(1.0, 2.0, "digits", 1, "ab" * 32, "onnx-fp32", predictions=9, profile=profile)


def test_a_window_travels_with_its_profile_in_short() -> None:
    sent = window(PROFILE)
    data = encode(Record("0" * 16, 1, packed(sent)))
    assert sent.profile == PROFILE  # what is packed is a copy
    assert decode(data, Record).body == sent
    assert b"cells" not in data


def test_a_window_of_an_older_agent_is_read() -> None:
    assert decode(encode(window(PROFILE)), TelemetryWindow) == window(PROFILE)


def test_a_window_whose_profile_is_broken_is_a_refused_message() -> None:
    broken = packed(window(PROFILE))
    assert isinstance(broken, TelemetryWindow)
    broken.counts = b"\x09\x09"
    with pytest.raises(InvalidMessage):
        decode(encode(Record("0" * 16, 1, broken)), Record)


def test_a_window_in_the_layout_of_its_version_passes_and_impossible_counts_do_not() -> None:
    values = np.random.default_rng(1).normal(size=500)
    reference = ReferenceProfile((numeric_reference("x", values),))
    counts = count(reference.features[0], values)
    check_window(window({"x": counts}), "ab" * 32, reference)
    for wrong in (
        FeatureCounts([1, 2]),
        msgspec.structs.replace(counts, offsets=[2**40] * len(counts.cells)),
    ):
        with pytest.raises(InvalidMessage):
            check_window(window({"x": wrong}), "ab" * 32, reference)
