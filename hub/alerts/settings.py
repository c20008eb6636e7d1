"""``alerts.toml`` in the hub's folder: where alerts begin, who is told, and which alerts.

Receivers are the hub's administrator's: the file is read when the hub starts, and no route of the API adds or
changes one. So nobody with a token can make the hub send requests to addresses of their choice. Secrets stand
in files or environment variables of their own; here stand only their names.

Every field is documented in ``docs/guide/alerts.md``; a test fails when one is not.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated

import msgspec

from fleet.alerts.alert import KINDS, Severity
from fleet.alerts.matching import Match
from fleet.alerts.telling import Terms
from fleet.alerts.thresholds import Thresholds
from fleet.protocol.errors import InvalidConfiguration
from fleet.protocol.names import Name
from hub.alerts.receivers import Alertmanager, Receiver

ALERTS_FILE = "alerts.toml"
MAX_FILE_BYTES = 1024 * 1024
_PLACE = re.compile(r"\$\.(?P<table>\w+)(?:\[(?P<number>\d+)\])?(?:\.(?P<key>\w+))?")
_UNKNOWN = re.compile(r"unknown field `([^`]*)`")

Interval = Annotated[float, msgspec.Meta(ge=1.0, le=365 * 86400.0)]


class Route(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which alerts some receivers are told of; what is empty asks for nothing.

    Attributes:
        receivers: Their names.
        kinds: Alerts of one of these kinds.
        severities: Alerts of one of these severities.
        models: Alerts about one of these models.
    """

    receivers: Annotated[tuple[Name, ...], msgspec.Meta(min_length=1)]
    kinds: tuple[str, ...] = ()
    severities: tuple[Severity, ...] = ()
    models: tuple[Name, ...] = ()

    @property
    def match(self) -> Match:
        """What an alert must have."""
        return Match(kinds=self.kinds, severities=self.severities, models=self.models)


class AlertSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All of it.

    Attributes:
        hub_url: How people reach the hub's API; put before the links in messages. Empty for none.
        repeat_interval_s: Time after which a receiver is told again of an alert that goes on.
        regroup_interval_s: Least time between two messages about an alert that grows.
        give_up_after_s: How long a message is tried.
        rules: Where alerts begin.
        receiver: Who can be told.
        route: Who is told of what; without any, every receiver of everything.
    """

    hub_url: Annotated[str, msgspec.Meta(pattern=r"\A(https?://[!-~]+)?\Z", max_length=500)] = ""
    repeat_interval_s: Interval = 4 * 3600.0
    regroup_interval_s: Interval = 300.0
    give_up_after_s: Interval = 86400.0
    rules: Thresholds = Thresholds()
    receiver: tuple[Receiver, ...] = ()
    route: tuple[Route, ...] = ()

    @property
    def routes(self) -> tuple[Route, ...]:
        """Who is told of what, spelled out."""
        everybody = tuple(receiver.name for receiver in self.receiver)
        return self.route or ((Route(everybody),) if everybody else ())

    def terms(self, receiver: Receiver) -> Terms:
        """Return how often a receiver is told."""
        if isinstance(receiver, Alertmanager):
            return Terms(receiver.resend_interval_s, receiver.resend_interval_s, refreshes=True)
        return Terms(self.regroup_interval_s, self.repeat_interval_s)


NO_ALERTS_FILE = AlertSettings()
"""What holds without a file: alerts are found and shown, and nobody is told."""


def read_alert_settings(home: Path) -> AlertSettings:
    """Read the file of a hub's folder; without one, alerts are found and nobody is told.

    Raises:
        InvalidConfiguration: It cannot be read or understood; says where and why.
    """
    path = home / ALERTS_FILE
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InvalidConfiguration(f"{path} is larger than {MAX_FILE_BYTES} bytes.")
        text = path.read_bytes().decode()
    except FileNotFoundError:
        return NO_ALERTS_FILE
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidConfiguration(f"{path} cannot be read: {error}.") from error
    try:
        settings = msgspec.convert(tomllib.loads(text), AlertSettings)
    except tomllib.TOMLDecodeError as error:  # says line and column
        raise InvalidConfiguration(f"{path} is not TOML: {error}.") from error
    except msgspec.ValidationError as error:
        raise InvalidConfiguration(f"{path}, line {_line_of(text, str(error))}: {error}.") from error
    _check(path, text, settings)
    return settings


def _check(path: Path, text: str, settings: AlertSettings) -> None:
    """Refuse what each part allows and the whole does not."""

    def refuse(table: str, number: int, key: str, why: str) -> None:
        raise InvalidConfiguration(f"{path}, line {_line(text, table, str(number), key)}: {why}")

    names = [receiver.name for receiver in settings.receiver]
    for number, name in enumerate(names):
        if name in names[:number]:
            refuse("receiver", number, "name", f"There are two receivers {name}.")
    for number, route in enumerate(settings.route):  # a misspelt name leaves a receiver unused
        for name in route.receivers:
            if name not in names:
                refuse("route", number, "receivers", f"There is no receiver {name}.")
    for number, receiver in enumerate(settings.receiver):
        for key, why in receiver.contradictions():
            refuse("receiver", number, key, why)
        if not any(receiver.name in route.receivers for route in settings.routes):
            refuse("receiver", number, "name", f"No route leads to the receiver {receiver.name}.")
    for number, route in enumerate(settings.route):
        for kind in route.kinds:
            if kind not in KINDS:
                refuse("route", number, "kinds", f"{kind!r:.80} is no kind of alert; use {', '.join(KINDS)}.")


def _line_of(text: str, error: str) -> int:
    """Return the line that an error of msgspec is about."""
    place, unknown = _PLACE.search(error), _UNKNOWN.search(error)
    table, number, key = place.group("table", "number", "key") if place else (None, None, None)
    return _line(text, table, number, unknown[1] if unknown else key)


def _line(text: str, table: str | None, number: str | None, key: str | None) -> int:
    """Return the line where a value stands, or else its table, or else the first."""
    lines = text.splitlines()
    header = re.compile(rf"\s*\[\[?\s*{re.escape(table or '')}\s*\]\]?")
    headers = [place for place, line in enumerate(lines) if header.match(line)]
    start = headers[int(number or 0)] if len(headers) > int(number or 0) else 0
    wanted = re.compile(rf"\s*{re.escape(key or table or '')}\s*=")
    for place in range(start, len(lines)):
        if wanted.match(lines[place]):
            return place + 1
        if place > start and lines[place].lstrip().startswith("["):
            break
    return start + 1
