"""The hub's signing keys: Ed25519, one PEM file each.

::

    <hub>/keys/root.pem       signs which keys count for the roles below; needed rarely
    <hub>/keys/targets.pem    signs which bundles exist; needed for a release
    <hub>/keys/snapshot.pem   signs which metadata belongs together; needed for a release
    <hub>/keys/timestamp.pem  signs what is newest; needed daily
    <hub>/keys/director.pem   signs which device runs what; needed always

Each key is a file of its own and is loaded only by what needs it, so that root and targets can be moved to
a machine that is offline. A key is created once and never overwritten: a lost root key cannot be replaced
without visiting every device.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from fleet.protocol.errors import InvalidConfiguration, NotFound
from hub.durable import create_durably, make_folder, storage_error

_MAX_KEY_SIZE_BYTES = 4096


class KeyRole(StrEnum):
    """What a key signs."""

    ROOT = "root"
    TARGETS = "targets"
    SNAPSHOT = "snapshot"
    TIMESTAMP = "timestamp"
    DIRECTOR = "director"


class KeyFolder:
    """The folder that holds the keys.

    Args:
        folder: Made with `create_missing`, readable by its owner only.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def create_missing(self) -> tuple[KeyRole, ...]:
        """Create the keys that do not exist yet; leave the others alone.

        Returns:
            The roles for which a key was created.

        Raises:
            StorageError: A key cannot be written.
        """
        try:
            make_folder(self._folder)
            self._folder.chmod(0o700)
        except OSError as error:
            raise storage_error(self._folder, error) from error
        return tuple(
            role
            for role in KeyRole
            if not self._path(role).exists() and create_durably(self._path(role), _new_key(), mode=0o600)
        )

    def load(self, role: KeyRole) -> Ed25519PrivateKey:
        """Return the private key of a role.

        Raises:
            NotFound: It is not in the folder; it may be kept offline.
            InvalidConfiguration: The file holds no Ed25519 key, or others than its owner can read it.
        """
        path = self._path(role)
        try:
            mode = path.stat().st_mode
            with path.open("rb") as file:
                data = file.read(_MAX_KEY_SIZE_BYTES)
        except FileNotFoundError as error:
            raise NotFound(
                f"The {role} key is not in {self._folder}.",
                remedy="Run `muster hub init`, or bring the key from where it is kept.",
            ) from error
        except OSError as error:
            raise storage_error(path, error) from error
        if mode & 0o077:
            raise InvalidConfiguration(
                f"The {role} key can be read by others than its owner.", remedy=f"Run: chmod 600 {path}"
            )
        try:
            key = load_pem_private_key(data, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise InvalidConfiguration(f"{path} is not a readable private key.") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise InvalidConfiguration(f"{path} is not an Ed25519 key.")
        return key

    def _path(self, role: KeyRole) -> Path:
        return self._folder / f"{role.value}.pem"


def raw_public_key(private_key: Ed25519PrivateKey) -> bytes:
    """Return the 32 bytes of the key's public half."""
    return private_key.public_key().public_bytes_raw()


def _new_key() -> bytes:
    key = Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
