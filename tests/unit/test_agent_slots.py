"""Installed versions: what is believed of them, what is shared, what is removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.blobs import BlobStore
from agent.life.slots import Slots
from agent.life.terms import Release
from fleet.protocol.errors import InvalidManifest, StorageCorrupt
from tests.support.agent_bundles import MODEL, VARIANT, Bundle, build

ONE, TWO = build(1), build(2)


class Disk:
    """A state folder's models and blobs."""

    def __init__(self, folder: Path) -> None:
        self.blobs = BlobStore(folder / "blobs")
        self.slots = Slots(folder / "models", self.blobs)
        self.folder = folder / "models" / MODEL

    def install(self, bundle: Bundle) -> Release:
        release = Release(bundle.manifest.version, bundle.sha256, VARIANT)
        self.slots.stage(MODEL, release, bundle.data)
        for file in bundle.files:
            self.blobs.path(file.sha256).write_bytes(bundle.blobs[file.sha256])
        self.slots.install(MODEL, release)
        return release


def test_an_installed_version_is_whole_and_shares_its_blobs(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    slot = disk.slots.open(MODEL, disk.install(ONE))
    assert slot.model_path.read_bytes() == ONE.blobs[ONE.model_blob]
    assert slot.model_path.stat().st_ino == disk.blobs.path(ONE.model_blob).stat().st_ino
    assert slot.manifest == ONE.manifest


@pytest.mark.parametrize("name", ["model.onnx", "golden_inputs.0", "manifest.json"])
def test_a_changed_byte_is_noticed_when_a_version_is_opened(tmp_path: Path, name: str) -> None:
    disk = Disk(tmp_path)
    release = disk.install(ONE)
    path = next(disk.folder.glob(f"*/{name}"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(StorageCorrupt):
        disk.slots.open(MODEL, release)


def test_a_damaged_slot_is_filled_again(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    release = disk.install(ONE)
    next(disk.folder.glob("*/model.onnx")).unlink()
    disk.slots.install(MODEL, release)
    assert disk.slots.open(MODEL, release).model_path.exists()


def test_installing_again_after_a_crash_changes_nothing(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    release = disk.install(ONE)
    disk.slots.install(MODEL, release)
    assert [path.name for path in disk.folder.iterdir()] == [f"{ONE.sha256}.{VARIANT}"]


def test_a_blob_that_changed_on_disk_is_not_installed(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    release = Release(1, ONE.sha256, VARIANT)
    disk.slots.stage(MODEL, release, ONE.data)
    for sha256, data in ONE.blobs.items():
        disk.blobs.path(sha256).write_bytes(data[:-1])
    with pytest.raises(StorageCorrupt):
        disk.slots.install(MODEL, release)
    assert not list(disk.folder.glob(f"*.{VARIANT}"))


def test_only_what_is_kept_stays(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    one, two = disk.install(ONE), disk.install(TWO)
    disk.slots.keep(MODEL, frozenset({two}))
    disk.blobs.keep({file.sha256 for file in disk.slots.files(MODEL, two)})
    assert disk.slots.held_manifest(MODEL, one) is None
    assert disk.slots.open(MODEL, two)
    shared = TWO.manifest.golden_inputs[0].sha256
    assert {path.name for path in disk.blobs.folder.iterdir()} == {file.sha256 for file in TWO.files}
    assert shared in ONE.blobs
    disk.slots.keep(MODEL, frozenset())
    assert not disk.folder.exists()


def test_a_manifest_of_another_version_is_refused(tmp_path: Path) -> None:
    disk = Disk(tmp_path)
    wrong = Release(7, ONE.sha256, VARIANT)
    disk.slots.stage(MODEL, wrong, ONE.data)
    with pytest.raises(InvalidManifest):
        disk.slots.files(MODEL, wrong)
