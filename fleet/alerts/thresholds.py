"""Where alerts begin: the numbers in the table ``[rules]`` of ``alerts.toml``."""

from __future__ import annotations

from typing import Annotated

import msgspec

Seconds = Annotated[float, msgspec.Meta(ge=0.0, le=30 * 86400.0)]
Share = Annotated[float, msgspec.Meta(gt=0.0, le=1.0)]
Count = Annotated[int, msgspec.Meta(ge=1, le=10**9)]


class Thresholds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where alerts begin, and how long what they tell must hold or be gone.

    Attributes:
        look_interval_s: How often the hub looks.
        group_wait_s: How long drift and quarantine must hold, so that the first message names the devices
            that follow soon.
        clear_after_s: How long a finding must be gone before its alert ends.
        critical_share: Share of the devices from which an alert on devices is critical.
        offline_share: Share of all devices that must be offline,
        offline_hold_s: and for how long.
        unhealthy_share: Share of all devices that must be unhealthy,
        unhealthy_hold_s: and for how long.
        throttled_share: Share of all devices that heat or power must have slowed,
        throttled_hold_s: and for how long.
        rollout_for_s: How long a rollout that failed or was taken back is alerted, unless a newer one of its
            model is started.
        broker_hold_s: How long the hub must be without its broker.
        refused_messages: How many messages must be refused,
        refused_window_s: within this time.
        backlog_records: How many records must wait to be judged,
        backlog_hold_s: and for how long.
    """

    look_interval_s: Annotated[float, msgspec.Meta(ge=0.1, le=3600.0)] = 10.0
    group_wait_s: Seconds = 30.0
    clear_after_s: Seconds = 120.0
    critical_share: Share = 0.5
    offline_share: Share = 0.1
    offline_hold_s: Seconds = 120.0
    unhealthy_share: Share = 0.1
    unhealthy_hold_s: Seconds = 60.0
    throttled_share: Share = 0.1
    throttled_hold_s: Seconds = 600.0
    rollout_for_s: Seconds = 86400.0
    broker_hold_s: Seconds = 60.0
    refused_messages: Count = 20
    refused_window_s: Annotated[float, msgspec.Meta(ge=1.0, le=86400.0)] = 300.0
    backlog_records: Count = 100_000
    backlog_hold_s: Seconds = 60.0
