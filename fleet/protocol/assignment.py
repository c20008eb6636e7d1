"""The assignment: the signed order to one device, its full desired state.

It is a COSE_Sign1 message (see `fleet.protocol.cose`) whose payload is this CBOR map, with small
integers as keys because microcontrollers read the same bytes::

    { 1: device id (tstr), 2: sequence (uint), 3: issued at (uint, s), 4: expires at (uint, s),
      5: [ { 1: model (tstr), 2: version (uint), 3: manifest SHA-256 (bstr 32),
             4: variant (tstr), 5: deployment id (tstr),
             ? 6: alternatives ([tstr], 1 to 8), ? 7: policy (tstr),
             ? 8: shadow (uint, s, at least 1), ? 9: capture, see `fleet.protocol.capture`,
             ? 10: maintenance window, see `fleet.protocol.maintenance`, ? 11: mode (tstr, "forced") }, … ],
      ? 6: wishes, see `fleet.protocol.wishes` }

Keys marked ``?`` are left out where they say nothing, so that a receiver which does not know them is sent
none. 6 and 7 come together: the device then chooses among ``variant`` and the alternatives by the policy. 8
asks that the version computes in the active version's shadow for so long before it may answer. 9 lets the
device put inputs of the model aside for people to label. 10 lets the version be swapped in at some times of
the week only, 11 at any time that the device's own windows and program would forbid; one of the two at most.
The list is complete: a model that is not in it is to be removed. Sequence numbers only rise, also when
an older version is assigned again. Times are Unix seconds, UTC.
"""

from __future__ import annotations

from collections.abc import Set
from enum import StrEnum
from typing import Any, TypeVar

import msgspec

from fleet.protocol import cbor
from fleet.protocol.capture import CapturePolicy, capture_fields, read_capture
from fleet.protocol.errors import (
    AssignmentExpired,
    AssignmentForOtherDevice,
    AssignmentReplayed,
    InvalidAssignment,
    InvalidName,
)
from fleet.protocol.maintenance import Maintenance, Mode, maintenance_fields, read_maintenance
from fleet.protocol.names import checked_name
from fleet.protocol.wishes import NO_WISHES, Wishes, read_wishes, wishes_fields

_T = TypeVar("_T")

EXTERNAL_AAD = b"muster-assignment-v1"
MAX_ASSIGNMENT_SIZE_BYTES = 16 * 1024
CLOCK_TOLERANCE_S = 300
"""How far a device's clock may be behind the hub's before a new assignment looks issued in the future."""

MAX_ALTERNATIVES = 8
MAX_SHADOW_S = 7 * 86400
_NEEDED = frozenset({1, 2, 3, 4, 5})
_OF_ASSIGNMENT = frozenset({6})
"""Keys that an assignment may have besides."""
_OF_ORDER = frozenset({6, 7, 8, 9, 10, 11})
"""Keys that an order may have besides."""


class VariantPolicy(StrEnum):
    """By what one of the variants that a device can run is chosen, see `fleet.variants`."""

    FIRST = "first"
    FASTEST = "fastest"
    SMALLEST = "smallest"
    COOLEST = "coolest"


class ModelOrder(msgspec.Struct, frozen=True):
    """One model that the device should run.

    Attributes:
        model: Name of the model.
        version: Version number, from 1.
        manifest_sha256: 32 bytes, the digest of the manifest's bytes.
        variant: Which of the manifest's variants to install; with a policy, the one expected to win.
        deployment_id: Echoed in every report about carrying out this order.
        alternatives: Other variants that may be installed in its place, the most promising first.
        policy: How the device chooses among them; FIRST without alternatives: it runs ``variant``.
        shadow_s: How long the version is compared with the active one before it may answer; 0 for not at all.
        capture: Which inputs the device may capture; None for none.
        maintenance: When the version may be swapped in; None for any time.
        mode: Whom the device asks before it is; FORCED has no maintenance window.
    """

    model: str
    version: int
    manifest_sha256: bytes
    variant: str
    deployment_id: str
    alternatives: tuple[str, ...] = ()
    policy: VariantPolicy = VariantPolicy.FIRST
    shadow_s: int = 0
    capture: CapturePolicy | None = None
    maintenance: Maintenance | None = None
    mode: Mode = Mode.SOFT


class Assignment(msgspec.Struct, frozen=True):
    """The full desired state of one device.

    Attributes:
        device_id: For whom it is.
        sequence: Rises with every assignment to this device.
        issued_at_s: Unix time, seconds.
        expires_at_s: Unix time, seconds; not accepted from then on.
        models: The orders, at most one for each model.
        wishes: What is wished of the device besides.
    """

    device_id: str
    sequence: int
    issued_at_s: int
    expires_at_s: int
    models: tuple[ModelOrder, ...]
    wishes: Wishes = NO_WISHES


def encode_assignment(assignment: Assignment) -> bytes:
    """Return the CBOR payload, deterministically encoded."""
    fields: dict[int, Any] = {
        1: assignment.device_id,
        2: assignment.sequence,
        3: assignment.issued_at_s,
        4: assignment.expires_at_s,
        5: [_order_fields(order) for order in assignment.models],
    }
    if assignment.wishes != NO_WISHES:
        fields[6] = wishes_fields(assignment.wishes)
    return cbor.dumps(fields)


def _order_fields(order: ModelOrder) -> dict[int, Any]:
    fields: dict[int, Any] = {
        1: order.model,
        2: order.version,
        3: order.manifest_sha256,
        4: order.variant,
        5: order.deployment_id,
    }
    if order.policy is not VariantPolicy.FIRST:
        fields |= {6: list(order.alternatives), 7: order.policy.value}
    if order.shadow_s > 0:
        fields[8] = order.shadow_s
    if order.capture is not None:
        fields[9] = capture_fields(order.capture)
    if order.maintenance is not None:
        fields[10] = maintenance_fields(order.maintenance)
    if order.mode is not Mode.SOFT:
        fields[11] = order.mode.value
    return fields


def decode_assignment(payload: bytes) -> Assignment:
    """Return the assignment in a payload **whose signature was verified**.

    Raises:
        InvalidAssignment: The payload is not of the form at the head of this file.
    """
    try:
        fields = _record(cbor.loads(payload), _OF_ASSIGNMENT)
        orders = fields[5]
        if not isinstance(orders, list):
            raise InvalidAssignment("The assignment's models are not a list.")
        assignment = Assignment(
            device_id=checked_name(_typed(fields[1], str), "device id"),
            sequence=_unsigned(fields[2]),
            issued_at_s=_unsigned(fields[3]),
            expires_at_s=_unsigned(fields[4]),
            models=tuple(_order(_record(order, _OF_ORDER)) for order in orders),
            wishes=read_wishes(fields[6]) if 6 in fields else NO_WISHES,
        )
    except ValueError as error:
        raise InvalidAssignment(f"The assignment's payload cannot be read: {error}.") from error
    except InvalidName as error:
        raise InvalidAssignment(f"The assignment has an unusable name: {error}") from error
    if len({order.model for order in assignment.models}) != len(assignment.models):
        raise InvalidAssignment("The assignment orders one model twice.")
    return assignment


def check_acceptable(assignment: Assignment, *, device_id: str, last_sequence: int, now_s: float) -> None:
    """Check that this device may act on an assignment whose signature was verified.

    Args:
        assignment: The decoded assignment.
        device_id: The device that checks.
        last_sequence: The highest sequence number it accepted so far; 0 for none.
        now_s: Unix time, seconds.

    Raises:
        AssignmentForOtherDevice: It is for another device.
        AssignmentReplayed: Its sequence number is not above the last one.
        AssignmentExpired: It has expired, or was issued in the future.
    """
    if assignment.device_id != device_id:
        raise AssignmentForOtherDevice(
            f"The assignment is for {assignment.device_id!r}, this device is {device_id!r}."
        )
    if assignment.sequence <= last_sequence:
        raise AssignmentReplayed(
            f"The assignment has sequence number {assignment.sequence}; {last_sequence} was accepted before."
        )
    if now_s >= assignment.expires_at_s:
        raise AssignmentExpired(
            f"The assignment expired {now_s - assignment.expires_at_s:.0f} s ago.",
            remedy="Check the device's clock; the hub sends a fresh assignment with its next announcement.",
        )
    if assignment.issued_at_s > now_s + CLOCK_TOLERANCE_S:
        raise AssignmentExpired(
            f"The assignment was issued {assignment.issued_at_s - now_s:.0f} s in the future.",
            remedy="Check the device's clock.",
        )


def _order(fields: dict[int, Any]) -> ModelOrder:
    digest = _typed(fields[3], bytes)
    if len(digest) != 32:
        raise InvalidAssignment("The assignment has a manifest digest that is not 32 bytes.")
    variant = checked_name(_typed(fields[4], str), "variant name")
    alternatives, policy = _choice(fields, variant)
    maintenance, mode = _swap(fields)
    return ModelOrder(
        model=checked_name(_typed(fields[1], str), "model name"),
        version=_unsigned(fields[2]),
        manifest_sha256=digest,
        variant=variant,
        deployment_id=checked_name(_typed(fields[5], str), "deployment id"),
        alternatives=alternatives,
        policy=policy,
        shadow_s=_shadow(fields[8]) if 8 in fields else 0,
        capture=read_capture(fields[9]) if 9 in fields else None,
        maintenance=maintenance,
        mode=mode,
    )


def _swap(fields: dict[int, Any]) -> tuple[Maintenance | None, Mode]:
    """Return when an order's version may be swapped in, and whom the device asks."""
    window = read_maintenance(fields[10]) if 10 in fields else None
    if 11 not in fields:
        return window, Mode.SOFT
    if Mode(_typed(fields[11], str)) is Mode.SOFT or window is not None:
        raise InvalidAssignment("The assignment's mode is not forced, or has a maintenance window.")
    return None, Mode.FORCED


def _shadow(value: Any) -> int:
    duration_s = _unsigned(value)
    if not 1 <= duration_s <= MAX_SHADOW_S:
        raise InvalidAssignment(f"The assignment's shadow is not 1 to {MAX_SHADOW_S} s.")
    return duration_s


def _choice(fields: dict[int, Any], variant: str) -> tuple[tuple[str, ...], VariantPolicy]:
    """Return the alternatives of an order and its policy; they come together or not at all."""
    if fields.keys().isdisjoint({6, 7}):
        return (), VariantPolicy.FIRST
    names = [checked_name(_typed(name, str), "variant name") for name in _typed(fields.get(6), list)]
    if not 1 <= len(names) <= MAX_ALTERNATIVES or len({variant, *names}) != len(names) + 1:
        raise InvalidAssignment(
            f"The assignment's alternatives are not 1 to {MAX_ALTERNATIVES} different variants."
        )
    policy = VariantPolicy(_typed(fields.get(7), str))
    if policy is VariantPolicy.FIRST:
        raise InvalidAssignment("The assignment offers alternatives and leaves no choice.")
    return tuple(names), policy


def _record(value: Any, optional: Set[int]) -> dict[int, Any]:
    """Return a map that has every needed key, and of others only those."""
    if not isinstance(value, dict) or not _NEEDED <= value.keys() <= _NEEDED | optional:
        raise InvalidAssignment(
            "A map of the assignment lacks one of the keys 1 to 5, or has an unknown one."
        )
    return value


def _typed(value: Any, kind: type[_T]) -> _T:
    if not isinstance(value, kind):
        raise InvalidAssignment(f"The assignment has {type(value).__name__} where {kind.__name__} belongs.")
    return value


def _unsigned(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        raise InvalidAssignment("The assignment has a number that is not an unsigned integer.")
    return value
