"""The broker's accounts: one file in Mosquitto's password format, read by both brokers.

::

    {username}:$7${iterations}${salt, base64}${hash, base64}

    hash = PBKDF2-HMAC-SHA512(password, salt, iterations), 64 bytes;  salt = 12 bytes

Passwords are drawn by the hub, 256 random bits each, so stretching them adds nothing: the number of
iterations is Mosquitto's own default, and a fleet that reconnects does not keep the broker busy with hashing.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from fleet.protocol.errors import InvalidConfiguration, InvalidName, StorageError
from hub.durable import storage_error, write_durably

ITERATIONS = 101
_SALT_SIZE_BYTES = 12
_HASH_SIZE_BYTES = 64
_MAX_ITERATIONS = 1_000_000
_HASH = re.compile(r"\$7\$[0-9]{1,7}\$[A-Za-z0-9+/=]{4,}\$[A-Za-z0-9+/=]{88}\Z")
_USERNAME = re.compile(r"[a-z0-9_][a-z0-9._-]{0,63}\Z")
"""The naming rule of devices, and a leading ``_`` for accounts that no device can have."""


def new_password() -> str:
    """Draw a password: 256 random bits, printable."""
    return secrets.token_urlsafe(32)


def hash_password(password: str) -> str:
    """Return what the accounts file holds in place of the password."""
    salt = os.urandom(_SALT_SIZE_BYTES)
    return f"$7${ITERATIONS}${_base64(salt)}${_base64(_derived(password, salt, ITERATIONS))}"


def verify_password(password: str, password_hash: str) -> bool:
    """Tell whether this is the password, in a time that does not depend on where it differs.

    Raises:
        InvalidConfiguration: The hash is malformed.
    """
    try:
        empty, kind, iterations, salt, expected = password_hash.split("$")
        rounds = int(iterations)
        known = empty == "" and kind == "7" and 1 <= rounds <= _MAX_ITERATIONS
        salt_bytes, hash_bytes = (
            base64.b64decode(salt, validate=True),
            base64.b64decode(expected, validate=True),
        )
    except (ValueError, binascii.Error) as error:
        raise InvalidConfiguration("A password hash in the accounts file is malformed.") from error
    if not known or len(hash_bytes) != _HASH_SIZE_BYTES:
        raise InvalidConfiguration("A password hash in the accounts file is of an unknown kind.")
    return hmac.compare_digest(_derived(password, salt_bytes, rounds), hash_bytes)


def write_accounts(path: Path, accounts: Mapping[str, str]) -> None:
    """Replace the accounts file atomically; only its owner can read it.

    Args:
        path: The file.
        accounts: Password hash by username.

    Raises:
        InvalidName: A username is not usable.
        InvalidConfiguration: A hash is not of the form at the head of this file.
        StorageError: The file cannot be written; the old one is intact.
    """
    for username, password_hash in accounts.items():
        if not _USERNAME.match(username):
            raise InvalidName(f"{username!r:.80} is not a usable account name.")
        if not _HASH.match(password_hash):
            raise InvalidConfiguration(f"The password hash of {username} is malformed.")
    lines = "".join(f"{username}:{accounts[username]}\n" for username in sorted(accounts))
    write_durably(path, lines.encode("ascii"), mode=0o600)


def read_accounts(path: Path) -> dict[str, str]:
    """Return the password hash of each username.

    Raises:
        StorageError: The file cannot be read.
        InvalidConfiguration: A line is malformed.
    """
    try:
        text = path.read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError):
            raise storage_error(path, error) from error
        raise InvalidConfiguration(f"{path} is not an accounts file.") from error
    pairs = [line.split(":", 1) for line in text.splitlines() if line]
    if any(len(pair) != 2 for pair in pairs):
        raise InvalidConfiguration(f"{path} is not an accounts file.")
    return {pair[0]: pair[1] for pair in pairs}


class AccountsFile:
    """The accounts file as a broker uses it: read again whenever it was replaced.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None
        self._accounts: dict[str, str] = {}

    def current(self) -> Mapping[str, str]:
        """Return the password hash of each username as the file has them now.

        Raises:
            StorageError: The file cannot be read.
            InvalidConfiguration: A line is malformed.
        """
        try:
            status = self._path.stat()
        except OSError as error:
            raise storage_error(self._path, error) from error
        seen = (status.st_ino, status.st_mtime_ns)
        if seen != self._seen:
            self._accounts, self._seen = read_accounts(self._path), seen
        return self._accounts

    def accepts(self, username: str | None, password: str | None) -> bool:
        """Tell whether the account exists and has this password; False whenever that cannot be told."""
        try:
            password_hash = self.current().get(username or "")
            return password_hash is not None and verify_password(password or "", password_hash)
        except (StorageError, InvalidConfiguration):
            return False


def _derived(password: str, salt: bytes, iterations: int) -> bytes:
    return hashlib.pbkdf2_hmac("sha512", password.encode(), salt, iterations, _HASH_SIZE_BYTES)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
