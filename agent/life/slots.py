"""Installed versions on disk, each in a slot of its own.

::

    models/<model>/<manifest sha256>.<variant>/         a slot: manifest.json and the variant's files
    models/<model>/<manifest sha256>.<variant>.staged/  one that is being filled; renamed when it is whole

Files are hard links to verified blobs (copies where the file system has no links), so versions that share a
blob share its space. Whatever a slot says is believed only after its bytes were hashed: the manifest
against the digest in the release, the files against the manifest.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NamedTuple

from agent import durable
from agent.blobs import BlobStore, file_sha256
from agent.life.terms import Release
from fleet.protocol.errors import InvalidManifest, StorageCorrupt
from fleet.protocol.manifest import File, Manifest, Variant, decode_manifest, manifest_sha256

MANIFEST_FILE = "manifest.json"
_STAGED = ".staged"


class Slot(NamedTuple):
    """An installed version whose every byte was verified just now.

    Attributes:
        release: What it is.
        manifest: Its description.
        variant: The variant that is installed.
        folder: Where its files are.
    """

    release: Release
    manifest: Manifest
    variant: Variant
    folder: Path

    @property
    def model_path(self) -> Path:
        """The model's file."""
        return self.folder / self.variant.model_file.name


class Slots:
    """The folder of installed versions.

    Args:
        folder: Where slots are.
        blobs: Where verified blobs come from.
    """

    def __init__(self, folder: Path, blobs: BlobStore) -> None:
        self._folder = folder
        self._blobs = blobs

    def held_manifest(self, model: str, release: Release) -> bytes | None:
        """Return a release's manifest if it is here, installed or staged, with the right digest."""
        final = self._slot(model, release)
        for path in (final / MANIFEST_FILE, _staged(final) / MANIFEST_FILE):
            with durable.storage_errors(path):
                data = path.read_bytes() if path.is_file() else b""
            if manifest_sha256(data) == release.manifest_sha256:
                return data
        return None

    def stage(self, model: str, release: Release, manifest: bytes) -> None:
        """Keep a verified manifest for a slot that will be filled.

        Raises:
            StorageError: It cannot be written.
        """
        staged = _staged(self._slot(model, release))
        durable.make_own_folder(staged)
        durable.write_file(staged / MANIFEST_FILE, manifest)

    def files(self, model: str, release: Release) -> tuple[File, ...]:
        """Return the files that a release needs, by its held manifest.

        Raises:
            StorageCorrupt: Its manifest is not here.
            InvalidManifest: The manifest does not describe this release.
        """
        manifest, variant = self._described(model, release)
        return manifest.files(variant)

    def install(self, model: str, release: Release) -> None:
        """Make a slot of verified blobs, whole or not at all.

        Raises:
            StorageCorrupt: A blob or the manifest is not what it should be.
            StorageError: The slot cannot be written.
        """
        final = self._slot(model, release)
        if final.is_dir():
            try:
                self.open(model, release)
            except (StorageCorrupt, InvalidManifest):
                self._reclaim(model, release)
            else:
                return
        staged = _staged(final)
        for file in self.files(model, release):
            if not self._blobs.has(file):
                raise StorageCorrupt(f"Blob {file.sha256[:12]}… is not here any more.")
            _link(self._blobs.path(file.sha256), staged / file.name)
        with durable.storage_errors(final):
            durable.sync_folder(staged)
            staged.replace(final)
            durable.sync_folder(final.parent)
        self.open(model, release)

    def open(self, model: str, release: Release) -> Slot:
        """Return an installed version after hashing every byte of it.

        Raises:
            StorageCorrupt: It is not here, or its bytes are not what was installed.
        """
        folder = self._slot(model, release)
        manifest, variant = self._described(model, release)
        for file in manifest.files(variant):
            path = folder / file.name
            if not path.is_file() or file_sha256(path) != file.sha256:
                raise StorageCorrupt(f"{model} version {release.version} is damaged on disk: {file.name}.")
        return Slot(release, manifest, variant, folder)

    def keep(self, model: str, releases: frozenset[Release]) -> None:
        """Remove every slot of a model but these.

        Raises:
            StorageError: One cannot be removed.
        """
        folder = self._folder / model
        names = {self._slot(model, release).name for release in releases}
        with durable.storage_errors(folder):
            found = sorted(folder.iterdir()) if folder.is_dir() else []
        for path in found:
            if path.name.removesuffix(_STAGED) not in names:
                durable.remove_tree(path)
        if not releases:
            durable.remove_tree(folder)

    def _slot(self, model: str, release: Release) -> Path:
        return self._folder / model / f"{release.manifest_sha256}.{release.variant}"

    def _described(self, model: str, release: Release) -> tuple[Manifest, Variant]:
        data = self.held_manifest(model, release)
        if data is None:
            raise StorageCorrupt(f"The manifest of {model} version {release.version} is not here or damaged.")
        manifest = decode_manifest(data)
        if (manifest.model, manifest.version) != (model, release.version):
            raise InvalidManifest(
                f"The manifest ordered as {model} version {release.version} describes "
                f"{manifest.model} version {manifest.version}."
            )
        return manifest, manifest.variant(release.variant)

    def _reclaim(self, model: str, release: Release) -> None:
        """Take a damaged slot down to its manifest, so that it can be filled again."""
        manifest = self.held_manifest(model, release)
        durable.remove_tree(self._slot(model, release))
        if manifest is not None:
            self.stage(model, release, manifest)


def _staged(slot: Path) -> Path:
    return slot.with_name(slot.name + _STAGED)


def _link(source: Path, target: Path) -> None:
    with durable.storage_errors(target):
        target.unlink(missing_ok=True)
        try:
            os.link(source, target)
        except OSError:  # no hard links here (FAT, some network file systems), or across file systems
            shutil.copyfile(source, target)
            with target.open("rb") as stream:
                os.fsync(stream.fileno())
