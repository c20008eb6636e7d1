"""Names, topics and chunks: one rule each, and nothing that could be mistaken."""

from __future__ import annotations

import hashlib

import pytest

from fleet.protocol import topics
from fleet.protocol.chunks import CHUNK_SIZE_BYTES, chunk_count, chunk_size_bytes, indices_of, ranges_of
from fleet.protocol.enrolment import (
    BrokerAccess,
    EnrolmentAnswer,
    EnrolmentToken,
    check_root,
    parse_token,
)
from fleet.protocol.errors import DigestMismatch, InvalidInput, InvalidMessage, InvalidName
from fleet.protocol.latency import (
    LAST_BUCKET,
    bucket,
    count_above,
    merge_latency,
    quantile_us,
    upper_bound_us,
)
from fleet.protocol.names import checked_name, is_sha256

DIGEST = "0123456789abcdef" * 4


@pytest.mark.parametrize("name", ["a", "0", "cam-1", "meter.north_07", "x" * 64])
def test_names_that_are_usable(name: str) -> None:
    assert checked_name(name, "device id") == name


@pytest.mark.parametrize(
    "name", ["", "x" * 65, "..", ".hidden", "-x", "a/b", "+", "#", "$sys", "A", "é", "a b", "a\n", "a\0", "٣"]
)
def test_names_that_are_not(name: str) -> None:
    with pytest.raises(InvalidName, match="device id"):
        checked_name(name, "device id")


@pytest.mark.parametrize("text", ["", DIGEST[1:], DIGEST + "0", DIGEST.upper(), DIGEST + "\n", "g" * 64])
def test_what_is_no_digest(text: str) -> None:
    assert is_sha256(DIGEST)
    assert not is_sha256(text)


@pytest.mark.parametrize("channel", topics.Up)
def test_topics_of_devices_are_read_back(channel: topics.Up) -> None:
    topic = topics.up("cam-1", channel)
    assert topics.parse_up(topic) == ("cam-1", channel)
    assert matches(topics.HUB_SUBSCRIPTION, topic)
    assert any(matches(allowed, topic) for allowed in topics.device_may_publish("cam-1"))
    assert not any(matches(allowed, topic) for allowed in topics.device_may_publish("cam-2"))
    assert not any(matches(allowed, topic) for allowed in topics.device_may_read("cam-1"))


@pytest.mark.parametrize("channel", topics.Down)
def test_a_device_may_read_what_is_for_it_and_nothing_for_another(channel: topics.Down) -> None:
    topic = topics.down("cam-1", channel)
    assert matches(topics.device_subscription("cam-1"), topic)
    assert any(matches(allowed, topic) for allowed in topics.device_may_read("cam-1"))
    assert not any(matches(allowed, topic) for allowed in topics.device_may_read("cam-10"))
    assert not any(matches(allowed, topic) for allowed in topics.device_may_publish("cam-1"))
    with pytest.raises(InvalidMessage):
        topics.parse_up(topic)


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "muster/v1/d/cam-1/up",
        "muster/v1/d/cam-1/up/hello/x",
        "muster/v2/d/cam-1/up/hello",
        "muster/v1/d/cam-1/up/gossip",
        "muster/v1/d/cam-1/down/ack",
        "/muster/v1/d/cam-1/up/hello",
    ],
)
def test_topics_that_no_device_publishes_to(topic: str) -> None:
    with pytest.raises(InvalidMessage):
        topics.parse_up(topic)


@pytest.mark.parametrize("device_id", ["+", "#", "", "..", "Cam"])
def test_topics_of_devices_that_cannot_be(device_id: str) -> None:
    with pytest.raises(InvalidName):
        topics.parse_up(f"muster/v1/d/{device_id}/up/hello")


def test_topics_of_chunks() -> None:
    topic = topics.chunk(DIGEST, 12)
    assert topics.parse_chunk(topic) == (DIGEST, 12)
    assert matches(topics.blob_subscription(DIGEST), topic)
    assert any(matches(allowed, topic) for allowed in topics.device_may_read("cam-1"))
    assert topics.parse_chunk(topics.up("cam-1", topics.Up.HELLO)) is None


@pytest.mark.parametrize(
    "rest", ["", "x/1", f"{DIGEST}/", f"{DIGEST}/-1", f"{DIGEST}/1/2", f"{DIGEST}/٣", f"{DIGEST}/1234567890"]
)
def test_topics_of_chunks_that_cannot_be(rest: str) -> None:
    with pytest.raises(InvalidMessage):
        topics.parse_chunk(f"muster/v1/blobs/{rest}")


def matches(allowed: str, topic: str) -> bool:
    """Tell whether an MQTT filter covers a topic (MQTT 3.1.1, section 4.7)."""
    wanted, levels = allowed.split("/"), topic.split("/")
    if wanted[-1] == "#":
        wanted, levels = wanted[:-1], levels[: len(wanted) - 1]
    return len(wanted) == len(levels) and all(w in {"+", t} for w, t in zip(wanted, levels, strict=True))


@pytest.mark.parametrize(
    ("size", "sizes"),
    [
        (0, []),
        (1, [1]),
        (CHUNK_SIZE_BYTES, [CHUNK_SIZE_BYTES]),
        (CHUNK_SIZE_BYTES + 1, [CHUNK_SIZE_BYTES, 1]),
        (3 * CHUNK_SIZE_BYTES - 1, [CHUNK_SIZE_BYTES, CHUNK_SIZE_BYTES, CHUNK_SIZE_BYTES - 1]),
    ],
)
def test_chunks_of_a_blob(size: int, sizes: list[int]) -> None:
    assert [chunk_size_bytes(size, i) for i in range(chunk_count(size))] == sizes
    assert chunk_size_bytes(size, chunk_count(size)) == 0
    assert chunk_size_bytes(size, -1) == 0


def test_ranges_name_what_is_missing() -> None:
    assert ranges_of([]) == []
    assert ranges_of([0, 1, 2, 5, 7, 8]) == [(0, 3), (5, 1), (7, 2)]
    assert list(indices_of([(0, 3), (5, 1), (7, 2)], 9)) == [0, 1, 2, 5, 7, 8]
    assert list(indices_of([(7, 2**53), (-3, 4), (2**53, 1)], 9)) == [7, 8, 0]


def test_durations_fall_into_buckets_a_quarter_octave_wide() -> None:
    assert [bucket(d) for d in (0.0, 0.5, 1.0, 1.18, 1.19, 2.0, 1e30)] == [0, 0, 0, 0, 1, 4, LAST_BUCKET]
    for index in (0, 20, 50, 100):
        assert bucket(upper_bound_us(index) * 0.999) == index
        assert bucket(upper_bound_us(index) * 1.001) == index + 1


def test_quantiles_and_counts_are_read_from_buckets() -> None:
    counts = merge_latency({bucket(100.0): 90}, {bucket(100.0): 5, bucket(5000.0): 5})
    assert counts == {bucket(100.0): 95, bucket(5000.0): 5}
    median, last = quantile_us(counts, 0.5), quantile_us(counts, 1.0)
    assert median is not None
    assert last is not None
    assert 100.0 <= median <= 119.0
    assert 5000.0 <= last <= 5950.0
    assert quantile_us({}, 0.5) is None
    assert count_above(counts, bucket(1000.0)) == (5, sum(counts.values()))
    assert count_above(counts, bucket(5000.0))[0] == 0  # its bucket is not wholly above


TOKEN = EnrolmentToken("s" * 32, hashlib.sha256(b"root").hexdigest())


def test_a_token_is_read_back_and_binds_the_root() -> None:
    assert parse_token(f"  {TOKEN}\n") == TOKEN
    access = BrokerAccess("", 1883, "cam-1", "x")
    check_root(EnrolmentAnswer("cam-1", access, b"root"), TOKEN)
    with pytest.raises(DigestMismatch):
        check_root(EnrolmentAnswer("cam-1", access, b"other"), TOKEN)


@pytest.mark.parametrize("secret", ["s" * 31, "s" * 65, "s" * 31 + "/", "s" * 31 + "é"])
@pytest.mark.parametrize("end", ["", "." + "0" * 63, "." + "0" * 64 + ".0", "." + "G" * 64, "." + "0" * 64])
def test_a_malformed_token_is_refused_without_being_repeated(secret: str, end: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_token(secret + end)
    assert secret not in str(caught.value)
