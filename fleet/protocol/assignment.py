"""The assignment: the signed order to one device, its full desired state.

It is a COSE_Sign1 message (see `fleet.protocol.cose`) whose payload is this CBOR map, with small
integers as keys because microcontrollers read the same bytes::

    { 1: device id (tstr), 2: sequence (uint), 3: issued at (uint, s), 4: expires at (uint, s),
      5: [ { 1: model (tstr), 2: version (uint), 3: manifest SHA-256 (bstr 32),
             4: variant (tstr), 5: deployment id (tstr) }, … ] }

The list is complete: a model that is not in it is to be removed. Sequence numbers only rise, also when
an older version is assigned again. Times are Unix seconds, UTC.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from fleet.protocol import cbor
from fleet.protocol.errors import (
    AssignmentExpired,
    AssignmentForOtherDevice,
    AssignmentReplayed,
    InvalidAssignment,
    InvalidName,
)
from fleet.protocol.names import checked_name

_T = TypeVar("_T")

EXTERNAL_AAD = b"muster-assignment-v1"
MAX_ASSIGNMENT_SIZE_BYTES = 16 * 1024
CLOCK_TOLERANCE_S = 300
"""How far a device's clock may be behind the hub's before a new assignment looks issued in the future."""


class ModelOrder(msgspec.Struct, frozen=True):
    """One model that the device should run.

    Attributes:
        model: Name of the model.
        version: Version number, from 1.
        manifest_sha256: 32 bytes, the digest of the manifest's bytes.
        variant: Which of the manifest's variants to install.
        deployment_id: Echoed in every report about carrying out this order.
    """

    model: str
    version: int
    manifest_sha256: bytes
    variant: str
    deployment_id: str


class Assignment(msgspec.Struct, frozen=True):
    """The full desired state of one device.

    Attributes:
        device_id: For whom it is.
        sequence: Rises with every assignment to this device.
        issued_at_s: Unix time, seconds.
        expires_at_s: Unix time, seconds; not accepted from then on.
        models: The orders, at most one for each model.
    """

    device_id: str
    sequence: int
    issued_at_s: int
    expires_at_s: int
    models: tuple[ModelOrder, ...]


def encode_assignment(assignment: Assignment) -> bytes:
    """Return the CBOR payload, deterministically encoded."""
    return cbor.dumps(
        {
            1: assignment.device_id,
            2: assignment.sequence,
            3: assignment.issued_at_s,
            4: assignment.expires_at_s,
            5: [
                {1: o.model, 2: o.version, 3: o.manifest_sha256, 4: o.variant, 5: o.deployment_id}
                for o in assignment.models
            ],
        }
    )


def decode_assignment(payload: bytes) -> Assignment:
    """Return the assignment in a payload **whose signature was verified**.

    Raises:
        InvalidAssignment: The payload is not of the form at the head of this file.
    """
    try:
        fields = _record(cbor.loads(payload))
        orders = fields[5]
        if not isinstance(orders, list):
            raise InvalidAssignment("The assignment's models are not a list.")
        assignment = Assignment(
            device_id=checked_name(_typed(fields[1], str), "device id"),
            sequence=_unsigned(fields[2]),
            issued_at_s=_unsigned(fields[3]),
            expires_at_s=_unsigned(fields[4]),
            models=tuple(_order(_record(order)) for order in orders),
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
    return ModelOrder(
        model=checked_name(_typed(fields[1], str), "model name"),
        version=_unsigned(fields[2]),
        manifest_sha256=digest,
        variant=checked_name(_typed(fields[4], str), "variant name"),
        deployment_id=checked_name(_typed(fields[5], str), "deployment id"),
    )


def _record(value: Any) -> dict[int, Any]:
    if not isinstance(value, dict) or value.keys() != {1, 2, 3, 4, 5}:
        raise InvalidAssignment("The assignment's payload is not a map with the keys 1 to 5.")
    return value


def _typed(value: Any, kind: type[_T]) -> _T:
    if not isinstance(value, kind):
        raise InvalidAssignment(f"The assignment has {type(value).__name__} where {kind.__name__} belongs.")
    return value


def _unsigned(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        raise InvalidAssignment("The assignment has a number that is not an unsigned integer.")
    return value
