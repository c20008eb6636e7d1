"""The hub's folder: made once by ``muster hub init``, opened by ``muster hub serve``.

::

    <home>/hub.toml     settings
    <home>/hub.db       what the hub remembers
    <home>/keys/        signing keys, readable by their owner only
    <home>/tuf/         the image repository
    <home>/datasets/    datasets, by SHA-256; never published
    <home>/blobs/       manifests and the files of bundles, by SHA-256; any device may ask for them
    <home>/broker/      the MQTT broker's configuration and accounts
    <home>/address.json where the hub is reached; only while it runs
    <home>/alive        when the hub was last at work: its time of change
    <home>/lock         held by the hub that runs on the folder
"""

from __future__ import annotations

import contextlib
import fcntl
import secrets
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from fleet.protocol.director import DirectorKeys
from fleet.protocol.errors import Conflict, InvalidConfiguration
from hub.durable import make_folder, storage_error
from hub.enrolment import secret_sha256
from hub.settings import SETTINGS_FILE, Settings, read_settings, write_settings
from hub.store.blobs import BlobFolder
from hub.store.protocols import TokenStore
from hub.store.rows import ApiToken, Role
from hub.store.sqlite import SqliteStore
from hub.trust.director import Director
from hub.trust.image_repository import ImageRepository
from hub.trust.keys import KeyFolder, KeyRole

ADDRESS_FILE = "address.json"
ALIVE_FILE = "alive"
LOCK_FILE = "lock"
FIRST_TOKEN = "admin"  # noqa: S105 - the token's name


class Address(msgspec.Struct, frozen=True):
    """Where a running hub is reached: the contents of ``address.json`` in its folder.

    Attributes:
        url: Of the API.
        mqtt_host: Of the broker.
        mqtt_port: Of the broker.
        broker: Which broker it is, with its version.
    """

    url: str
    mqtt_host: str
    mqtt_port: int
    broker: str


class Home(NamedTuple):
    """An opened folder."""

    folder: Path
    settings: Settings
    store: SqliteStore
    datasets: BlobFolder
    blobs: BlobFolder
    repository: ImageRepository
    director: Director


def parse_settings(values: dict[str, Any]) -> Settings:
    """Return settings from plain values.

    Raises:
        InvalidConfiguration: One of them cannot be used.
    """
    try:
        return msgspec.convert(values, Settings)
    except msgspec.ValidationError as error:
        raise InvalidConfiguration(f"A setting cannot be used: {error}.") from error


def create_home(folder: Path, settings: Settings) -> str:
    """Make a hub's folder and return the admin token; only its hash is stored.

    A creation that was interrupted is completed by the next. The settings file comes last: it is what makes
    the folder a hub's.

    Raises:
        Conflict: The folder is a hub's already.
        StorageError: Something cannot be written.
    """
    try:
        if (folder / SETTINGS_FILE).exists():
            raise Conflict(f"{folder} is a hub's folder already.", remedy="Run it with `muster hub serve`.")
        make_folder(folder)
        folder.chmod(0o700)
    except OSError as error:
        raise storage_error(folder, error) from error
    keys = KeyFolder(folder / "keys")
    keys.create_missing()
    director = Director(keys.load(KeyRole.DIRECTOR))
    repository = ImageRepository(folder / "tuf", keys)
    repository.create(DirectorKeys((director.public_key.hex(),)), time.time())
    (folder / "hub.db").unlink(missing_ok=True)  # of an interrupted creation: its token was never shown
    store = SqliteStore(folder / "hub.db")
    try:
        token = _new_token(store, FIRST_TOKEN, Role.ADMIN)
    finally:
        store.close()
    write_settings(folder, settings)
    return token


@contextlib.contextmanager
def only_here(folder: Path) -> Generator[None]:
    """Hold a hub's folder: no second hub may run on it.

    Raises:
        Conflict: A hub runs on it.
        StorageError: The lock file cannot be used.
    """
    try:
        lock = (folder / LOCK_FILE).open("ab")
    except OSError as error:
        raise storage_error(folder / LOCK_FILE, error) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Conflict(f"Another hub runs on {folder}.", remedy="Stop it first.") from error
        yield


def open_home(folder: Path) -> Home:
    """Open a hub's folder.

    Raises:
        InvalidConfiguration: It is not one, or a setting or key cannot be used.
        StorageError: The database cannot be used.
    """
    settings = read_settings(folder)
    keys = KeyFolder(folder / "keys")
    return Home(
        folder=folder,
        settings=settings,
        store=SqliteStore(folder / "hub.db"),
        datasets=BlobFolder(folder / "datasets"),
        blobs=BlobFolder(folder / "blobs"),
        repository=ImageRepository(folder / "tuf", keys),
        director=Director(keys.load(KeyRole.DIRECTOR)),
    )


def add_api_token(folder: Path, name: str, role: Role) -> str:
    """Make an API token for a person or program and return it; only its hash is stored.

    Raises:
        InvalidConfiguration: The folder is not a hub's.
        Conflict: There is a token of that name.
    """
    read_settings(folder)
    store = SqliteStore(folder / "hub.db")
    try:
        return _new_token(store, name, role)
    finally:
        store.close()


def _new_token(store: TokenStore, name: str, role: Role) -> str:
    token = f"muster_{secrets.token_urlsafe(32)}"
    store.add_api_token(secret_sha256(token), ApiToken(name, role, time.time()))
    return token
