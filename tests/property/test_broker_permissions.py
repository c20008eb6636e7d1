"""Permissions: a filter that is let through never matches a topic that is not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.protocol.topics import HUB_ACCOUNT, device_may_read
from hub.broker.permissions import covers, may_publish, may_read

LEVELS = ["muster", "v1", "d", "blobs", "cam-1", "cam-2", "up", "down", "ack", ""]
topics = st.lists(st.sampled_from(LEVELS), min_size=1, max_size=7).map("/".join)
filters = st.tuples(
    st.lists(st.sampled_from([*LEVELS, "+", "+"]), min_size=0, max_size=7), st.sampled_from([(), ("#",)])
).map(lambda parts: "/".join([*parts[0], *parts[1]]) or "#")
own_filters = st.one_of(
    filters,
    filters.map(lambda rest: f"muster/v1/d/cam-1/down/{rest}"),
    filters.map("muster/v1/blobs/".__add__),
)


def _matches(topic_filter: str, topic: str) -> bool:
    """MQTT 3.1.1, section 4.7, written as a recursion: independent of the code under test."""

    def match(wanted: list[str], levels: list[str]) -> bool:
        if wanted == ["#"]:
            return True
        if not wanted or not levels:
            return wanted == levels
        return wanted[0] in ("+", levels[0]) and match(wanted[1:], levels[1:])

    wanted, levels = topic_filter.split("/"), topic.split("/")
    return match(wanted, levels) or (wanted[-1] == "#" and match(wanted[:-1], levels))


@given(own_filters, topics)
def test_a_permitted_filter_matches_only_permitted_topics(topic_filter: str, topic: str) -> None:
    if may_read("cam-1", topic_filter) and _matches(topic_filter, topic):
        assert any(_matches(allowed, topic) for allowed in device_may_read("cam-1"))


@given(topics)
def test_a_topic_is_readable_exactly_if_an_allowed_filter_matches_it(topic: str) -> None:
    assert may_read("cam-1", topic) == any(_matches(allowed, topic) for allowed in device_may_read("cam-1"))


@pytest.mark.parametrize(
    ("allowed", "wanted", "expected"),
    [
        ("a/b/#", "a/b/#", True),
        ("a/b/#", "a/b", True),
        ("a/b/#", "a/b/+/c", True),
        ("a/b/#", "a/#", False),
        ("a/b/#", "a/+/c", False),
        ("a/b/#", "#", False),
        ("a/+/c", "a/+/c", True),
        ("a/+/c", "a/b/c", True),
        ("a/+/c", "a/#", False),
        ("a/+/c", "a/b/c/d", False),
        ("a/+/c", "a/b", False),
    ],
)
def test_one_filter_covers_another(allowed: str, wanted: str, expected: bool) -> None:
    assert covers(allowed, wanted) is expected


def test_the_hub_may_use_everything_and_nobody_a_wildcard_to_publish() -> None:
    assert may_read(HUB_ACCOUNT, "#")
    assert may_publish(HUB_ACCOUNT, "muster/v1/blobs/x/0")
    for username in (HUB_ACCOUNT, "cam-1"):
        assert not may_publish(username, "muster/v1/d/cam-1/up/+")
        assert not may_publish(username, "muster/v1/d/cam-1/up/#")
    assert may_publish("cam-1", "muster/v1/d/cam-1/up/record")
