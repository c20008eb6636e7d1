"""The hub's settings: ``hub.toml`` in the hub's folder, written by ``muster hub init``.

Every setting is documented in ``docs/reference/hub-settings.md``; a test fails when one is not.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated

import msgspec

from fleet.flood import FloodLimits
from fleet.protocol.errors import InvalidConfiguration
from fleet.protocol.names import Name
from hub.broker.kinds import Choice
from hub.durable import write_durably
from hub.retention import Limits
from hub.store.telemetry_rows import DAY_S

SETTINGS_FILE = "hub.toml"
Host = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Days = Annotated[float, msgspec.Meta(ge=0.01, le=36500)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=10 * 365 * 86400)]


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the hub runs.

    Attributes:
        http_host: Address on which the API listens.
        http_port: Its TCP port; 0 for any free one.
        broker: Which MQTT broker the hub starts.
        mqtt_host: Address on which the broker listens.
        mqtt_port: Its TCP port; 0 for any free one.
        mqtt_public_host: Host name that devices use for the broker; empty for the one they reach the API by.
        assignment_lifetime_s: How long a signed assignment may be accepted.
        assignment_resend_s: How long the hub waits before it sends an unaccepted assignment again.
        rollout_tick_s: How often rollouts and drift are judged when nothing happens.
        offline_after_s: Silence after which a device counts as offline.
        group_by: Attributes of devices by whose values health and telemetry are counted.
        drift_block_predictions: Predictions of one device and version between two looks for drift.
        flood_messages_per_second: Records and requests of one device that are taken; more has to come again.
        flood_burst_messages: How many more are taken at once after a silence.
        flood_quarantine_after_s: A device that stays over the limit for this long is put in quarantine,
        flood_quarantine_s: which lasts this long.
        keep_windows_days: How long telemetry windows are kept as they came,
        keep_minutes_days: added up by minute,
        keep_hours_days: by hour,
        keep_days_days: and by day.
        keep_events_days: How long all other records are kept.
        dead_letters_kept: Messages that could not be taken in; a tenth of them can be one device's.
        sample_budget_bytes: How much all captured samples together may take.
        sample_retention_s: How long a captured sample is kept.
        maximum_upload_bytes: Largest dataset or bundle that the API takes.
        otlp_endpoint: Base URL of the collector to which traces are sent; empty for none.
        trace_share: Share of all traces that are sent.
    """

    http_host: Host = "127.0.0.1"
    http_port: Port = 8300
    broker: Choice = "auto"
    mqtt_host: Host = "127.0.0.1"
    mqtt_port: Port = 1883
    mqtt_public_host: str = ""
    assignment_lifetime_s: Seconds = 7 * 86400.0
    assignment_resend_s: Seconds = 30.0
    rollout_tick_s: Seconds = 1.0
    offline_after_s: Seconds = 120.0
    group_by: Annotated[tuple[Name, ...], msgspec.Meta(max_length=8)] = ("site", "hardware")
    drift_block_predictions: Annotated[int, msgspec.Meta(ge=30)] = 300
    flood_messages_per_second: Annotated[float, msgspec.Meta(gt=0, le=1e6)] = 200.0
    flood_burst_messages: Annotated[int, msgspec.Meta(ge=100, le=10_000_000)] = 4000
    flood_quarantine_after_s: Seconds = 60.0
    flood_quarantine_s: Seconds = 900.0
    keep_windows_days: Days = 3.0
    keep_minutes_days: Days = 2.0
    keep_hours_days: Days = 14.0
    keep_days_days: Days = 730.0
    keep_events_days: Days = 400.0
    dead_letters_kept: Annotated[int, msgspec.Meta(ge=10, le=10_000_000)] = 10_000
    sample_budget_bytes: Annotated[int, msgspec.Meta(ge=0, le=2**50)] = 256 * 1024**2
    sample_retention_s: Seconds = 90 * 86400.0
    maximum_upload_bytes: Annotated[int, msgspec.Meta(ge=1)] = 512 * 1024 * 1024
    otlp_endpoint: Annotated[str, msgspec.Meta(max_length=1024)] = ""
    trace_share: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0

    @property
    def retention(self) -> Limits:
        """How long what is kept."""
        days = (self.keep_windows_days, self.keep_minutes_days, self.keep_hours_days, self.keep_days_days)
        return Limits(*(DAY_S * kept for kept in (*days, self.keep_events_days)))

    @property
    def flood_limits(self) -> FloodLimits:
        """What one device may do."""
        return FloodLimits(
            rate=self.flood_messages_per_second,
            burst=float(self.flood_burst_messages),
            quarantine_after_s=self.flood_quarantine_after_s,
            quarantine_s=self.flood_quarantine_s,
        )


def read_settings(home: Path) -> Settings:
    """Read the settings of a hub's folder.

    Raises:
        InvalidConfiguration: The folder is not a hub's, or a setting is unknown or out of range.
    """
    path = home / SETTINGS_FILE
    try:
        text = path.read_bytes()
    except OSError as error:
        raise InvalidConfiguration(
            f"{home} is not a hub's folder: {path.name} cannot be read ({error.strerror}).",
            remedy="Make one with `muster hub init --home FOLDER`.",
        ) from error
    try:
        return msgspec.toml.decode(text, type=Settings)
    except (msgspec.DecodeError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidConfiguration(f"{path} cannot be used: {error}.") from error


def write_settings(home: Path, settings: Settings) -> None:
    """Write the settings file.

    Raises:
        StorageError: It cannot be written.
    """
    lines = [f"{name} = {_toml(value)}" for name, value in msgspec.structs.asdict(settings).items()]
    head = "# Settings of this hub; see docs/reference/hub-settings.md. Restart the hub after a change.\n"
    write_durably(home / SETTINGS_FILE, (head + "\n".join(lines) + "\n").encode())


def _toml(value: str | float | tuple[str, ...]) -> str:
    # JSON's strings, numbers and arrays of strings are TOML's as well.
    return msgspec.json.encode(value).decode()
