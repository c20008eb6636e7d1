"""What an alert is.

A **finding** is what holds at this moment: "12 of 40 devices drift in input.mean". An **alert** is a finding
with a life: it began, somebody was told, it ended (`fleet.alerts.life`). A finding's ``key`` says which alert
it belongs to, so that 500 devices that drift in one feature are one alert that grows. One life of a key is an
episode, named by when it began.

Texts in findings come from devices as well. They are made printable, one line each, and bounded, so that no
device can write into a message's header, a terminal's control codes or a database without limit.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from enum import StrEnum
from typing import Any

import msgspec

from fleet import sentences

MOST_DEVICES = 50
"""So many devices are named; all are counted."""
MOST_EVIDENCE = 10
MAX_TEXT = 500
_MAX_KEY_PART = 64
_UNSAFE_IN_KEY = re.compile(r"[^a-z0-9._-]")


class Severity(StrEnum):
    """How soon somebody should look."""

    WARNING = "warning"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """Greater is worse."""
        return tuple(Severity).index(self)


class State(StrEnum):
    """Where an alert is in its life, see `fleet.alerts.life`."""

    PENDING = "PENDING"
    FIRING = "FIRING"
    RESOLVED = "RESOLVED"

    @property
    def is_open(self) -> bool:
        """Whether it has not ended."""
        return self is not State.RESOLVED


KINDS: dict[str, str] = {
    "drift": "devices see other data than the reference, in one feature of a model or in several",
    "revoked_version": "devices run a version that was revoked",
    "concept_drift": "labels say that a version is wrong more often than on its held-out samples",
    "rollout": "a rollout failed, was taken back, or waits for a decision",
    "throttled": "a large share of the devices is made slower by heat or a short power supply",
    "quarantine": "devices sent so much that the hub does not take their messages for a while",
    "offline": "a large share of the devices is offline",
    "unhealthy": "a large share of the devices is unhealthy, besides those that drift or are in quarantine",
    "broker": "the hub is not connected to its broker",
    "refused": "many messages of devices could not be taken in",
    "backlog": "the hub has not judged many of the records that it took in",
}
"""Every kind of alert; a rule that finds another kind adds its line here."""


class Matter(msgspec.Struct, frozen=True):
    """What an alert is about, as it was last found.

    Attributes:
        key: Which alert this is; of ``a-z 0-9 . _ - :``.
        kind: One of `KINDS`.
        severity: How bad.
        title: A few words.
        sentence: What holds.
        evidence: Why that is believed, a line each; never empty.
        command: The shell command that acts on it.
        inspect: The shell command that shows more.
        path: Of the hub's HTTP API, where more is told.
        model: The model it is about; None for none.
        version: Its version; None if several, or none.
        devices: The first `MOST_DEVICES` devices, by id.
        device_count: How many there are.
        affected: What the devices share, a line each; empty if nothing is known.
    """

    key: str
    kind: str
    severity: Severity
    title: str
    sentence: str
    evidence: tuple[str, ...]
    command: str
    inspect: str
    path: str
    model: str | None = None
    version: int | None = None
    devices: tuple[str, ...] = ()
    device_count: int = 0
    affected: tuple[str, ...] = ()


class Finding(msgspec.Struct, frozen=True):
    """What holds now.

    Attributes:
        matter: What an alert says of it.
        devices: The devices that it concerns, by id; fewer than are counted if not all are known by name.
        hold_s: How long it must hold before it is an alert.
    """

    matter: Matter
    devices: tuple[str, ...] = ()
    hold_s: float = 0.0


class Acknowledgement(msgspec.Struct, frozen=True):
    """That somebody takes care of it: nobody is reminded while they do."""

    at_s: float
    by: str
    note: str = ""


class Told(msgspec.Struct, frozen=True):
    """What a receiver was told last of an alert.

    Attributes:
        count: How many times it was told something.
        at_s: When last.
        severity: What it was told then,
        device_count: and of how many devices.
    """

    count: int
    at_s: float
    severity: Severity
    device_count: int


class Alert(msgspec.Struct, frozen=True):
    """A finding with a life.

    Attributes:
        matter: As last found.
        state: Where it is in its life.
        started_at_s: When it was first found, Unix seconds; with the key, it names the episode.
        fired_at_s: When it became FIRING; None before.
        absent_since_s: Since when it is no longer found; None while it is.
        ended_at_s: When it was RESOLVED; None before.
        acknowledged: By whom; None by nobody.
        silence: Number of the silence that mutes it; None for none.
        told: What each receiver was told last.
    """

    matter: Matter
    state: State
    started_at_s: float
    fired_at_s: float | None = None
    absent_since_s: float | None = None
    ended_at_s: float | None = None
    acknowledged: Acknowledgement | None = None
    silence: int | None = None
    told: dict[str, Told] = {}

    @property
    def episode(self) -> int:
        """When it was first found, in milliseconds."""
        return round(self.started_at_s * 1000)

    @property
    def identity(self) -> str:
        """Key and episode: two alerts never have the same."""
        return f"{self.matter.key}@{self.episode}"


def finding(
    *key: str,
    severity: Severity,
    title: str,
    sentence: str,
    evidence: Iterable[str],
    devices: Iterable[str] = (),
    affected: Iterable[str] = (),
    hold_s: float = 0.0,
    **matter: Any,
) -> Finding:
    """Return a finding with bounded, printable texts.

    Args:
        key: The kind, and what tells alerts of this kind apart.
        severity: How bad.
        title: A few words.
        sentence: What holds.
        evidence: At least one line.
        devices: All that it concerns.
        affected: What they share.
        hold_s: How long it must hold before it is an alert.
        matter: The other fields of `Matter`.
    """
    named = tuple(sorted(devices))
    return Finding(
        Matter(
            key=alert_key(*key),
            kind=key[0],
            severity=severity,
            title=one_line(title, 120),
            sentence=one_line(sentence),
            evidence=tuple(one_line(line) for line in evidence)[:MOST_EVIDENCE],
            devices=named[:MOST_DEVICES],
            device_count=len(named),
            affected=tuple(one_line(line) for line in affected)[:MOST_EVIDENCE],
            **matter,
        ),
        named,
        hold_s,
    )


def alert_key(*parts: str) -> str:
    """Return the key of an alert: its parts, by colons.

    A part that could need quoting in a URL or shell is made harmless, and stays different from others by a
    part of its SHA-256 digest.
    """
    return ":".join(_harmless(part) for part in parts)


def one_line(text: str, limit: int = MAX_TEXT) -> str:
    """Return text as one printable line of at most ``limit`` characters."""
    line = sentences.one_line(text[: 2 * limit])
    return line if len(line) <= limit else f"{line[: limit - 1]}…"


def _harmless(part: str) -> str:
    kept = _UNSAFE_IN_KEY.sub("-", part)
    if kept == part and len(part) <= _MAX_KEY_PART:
        return part
    digest = hashlib.sha256(part.encode(errors="surrogatepass")).hexdigest()[:12]
    return f"{kept[: _MAX_KEY_PART - 13]}-{digest}"
