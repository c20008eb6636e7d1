"""The shapes of the API's answers about health and about the drift alarms of the fleet."""

from __future__ import annotations

from hub.api.schemas import Schema


class ModelHealthOut(Schema):
    """One model across the fleet: ``as_desired`` devices run what they should.

    ``drifting`` names the first of ``drifting_devices``.
    """

    model: str
    devices: int
    as_desired: int
    by_version: dict[str, int]
    error_share: float | None
    drifting: list[str]
    drifting_devices: int


class UnwellOut(Schema):
    """A device that is not well, and all the reasons."""

    device_id: str
    health: str
    reasons: list[str]


class GroupOut(Schema):
    """The devices with one value, by health; null for devices without a value."""

    value: str | None
    devices: int
    by_health: dict[str, int]


class GroupsOut(Schema):
    """Devices by value: the largest groups, and all others together, ``values`` groups in all."""

    by: str
    items: list[GroupOut]
    others: GroupOut | None
    values: int


class HealthOut(Schema):
    """The fleet's health, or that of the devices of one model.

    ``unwell`` is a page: pass ``next`` as ``after`` to get the following one; null after the last. All
    numbers are of all devices. ``waiting`` devices have changed and were not judged again yet.
    """

    devices: int
    online: int
    by_health: dict[str, int]
    groups: GroupsOut | None
    models: list[ModelHealthOut]
    unwell: list[UnwellOut]
    next: str | None
    waiting: int
    refused_messages: int


class SharedTraitOut(Schema):
    """What affected devices share beyond chance, see the reference page on drift."""

    trait: dict[str, str]
    holders: int
    affected: int
    other_holders: int
    others: int
    p: float
    sentence: str


class AlarmOut(Schema):
    """The drift alarm of one model and feature: ``devices`` are the first of ``device_count``."""

    model: str
    feature: str
    versions: list[int]
    devices: list[str]
    device_count: int
    of_devices: int
    since_s: float | None
    until_s: float | None
    strongest: str
    evidence: str
    shared: list[SharedTraitOut]
    sentence: str
