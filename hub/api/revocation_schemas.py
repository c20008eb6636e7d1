"""Shapes of the API: revoking a version."""

from __future__ import annotations

from hub.api.reasons import NeededReason
from hub.api.schemas import Schema, VersionOut


class RevokeIn(Schema):
    """Why a version is revoked."""

    reason: NeededReason


class RevocationPreviewOut(Schema):
    """What a revocation would withdraw.

    `devices` are those that are to run it, 100 at most; `rollouts` are under way with it.
    """

    version: VersionOut
    device_count: int
    devices: list[str]
    rollouts: list[int]


class RevokedOut(Schema):
    """A version that was revoked, and what is left to do.

    `devices` are those that are to run it, 100 at most; `commands` bring them to another version, or end the
    rollouts that are held. So many `going_back` were on their way to it; `has_older` tells whether an older
    version is released at all.
    """

    version: VersionOut
    device_count: int
    devices: list[str]
    going_back: int
    has_older: bool
    rollouts_held: list[int]
    commands: list[str]
