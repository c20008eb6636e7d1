"""Registering a bundle when things go wrong in between: the order of writing, races, bad checks, greed."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from converters.bundles.bundle import Bundle, renamed
from fleet.protocol.errors import ModelError, SelfTestFailed, StorageError
from fleet.protocol.manifest import decode_manifest
from hub.home import create_home, open_home
from hub.registry import models
from hub.registry.models import Models
from hub.settings import Settings
from hub.store.blobs import BlobFolder
from hub.store.rows import VersionRow, VersionStatus
from hub.store.sqlite import SqliteStore
from tests.support.processes import children
from tests.support.registrable import archive, endless, greedy, small_bundle, write
from tests.support.stores import dataset_row

BUNDLE = small_bundle()


class InspectedStore(SqliteStore):
    """A store in which something happens when a version is added.

    Args:
        path: The database.
        blobs: Where the files of versions must be by then.
    """

    def __init__(self, path: Path, blobs: BlobFolder) -> None:
        super().__init__(path)
        self._blobs = blobs
        self.full = False
        """Whether the disk is full when the next version is added."""
        self.rival = False
        """Whether a training takes the number of the next version."""
        self.missing: list[str] = []
        """Blobs that a version named before they were there."""

    def add_version(self, version: VersionRow) -> bool:
        if self.full:
            raise StorageError("The database could not be written: database or disk is full.")
        if self.rival:
            self.rival = False
            self.begin_version(
                version.model, dataset="digits", estimator="mlp", hyperparameters={}, seed=0, now_s=1.0
            )
        assert version.manifest_sha256 is not None
        manifest = decode_manifest(self._blobs.read(version.manifest_sha256))
        files = [file.sha256 for variant in manifest.variants for file in manifest.files(variant)]
        self.missing += [sha256 for sha256 in files if not self._blobs.contains(sha256)]
        return super().add_version(version)


class Registry:
    """What registers versions, without a hub's network side.

    Args:
        folder: A hub's.
    """

    def __init__(self, folder: Path) -> None:
        create_home(folder, Settings())
        home = open_home(folder)
        home.store.close()
        self.blobs = home.blobs
        self.store = InspectedStore(folder / "hub.db", home.blobs)
        self.models = Models(self.store, home.datasets, home.blobs, home.repository)
        self._folder = folder

    async def register(self, bundle: Bundle, name: str = "upload") -> tuple[VersionRow, bool]:
        return await self.models.register("digits", write(self._folder / name, archive(bundle)))


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    """A registry with dataset ``digits``."""
    made = Registry(tmp_path / "home")
    made.store.add_dataset(dataset_row())
    yield made
    made.store.close()


def test_a_version_never_names_blobs_that_are_not_there(registry: Registry) -> None:
    registry.store.full = True  # what was written by then is what a kill at this moment leaves
    with pytest.raises(StorageError):
        asyncio.run(registry.register(BUNDLE))
    assert registry.store.versions() == []
    registry.store.full = False
    row, new = asyncio.run(registry.register(BUNDLE))
    assert (row.version, row.status, new) == (1, VersionStatus.REGISTERED, True)
    assert registry.store.missing == []


def test_a_number_that_a_training_takes_meanwhile_is_not_used_twice(registry: Registry) -> None:
    registry.store.rival = True
    row, _ = asyncio.run(registry.register(BUNDLE))
    statuses = [(row.version, row.status) for row in registry.store.versions("digits")]
    assert statuses == [(1, VersionStatus.TRAINING), (2, VersionStatus.REGISTERED)]
    _, manifest = registry.models.manifest("digits", 2)
    assert (manifest.model, manifest.version) == ("digits", 2)
    assert row.manifest_sha256 == renamed(BUNDLE, "digits", 2).sha256


def test_two_who_register_the_same_at_once_get_one_version(registry: Registry) -> None:
    async def both() -> tuple[tuple[VersionRow, bool], ...]:
        return await asyncio.gather(registry.register(BUNDLE, "one"), registry.register(BUNDLE, "two"))

    answers = asyncio.run(both())
    assert sorted(new for _, new in answers) == [False, True]
    assert {row.version for row, _ in answers} == {1}
    assert len(registry.store.versions()) == 1


@pytest.mark.parametrize("worker", ["this", "hub.no_such_module"])  # speaks verse, fails
def test_a_check_outside_its_protocol_is_a_typed_error(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, worker: str
) -> None:
    monkeypatch.setattr(models, "CHECKER", worker)
    with pytest.raises(ModelError):
        asyncio.run(registry.register(BUNDLE))
    assert registry.store.versions() == []


def test_a_check_that_takes_too_long_is_ended(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    before = children(os.getpid())
    monkeypatch.setattr(models, "CHECK_LIMIT_S", 1.0)
    with pytest.raises(ModelError, match="longer than"):
        asyncio.run(registry.register(endless()))
    assert children(os.getpid()) == before
    monkeypatch.undo()
    asyncio.run(registry.register(BUNDLE))  # the next one finds the way free


def test_a_model_that_asks_for_all_memory_does_not_get_it(registry: Registry) -> None:
    started_s = time.monotonic()
    with pytest.raises(SelfTestFailed, match="onnx"):
        asyncio.run(registry.register(greedy()))
    assert time.monotonic() - started_s < 30
    assert registry.store.versions() == []
