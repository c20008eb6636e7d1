"""Enrolment: how a device becomes a member of the fleet, once, over the hub's HTTP API.

An operator makes a one-time token and brings it to the device. The token carries two things::

    token = secret "." root_sha256

The secret proves to the hub that this device was invited. The digest proves to the device that the root
metadata in the hub's answer is the one the operator meant: trust does not rest on who answered.
"""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, NamedTuple

import msgspec

from fleet.protocol.errors import DigestMismatch, InvalidInput
from fleet.protocol.fields import Text
from fleet.protocol.messages import Capabilities
from fleet.protocol.names import Name

ENROL_PATH = "/api/v1/enrol"
MAX_ENROLMENT_SIZE_BYTES = 256 * 1024
_TOKEN = re.compile(r"([A-Za-z0-9_-]{32,64})\.([0-9a-f]{64})\Z")

Attributes = dict[Name, Annotated[str, msgspec.Meta(max_length=128)]]
"""What operators select devices by: ``{"site": "lyon", "hw": "pi4"}``."""


class EnrolmentToken(NamedTuple):
    """A token taken apart.

    Attributes:
        secret: Proves the invitation; the hub stores only its hash.
        root_sha256: Digest of the first root metadata file, in hexadecimal.
    """

    secret: str
    root_sha256: str

    def __str__(self) -> str:
        return f"{self.secret}.{self.root_sha256}"


class EnrolmentRequest(msgspec.Struct, frozen=True):
    """What the device sends, as JSON.

    Attributes:
        secret: From the token.
        device_id: The name that the device asks for.
        capabilities: What it can run.
        attributes: What operators select it by.
    """

    secret: str
    device_id: Name
    capabilities: Capabilities
    attributes: Attributes = {}


class BrokerAccess(msgspec.Struct, frozen=True):
    """How the device reaches the broker.

    Attributes:
        host: Name or address; empty for the host under which the hub was reached.
        port: TCP port.
        username: The device id.
        password: Drawn by the hub for this device; the hub keeps only its hash.
    """

    host: str
    port: int
    username: str
    password: Text


class EnrolmentAnswer(msgspec.Struct, frozen=True):
    """What the hub answers, as JSON.

    Attributes:
        device_id: The name granted.
        broker: How to connect.
        root: The first root metadata file of the image repository (base64 in JSON).
    """

    device_id: Name
    broker: BrokerAccess
    root: bytes


def parse_token(text: str) -> EnrolmentToken:
    """Return the parts of a token.

    Raises:
        InvalidInput: It is not a token. The message does not repeat it.
    """
    match = _TOKEN.match(text.strip())
    if match is None:
        raise InvalidInput(
            "The enrolment token is malformed.", remedy="Copy it whole, as `muster device token` printed it."
        )
    return EnrolmentToken(match[1], match[2])


def check_root(answer: EnrolmentAnswer, token: EnrolmentToken) -> None:
    """Check that the hub's root metadata is the one that the token promises.

    Raises:
        DigestMismatch: It is not; the answer must not be used.
    """
    if hashlib.sha256(answer.root).hexdigest() != token.root_sha256:
        raise DigestMismatch(
            "The hub's root metadata is not the one that the enrolment token promises.",
            remedy="Make sure that the device reaches the hub that issued the token, then get a new token.",
        )
