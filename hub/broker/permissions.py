"""Who may use which topics: the rules of `fleet.protocol.topics`, applied to one topic or filter.

A subscription filter is allowed if every topic that it matches is allowed: a wildcard that reaches further is
refused, not narrowed.
"""

from __future__ import annotations

from fleet.protocol.topics import HUB_ACCOUNT, device_may_publish, device_may_read


def may_publish(username: str, topic: str) -> bool:
    """Tell whether the account may publish to a topic. Nobody publishes to a wildcard."""
    if "+" in topic or "#" in topic:
        return False
    return username == HUB_ACCOUNT or any(covers(allowed, topic) for allowed in device_may_publish(username))


def may_read(username: str, topic_or_filter: str) -> bool:
    """Tell whether the account may subscribe to a filter, or receive what comes on a topic."""
    return username == HUB_ACCOUNT or any(
        covers(allowed, topic_or_filter) for allowed in device_may_read(username)
    )


def covers(allowed: str, wanted: str) -> bool:
    """Tell whether a filter matches everything that another filter, or a topic, matches.

    Args:
        allowed: A filter of MQTT 3.1.1, section 4.7, that does not start with a wildcard.
        wanted: A filter or a topic.
    """
    limits, levels = allowed.split("/"), wanted.split("/")
    for i, limit in enumerate(limits):
        if limit == "#":  # matches its parent level as well
            return True
        if i >= len(levels) or levels[i] == "#":
            return False
        if limit not in ("+", levels[i]):
            return False
    return len(levels) == len(limits)
