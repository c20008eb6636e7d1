"""The reference page names every topic of the protocol, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fleet.protocol import messages, samples, topics
from fleet.protocol.topics import HUB_ACCOUNT, HUB_SUBSCRIPTION, Down, Up

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "topics.md"
DEVICE = "{device}"
EVERY_TOPIC = {
    *(topics.up(DEVICE, channel) for channel in Up),
    *(topics.down(DEVICE, channel) for channel in Down),
    topics.chunk("{sha256}", 0).removesuffix("0") + "{index}",
}


def _rows() -> dict[str, str]:
    return dict(re.findall(r"^\| `(muster/[^`]+)` \| (.+?) \|", PAGE.read_text(), re.MULTILINE))


def test_the_page_lists_exactly_the_topics_of_the_protocol() -> None:
    assert set(_rows()) == EVERY_TOPIC


@pytest.mark.parametrize("topic", sorted(EVERY_TOPIC))
def test_every_payload_that_is_named_exists(topic: str) -> None:
    match = re.match(r"`(\w+)`", _rows()[topic])
    if match is not None:
        assert hasattr(messages, match[1]) or hasattr(samples, match[1])
    else:
        assert topic == topics.down(DEVICE, Down.ASSIGNMENT) or topic.startswith("muster/v1/blobs/")


def test_the_page_states_the_permissions() -> None:
    page = PAGE.read_text()
    for allowed in (
        *topics.device_may_publish(DEVICE),
        *topics.device_may_read(DEVICE),
        HUB_ACCOUNT,
        HUB_SUBSCRIPTION,
    ):
        assert f"`{allowed}`" in page
