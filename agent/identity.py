"""Who this device is in the fleet: what enrolment gave it, in one file that only the agent may read.

``identity.json`` is written last when a device enrols, in one atomic step: a folder that has it is enrolled,
a folder without it is not.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from agent import durable
from fleet.protocol.enrolment import BrokerAccess
from fleet.protocol.errors import InvalidConfiguration, StorageCorrupt
from fleet.protocol.names import Name

FILE_NAME = "identity.json"


class Identity(msgspec.Struct, frozen=True):
    """What enrolment gave.

    Attributes:
        device_id: The device's name in the fleet.
        hub_url: Where it enrolled.
        broker: How it connects; holds its password.
        root: The first root metadata file of the image repository, as the token promised it.
    """

    device_id: Name
    hub_url: str
    broker: BrokerAccess
    root: bytes

    def __repr__(self) -> str:
        return f"Identity({self.device_id!r})"  # never the password


def is_enrolled(state: Path) -> bool:
    """Tell whether a state folder belongs to a device that has enrolled."""
    return (state / FILE_NAME).exists()


def write_identity(state: Path, identity: Identity) -> None:
    """Make the folder an enrolled one.

    Raises:
        StorageError: The file cannot be written.
    """
    durable.write_file(state / FILE_NAME, msgspec.json.encode(identity), mode=durable.PRIVATE)


def read_identity(state: Path) -> Identity:
    """Return what enrolment gave.

    Raises:
        InvalidConfiguration: The folder is not enrolled.
        StorageCorrupt: The file cannot be understood.
    """
    path = state / FILE_NAME
    try:
        return msgspec.json.decode(path.read_bytes(), type=Identity)
    except FileNotFoundError as error:
        raise InvalidConfiguration(
            f"{state} is not the state folder of an enrolled device.", remedy="Run `muster-agent enroll`."
        ) from error
    except OSError as error:
        raise InvalidConfiguration(
            f"{path} cannot be read: {error.strerror}.", remedy="Check whether it is the agent's own."
        ) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StorageCorrupt(
            f"{path} is damaged.",
            remedy="Remove the state folder and enrol the device again with a new token.",
        ) from error
