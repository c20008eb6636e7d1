"""A real TUF image repository in memory, made with python-tuf's Metadata API, for the agent's tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]  # re-exported there
from tuf.api.metadata import (  # type: ignore[attr-defined]  # re-exported there
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from fleet.protocol import cose
from fleet.protocol.assignment import EXTERNAL_AAD, Assignment, encode_assignment
from fleet.protocol.director import DIRECTOR_TARGET, DirectorKeys, encode_director_keys
from fleet.protocol.manifest import target_path
from tests.support.agent_bundles import Bundle

ROLES = ("root", "targets", "snapshot", "timestamp")


class DirectorKey:
    """A key that signs assignments."""

    def __init__(self) -> None:
        self.private = Ed25519PrivateKey.generate()
        self.public = self.private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    def sign(self, assignment: Assignment) -> bytes:
        """Return the signed assignment."""
        return cose.sign1(
            encode_assignment(assignment),
            signer_key_id=cose.key_id(self.public),
            external_aad=EXTERNAL_AAD,
            sign=self.private.sign,
        )


class Repository:
    """The repository and the director's key.

    Attributes:
        files: Everything a device can fetch, by path.
        director: The director's key.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.director = DirectorKey()
        self._signers = {role: CryptoSigner.generate_ed25519() for role in ROLES}
        self._expires = datetime.now(UTC) + timedelta(days=1)
        self._root = Root(version=1, expires=self._expires, consistent_snapshot=True)
        for role in ROLES:
            self._root.add_key(self._signers[role].public_key, role)
        self._targets = Targets(version=1, expires=self._expires)  # each publication counts up
        self.files["metadata/1.root.json"] = self._signed(self._root, "root")
        self.trust(self.director)

    @property
    def root(self) -> bytes:
        """The first root metadata."""
        return self.files["metadata/1.root.json"]

    def trust(self, *directors: DirectorKey) -> None:
        """Make these the keys that may sign assignments."""
        keys = DirectorKeys(tuple(director.public.hex() for director in directors))
        self.add_target(DIRECTOR_TARGET, encode_director_keys(keys))

    def release(self, bundle: Bundle) -> None:
        """Add a version."""
        self.add_target(target_path(bundle.manifest.model, bundle.manifest.version), bundle.data)

    def add_target(self, path: str, data: bytes) -> None:
        """Add or replace a target and publish new metadata."""
        target = TargetFile.from_data(path, data, ["sha256"])
        self._targets.targets[path] = target
        folder, slash, name = path.rpartition("/")
        self.files[f"targets/{folder}{slash}{target.hashes['sha256']}.{name}"] = data
        self.publish()

    def publish(self, expires: datetime | None = None) -> None:
        """Write new targets, snapshot and timestamp metadata.

        Args:
            expires: When the timestamp expires, if not in a day.
        """
        self._targets.version += 1
        version = self._targets.version
        snapshot = Snapshot(version=version, expires=self._expires)
        snapshot.meta["targets.json"] = MetaFile(version=version)
        timestamp = Timestamp(version=version, expires=expires or self._expires)
        timestamp.snapshot_meta = MetaFile(version=version)
        self.files[f"metadata/{version}.targets.json"] = self._signed(self._targets, "targets")
        self.files[f"metadata/{version}.snapshot.json"] = self._signed(snapshot, "snapshot")
        self.files["metadata/timestamp.json"] = self._signed(timestamp, "timestamp")

    def _signed(self, contents: Root | Targets | Snapshot | Timestamp, role: str) -> bytes:
        metadata: Metadata[Any] = Metadata(contents)
        metadata.sign(self._signers[role])
        data: bytes = metadata.to_bytes()
        return data
