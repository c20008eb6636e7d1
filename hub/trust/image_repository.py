"""The image repository: which bundles exist, as TUF metadata that devices verify.

::

    <folder>/metadata/1.root.json, 2.root.json, …   the keys of all roles; each signed by the one before
    <folder>/metadata/{n}.targets.json              path, size and SHA-256 of every released manifest
    <folder>/metadata/{n}.snapshot.json             the version of targets that belongs to it
    <folder>/metadata/timestamp.json                the newest snapshot; the only file that is ever replaced
    <folder>/targets/{folder}/{sha256}.{name}       the released files themselves

Everything but ``timestamp.json`` is written under a name that nothing refers to yet (consistent snapshots,
TUF specification 1.0.34, section 6.2), and the timestamp comes last. A crash between any two writes therefore
leaves the old repository, whole, and the next release writes the unreferenced files again.

Snapshot and timestamp also carry length and digest of what they name, so that a client checks bytes before
it parses them. The current versions are read from the timestamp down, never guessed from file names.
"""

from __future__ import annotations

import hashlib
import re
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]  # re-exported there
from tuf.api.exceptions import RepositoryError, UnsignedMetadataError
from tuf.api.metadata import (  # type: ignore[attr-defined]  # re-exported there
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)
from tuf.api.serialization.json import JSONSerializer

from fleet.protocol.director import DIRECTOR_TARGET, DirectorKeys, encode_director_keys
from fleet.protocol.errors import Conflict, InvalidConfiguration, InvalidName, NotFound, StorageCorrupt
from hub.durable import create_durably, storage_error, write_durably
from hub.trust.keys import KeyFolder, KeyRole

LIFETIME = {
    KeyRole.ROOT: timedelta(days=365),
    KeyRole.TARGETS: timedelta(days=365),
    KeyRole.SNAPSHOT: timedelta(days=30),
    KeyRole.TIMESTAMP: timedelta(days=2),
}
"""How long a signature counts. The timestamp's is also how long an attacker can hide a release."""

RENEW_BEFORE = {
    KeyRole.ROOT: timedelta(days=30),
    KeyRole.TARGETS: timedelta(days=30),
    KeyRole.SNAPSHOT: timedelta(days=10),
    KeyRole.TIMESTAMP: timedelta(days=1),
}
"""How long before its expiry a signature is made anew."""

_THRESHOLD = 1
_PART = re.compile(r"[a-z0-9][a-z0-9._-]{0,159}\Z")
_MAX_DEPTH = 4
_T = TypeVar("_T", Root, Targets, Snapshot, Timestamp)


class ImageRepository:
    """Writes the repository and reads its files for devices. Safe to use from several threads.

    Args:
        folder: Where it is; made by `create`.
        keys: Loads a key when a signature by it is needed, and not before.
    """

    def __init__(self, folder: Path, keys: KeyFolder) -> None:
        self._metadata = folder / "metadata"
        self._targets = folder / "targets"
        self._folder = folder
        self._keys = keys
        self._lock = threading.Lock()

    def create(self, director_keys: DirectorKeys, now_s: float) -> None:
        """Create the repository with the director's keys as its first target, unless it exists.

        A creation that was interrupted is completed.

        Args:
            director_keys: Who may sign assignments.
            now_s: Unix time, seconds.

        Raises:
            InvalidConfiguration: A root is there that the keys in the folder did not sign.
            StorageError: A file cannot be written.
        """
        with self._lock:
            if (self._metadata / "timestamp.json").exists():
                return
            self._create_root(now_s)
            data = encode_director_keys(director_keys)
            targets = _unpublished(Targets())
            self._add(targets, DIRECTOR_TARGET, data)
            self._publish(targets, _unpublished(Snapshot()), _unpublished(Timestamp()), now_s)

    def release(self, path: str, data: bytes, now_s: float) -> None:
        """Add a target. To release the same bytes again changes nothing.

        Args:
            path: Its path among the targets, such as ``digits/1.json``.
            data: Its contents.
            now_s: Unix time, seconds.

        Raises:
            Conflict: Other bytes were released under this path: a release is never changed.
            InvalidName: The path is not usable.
            NotFound: A key that is needed is not here, or the repository was not created.
            StorageError: A file cannot be written; clients see the repository as it was.
        """
        if _safe_parts(path) is None:
            raise InvalidName(f"{path!r:.120} is not a usable target path.")
        with self._lock:
            timestamp, snapshot, targets = self._current()
            released = targets.signed.targets.get(path)
            if released is not None:
                if released.hashes != {"sha256": hashlib.sha256(data).hexdigest()}:
                    raise Conflict(
                        f"{path} was released before with other contents.", remedy="Use a new version."
                    )
                return
            self._add(targets, path, data)
            self._publish(targets, snapshot, timestamp, now_s)

    def withdraw(self, path: str, now_s: float) -> None:
        """Take a target out, so that no device accepts it any more; one that is not there changes nothing.

        Its bytes stay, for what was signed before names them.

        Args:
            path: Its path among the targets.
            now_s: Unix time, seconds.

        Raises:
            NotFound: A key that is needed is not here, or the repository was not created.
            StorageError: A file cannot be written; clients see the repository as it was.
        """
        with self._lock:
            timestamp, snapshot, targets = self._current()
            if targets.signed.targets.pop(path, None) is not None:
                self._publish(targets, snapshot, timestamp, now_s)

    def renew(self, now_s: float) -> tuple[KeyRole, ...]:
        """Sign again what expires soon. To be called at start and then at least daily.

        Args:
            now_s: Unix time, seconds.

        Returns:
            The roles that were signed again.

        Raises:
            NotFound: A key is not here for metadata that expires soon; all else was renewed.
            StorageError: A file cannot be written; clients see the repository as it was.
        """
        missing: list[NotFound] = []
        renewed: list[KeyRole] = []
        with self._lock:
            root = self._newest_root()
            timestamp, snapshot, targets = self._current()
            if _expires_soon(root, KeyRole.ROOT, now_s) and self._has_key(KeyRole.ROOT, missing):
                self._sign_next(root, KeyRole.ROOT, now_s)
                renewed.append(KeyRole.ROOT)
            due_targets = _expires_soon(targets, KeyRole.TARGETS, now_s) and self._has_key(
                KeyRole.TARGETS, missing
            )
            due_snapshot = due_targets or _expires_soon(snapshot, KeyRole.SNAPSHOT, now_s)
            if due_snapshot or _expires_soon(timestamp, KeyRole.TIMESTAMP, now_s):
                renewed += self._publish(
                    targets if due_targets else None, snapshot if due_snapshot else None, timestamp, now_s
                )
        if missing:
            raise missing[0]
        return tuple(renewed)

    def read(self, path: str) -> bytes | None:
        """Return a file as clients ask for it, or None if there is none.

        Args:
            path: ``metadata/…`` or ``targets/…``; anything else, above all a path that would leave the
                repository, names no file.

        Raises:
            StorageError: The file is there and cannot be read.
        """
        parts = _safe_parts(path)
        if parts is None or len(parts) < 2 or parts[0] not in {"metadata", "targets"}:
            return None
        file = self._folder.joinpath(*parts)
        try:
            return file.read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        except OSError as error:
            raise storage_error(file, error) from error

    def first_root(self) -> bytes:
        """Return the root metadata that a new device starts from.

        Raises:
            NotFound: The repository was not created.
        """
        return self._bytes("1.root.json")

    @property
    def root_sha256(self) -> str:
        """SHA-256 of `first_root` in hexadecimal, as enrolment tokens carry it."""
        return hashlib.sha256(self.first_root()).hexdigest()

    def _create_root(self, now_s: float) -> None:
        root = Root(version=1, consistent_snapshot=True, expires=_expiry(KeyRole.ROOT, now_s))
        for role in LIFETIME:
            root.add_key(self._signer(role).public_key, role.value)
            root.roles[role.value].threshold = _THRESHOLD
        metadata = Metadata(root)
        metadata.sign(self._signer(KeyRole.ROOT))
        if create_durably(self._metadata / "1.root.json", _serialized(metadata)):
            return
        existing = self._newest_root()  # left by a creation that was interrupted
        if existing.signed.roles != root.roles or not _is_signed(existing):
            raise InvalidConfiguration(
                f"{self._metadata} holds the root of other keys.", remedy="Start from an empty folder."
            )

    def _add(self, targets: Metadata[Targets], path: str, data: bytes) -> None:
        target = TargetFile.from_data(path, data, ["sha256"])
        folder, _, name = path.rpartition("/")
        write_durably(self._targets / folder / f"{target.hashes['sha256']}.{name}", data)
        targets.signed.targets[path] = target

    def _publish(
        self,
        targets: Metadata[Targets] | None,
        snapshot: Metadata[Snapshot] | None,
        timestamp: Metadata[Timestamp],
        now_s: float,
    ) -> list[KeyRole]:
        """Sign what is given, write it, and switch to it by writing the timestamp last."""
        renewed = [KeyRole.TIMESTAMP]
        if snapshot is not None:
            if targets is not None:
                snapshot.signed.meta["targets.json"] = self._sign_next(targets, KeyRole.TARGETS, now_s)
                renewed.append(KeyRole.TARGETS)
            timestamp.signed.snapshot_meta = self._sign_next(snapshot, KeyRole.SNAPSHOT, now_s)
            renewed.append(KeyRole.SNAPSHOT)
        self._sign_next(timestamp, KeyRole.TIMESTAMP, now_s)
        return renewed

    def _sign_next(self, metadata: Metadata[_T], role: KeyRole, now_s: float) -> MetaFile:
        """Sign the next version, write it durably, and return how others refer to it."""
        metadata.signed.version += 1
        metadata.signed.expires = _expiry(role, now_s)
        metadata.sign(self._signer(role))
        data = _serialized(metadata)
        name = f"{role}.json" if role is KeyRole.TIMESTAMP else f"{metadata.signed.version}.{role}.json"
        write_durably(self._metadata / name, data)
        return MetaFile(metadata.signed.version, len(data), {"sha256": hashlib.sha256(data).hexdigest()})

    def _signer(self, role: KeyRole) -> CryptoSigner:
        return CryptoSigner(self._keys.load(role))

    def _has_key(self, role: KeyRole, missing: list[NotFound]) -> bool:
        try:
            self._keys.load(role)
        except NotFound as error:
            missing.append(error)
            return False
        return True

    def _current(self) -> tuple[Metadata[Timestamp], Metadata[Snapshot], Metadata[Targets]]:
        timestamp = self._parsed("timestamp.json", Timestamp)
        snapshot = self._parsed(f"{timestamp.signed.snapshot_meta.version}.snapshot.json", Snapshot)
        targets = self._parsed(f"{snapshot.signed.meta['targets.json'].version}.targets.json", Targets)
        return timestamp, snapshot, targets

    def _newest_root(self) -> Metadata[Root]:
        version = 1
        while (self._metadata / f"{version + 1}.root.json").exists():
            version += 1
        return self._parsed(f"{version}.root.json", Root)

    def _parsed(self, name: str, kind: type[_T]) -> Metadata[_T]:
        try:
            metadata: Metadata[_T] = Metadata.from_bytes(self._bytes(name))
        except RepositoryError as error:
            raise StorageCorrupt(f"{self._metadata / name} is damaged.") from error
        if not isinstance(metadata.signed, kind):
            raise StorageCorrupt(f"{self._metadata / name} is not {kind.type} metadata.")
        return metadata

    def _bytes(self, name: str) -> bytes:
        data = self.read(f"metadata/{name}")
        if data is None:
            raise NotFound(
                f"The image repository has no {name}.", remedy="Run `muster hub init`, or restore it."
            )
        return data


def _safe_parts(path: str) -> list[str] | None:
    parts = path.split("/")
    return parts if len(parts) <= _MAX_DEPTH and all(_PART.match(part) for part in parts) else None


def _unpublished(signed: _T) -> Metadata[_T]:
    signed.version = 0  # the first to be signed is then version 1
    return Metadata(signed)


def _expiry(role: KeyRole, now_s: float) -> datetime:
    return datetime.fromtimestamp(int(now_s), UTC) + LIFETIME[role]


def _expires_soon(metadata: Metadata[_T], role: KeyRole, now_s: float) -> bool:
    return metadata.signed.expires < datetime.fromtimestamp(now_s, UTC) + RENEW_BEFORE[role]


def _serialized(metadata: Metadata[_T]) -> bytes:
    return metadata.to_bytes(JSONSerializer(compact=True))


def _is_signed(root: Metadata[Root]) -> bool:
    try:
        root.verify_delegate(Root.type, root)
    except (UnsignedMetadataError, ValueError):
        return False
    return True
