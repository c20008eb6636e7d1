"""Arbitrary bytes never do worse to a decoder than a typed error; what is encoded is decoded again."""

from __future__ import annotations

import contextlib
import itertools
from typing import Any

import cbor2
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet.protocol import topics
from fleet.protocol.assignment import (
    MAX_SHADOW_S,
    Assignment,
    ModelOrder,
    VariantPolicy,
    decode_assignment,
    encode_assignment,
)
from fleet.protocol.chunks import indices_of, ranges_of
from fleet.protocol.cose import open1, sign1
from fleet.protocol.director import decode_director_keys
from fleet.protocol.enrolment import parse_token
from fleet.protocol.errors import (
    InvalidAssignment,
    InvalidInput,
    InvalidManifest,
    InvalidMessage,
    InvalidPlan,
    MetadataRejected,
    SignatureInvalid,
    StorageCorrupt,
)
from fleet.protocol.latency import bucket, merge_latency, upper_bound_us
from fleet.protocol.maintenance import Mode, read_maintenance
from fleet.protocol.manifest import decode_manifest
from fleet.protocol.messages import (
    Ack,
    FetchRequest,
    FileAnswer,
    Hello,
    Presence,
    Record,
    StateReport,
    Want,
    decode,
    encode,
)
from fleet.protocol.names import checked_name
from fleet.protocol.records import TelemetryWindow
from fleet.protocol.wishes import LogLevel, Wishes
from fleet.rollout.plans.checks import check_plan
from fleet.rollout.state.stored import decode_summary
from hub.plan_file import read_plan
from tests.support.thoroughness import examples

pytestmark = pytest.mark.thorough

KINDS: list[type[msgspec.Struct]] = [
    Ack, FetchRequest, FileAnswer, Hello, Presence, Record, StateReport, Want,
]  # fmt: skip
NAMES = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,63}", fullmatch=True)
UNSIGNED = st.integers(0, 2**63 - 1)
SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary()
TREES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=6)
        | st.dictionaries(st.integers(0, 6) | st.text(max_size=8), inner, max_size=6)
    ),
    max_leaves=12,
)
MANY = settings(max_examples=examples(300), derandomize=True, deadline=None)


@given(st.binary(max_size=300), st.sampled_from(KINDS))
@MANY
def test_messages_of_any_bytes(data: bytes, kind: type[msgspec.Struct]) -> None:
    try:
        message = decode(data, kind)
    except InvalidMessage:
        return
    assert decode(encode(message), kind) == message


@given(TREES, st.sampled_from(KINDS))
@MANY
def test_messages_of_any_tree(tree: Any, kind: type[msgspec.Struct]) -> None:
    if isinstance(tree, dict):
        tree = {field: tree.get(i) for i, field in enumerate(kind.__struct_fields__)} | tree
    with contextlib.suppress(InvalidMessage):
        decode(msgspec.msgpack.encode(tree), kind)


@given(st.binary(max_size=300) | TREES.map(cbor2.dumps))
@MANY
def test_signed_messages_and_assignments_of_any_bytes(data: bytes) -> None:
    with pytest.raises(SignatureInvalid):
        open1(data, external_aad=b"")
    with pytest.raises(InvalidAssignment):
        decode_assignment(data)


@given(st.dictionaries(st.sampled_from([1, 2, 3, 4, 5, 6]), TREES, min_size=5, max_size=6))
@MANY
def test_assignments_of_the_right_keys_and_any_values(fields: dict[int, Any]) -> None:
    with pytest.raises(InvalidAssignment):
        decode_assignment(cbor2.dumps(fields | {3: -1}))


WINDOWS = st.builds(
    lambda days, start, length: read_maintenance([days, start, (start + length) % 1440]),
    st.integers(1, 127),
    st.integers(0, 1439),
    st.integers(1, 1439),
)


@st.composite
def orders(draw: st.DrawFn) -> ModelOrder:
    """An order, with alternatives and a policy or without both."""
    variant, *others = draw(st.lists(NAMES, min_size=1, max_size=9, unique=True))
    return ModelOrder(
        model=draw(NAMES),
        version=draw(UNSIGNED),
        manifest_sha256=draw(st.binary(min_size=32, max_size=32)),
        variant=variant,
        deployment_id=draw(NAMES),
        alternatives=tuple(others),
        policy=draw(st.sampled_from(list(VariantPolicy)[1:])) if others else VariantPolicy.FIRST,
        shadow_s=draw(st.integers(0, MAX_SHADOW_S)),
        **draw(st.builds(dict, maintenance=WINDOWS) | st.builds(dict, mode=st.sampled_from(Mode))),
    )


@given(
    st.builds(
        Assignment,
        device_id=NAMES,
        sequence=UNSIGNED,
        issued_at_s=UNSIGNED,
        expires_at_s=UNSIGNED,
        models=st.lists(orders(), max_size=4, unique_by=lambda order: order.model).map(tuple),
        wishes=st.builds(
            Wishes,
            log_level=st.none() | st.sampled_from(LogLevel),
            updates_held=st.booleans(),
            diagnostics=st.none() | NAMES,
        ),
    ),
    st.binary(min_size=64, max_size=64),
)
@settings(max_examples=examples(100), derandomize=True, deadline=None)
def test_what_is_signed_is_opened_again(assignment: Assignment, signature: bytes) -> None:
    message = sign1(
        encode_assignment(assignment), signer_key_id=bytes(16), external_aad=b"x", sign=lambda _: signature
    )
    envelope = open1(message, external_aad=b"x")
    assert envelope.signature == signature
    assert decode_assignment(envelope.payload) == assignment


@given(st.binary(max_size=300) | TREES.map(lambda tree: msgspec.json.encode(tree, enc_hook=str)))
@MANY
def test_json_of_any_bytes(data: bytes) -> None:
    with pytest.raises(InvalidManifest):
        decode_manifest(data)
    with pytest.raises(MetadataRejected):
        decode_director_keys(data)
    with pytest.raises(StorageCorrupt):
        decode_summary(data, ())
    with contextlib.suppress(InvalidPlan):
        check_plan(read_plan(data.decode("utf-8", "surrogateescape"))[0])


@given(st.text(max_size=100))
@MANY
def test_texts_of_any_kind(text: str) -> None:
    for parse in (parse_token, topics.parse_up, topics.parse_chunk, lambda t: checked_name(t, "name")):
        with contextlib.suppress(InvalidInput):
            parse(text)


@given(NAMES, st.sampled_from(topics.Up))
@settings(derandomize=True, deadline=None)
def test_topics_of_any_device_are_read_back(device_id: str, channel: topics.Up) -> None:
    assert topics.parse_up(topics.up(device_id, channel)) == (device_id, channel)


@given(st.sets(st.integers(0, 500)))
@settings(derandomize=True, deadline=None)
def test_ranges_name_exactly_the_missing_chunks(missing: set[int]) -> None:
    ranges = ranges_of(sorted(missing))
    assert list(indices_of(ranges, 501)) == sorted(missing)
    assert all(b[0] > a[0] + a[1] for a, b in itertools.pairwise(ranges))


@given(st.floats(1.0, 3e9), st.dictionaries(st.integers(0, 127), st.integers(1, 2**40)))
@settings(derandomize=True, deadline=None)
def test_latency_counts_lose_nothing(duration_us: float, counts: dict[int, int]) -> None:
    index = bucket(duration_us)
    assert upper_bound_us(index) >= duration_us * (1 - 1e-12)
    merged = merge_latency(counts, {index: 1})
    assert sum(merged.values()) == sum(counts.values()) + 1


@given(st.dictionaries(st.integers(-5, 200), st.integers(-5, 5), max_size=5))
@settings(derandomize=True, deadline=None)
def test_latency_counts_outside_the_grid_are_refused(counts: dict[int, int]) -> None:
    window = TelemetryWindow(0.0, 1.0, "m", 1, "a" * 64, "v", latency=counts)
    if all(0 <= index <= 127 and number >= 1 for index, number in counts.items()):
        assert decode(encode(window), TelemetryWindow).latency == counts
    else:
        with pytest.raises(InvalidMessage):
            decode(encode(window), TelemetryWindow)
