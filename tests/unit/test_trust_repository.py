"""The image repository, judged by python-tuf's own client."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tuf.api.exceptions import RepositoryError

from fleet.protocol.director import DIRECTOR_TARGET, DirectorKeys, decode_director_keys
from fleet.protocol.errors import (
    Conflict,
    InvalidConfiguration,
    InvalidName,
    NotFound,
    StorageCorrupt,
    StorageError,
)
from hub.trust import image_repository
from hub.trust.image_repository import LIFETIME, RENEW_BEFORE, ImageRepository
from hub.trust.keys import KeyFolder, KeyRole
from tests.support.tuf_client import download, updater

DIRECTOR = DirectorKeys(keys=("ab" * 32,))
DAY_S = 86400.0


@pytest.fixture
def keys(tmp_path: Path) -> KeyFolder:
    folder = KeyFolder(tmp_path / "keys")
    folder.create_missing()
    return folder


@pytest.fixture
def repository(tmp_path: Path, keys: KeyFolder) -> ImageRepository:
    made = ImageRepository(tmp_path / "repository", keys)
    made.create(DIRECTOR, time.time())
    return made


def _versions(repository: ImageRepository) -> tuple[int, int, int]:
    def signed(name: str) -> dict[str, Any]:
        data = repository.read(f"metadata/{name}.json")
        assert data is not None
        found = json.loads(data)["signed"]
        assert isinstance(found, dict)
        return found

    timestamp = signed("timestamp")
    snapshot_version = timestamp["meta"]["snapshot.json"]["version"]
    targets_version = signed(f"{snapshot_version}.snapshot")["meta"]["targets.json"]["version"]
    version = timestamp["version"]
    assert isinstance(version, int)
    return version, snapshot_version, targets_version


def test_a_client_accepts_the_repository_and_what_is_released_later(
    repository: ImageRepository, tmp_path: Path
) -> None:
    device = tmp_path / "device"
    client = updater(device, repository.first_root(), repository.read)
    client.refresh()
    assert decode_director_keys(download(client, DIRECTOR_TARGET)) == DIRECTOR
    assert client.get_targetinfo("digits/1.json") is None
    repository.release("digits/1.json", b"the manifest", time.time())
    assert (
        download(updater(device, repository.first_root(), repository.read), "digits/1.json")
        == b"the manifest"
    )
    assert _versions(repository) == (2, 2, 2)


def test_to_release_the_same_again_changes_nothing_and_other_bytes_conflict(
    repository: ImageRepository,
) -> None:
    repository.release("digits/1.json", b"one", time.time())
    before = _versions(repository)
    repository.release("digits/1.json", b"one", time.time())
    assert _versions(repository) == before
    with pytest.raises(Conflict):
        repository.release("digits/1.json", b"two", time.time())
    assert _versions(repository) == before


def test_to_create_again_changes_nothing(repository: ImageRepository) -> None:
    root = repository.root_sha256
    repository.create(DirectorKeys(keys=("cd" * 32,)), time.time())
    assert repository.root_sha256 == root == hashlib.sha256(repository.first_root()).hexdigest()
    assert _versions(repository) == (1, 1, 1)


@pytest.mark.parametrize("path", ["", "../x", "a//b", "/etc/passwd", "A.json", "a/./b", "x\n", "a/b/c/d/e"])
def test_an_unusable_target_path_is_refused(repository: ImageRepository, path: str) -> None:
    with pytest.raises(InvalidName):
        repository.release(path, b"", time.time())


@pytest.mark.parametrize(
    "path",
    [
        "",
        "metadata",
        "metadata/",
        "metadata/../../keys/root.pem",
        "targets/../metadata/1.root.json",
        "../keys/root.pem",
        "/etc/passwd",
        "metadata/%2e%2e/keys/root.pem",
        "metadata/1.root.json\x00",
        "metadata//1.root.json",
        "metadata/1.root.json/x",
        "keys/root.pem",
        "metadata/none.json",
        "metadata/" + "a" * 1000,
        "metadata/.1.root.json.part",
    ],
)
def test_only_files_of_the_repository_can_be_read(repository: ImageRepository, path: str) -> None:
    assert repository.read(path) is None


def _tampered(read: Callable[[str], bytes | None], which: str) -> Callable[[str], bytes | None]:
    def reader(path: str) -> bytes | None:
        data = read(path)
        if data is None or which not in path:
            return data
        return data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]

    return reader


@pytest.mark.parametrize("which", ["timestamp", "snapshot", "targets.json", "digits/"])
def test_a_client_rejects_a_tampered_file(repository: ImageRepository, tmp_path: Path, which: str) -> None:
    repository.release("digits/1.json", b'{"a manifest": true}', time.time())
    assert download(updater(tmp_path / "good", repository.first_root(), repository.read), "digits/1.json")
    client = updater(tmp_path / "bad", repository.first_root(), _tampered(repository.read, which))
    with pytest.raises(RepositoryError):
        download(client, "digits/1.json")


class PowerCut(Exception):
    """Stands for the machine stopping: nothing of ours catches it."""


def _cut_power_at(monkeypatch: pytest.MonkeyPatch, step: int, *, before: bool) -> None:
    """Stop at the given durable write, before or after its bytes reach the disk."""
    done = 0

    def cutting(real: Callable[..., object]) -> Callable[..., object]:
        def write(*arguments: object, **options: object) -> object:
            nonlocal done
            done += 1
            if done == step and before:
                raise PowerCut
            result = real(*arguments, **options)
            if done == step:
                raise PowerCut
            return result

        return write

    for name in ("write_durably", "create_durably"):
        monkeypatch.setattr(image_repository, name, cutting(getattr(image_repository, name)))


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_a_power_cut_during_a_release_leaves_a_repository_that_clients_accept(
    repository: ImageRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, before: bool
) -> None:
    repository.release("digits/1.json", b"one", time.time())
    with monkeypatch.context() as patched, pytest.raises(PowerCut):
        _cut_power_at(patched, step, before=before)
        repository.release("digits/2.json", b"two", time.time())
    device = tmp_path / "device"
    client = updater(device, repository.first_root(), repository.read)
    assert download(client, "digits/1.json") == b"one"
    switched = step == 4 and not before
    assert (client.get_targetinfo("digits/2.json") is not None) == switched
    repository.release("digits/2.json", b"two", time.time())
    assert download(updater(device, repository.first_root(), repository.read), "digits/2.json") == b"two"


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("step", [1, 2, 3, 4, 5])
def test_a_creation_that_was_cut_off_is_completed(
    keys: KeyFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, before: bool
) -> None:
    repository = ImageRepository(tmp_path / "repository", keys)
    with monkeypatch.context() as patched, pytest.raises(PowerCut):
        _cut_power_at(patched, step, before=before)
        repository.create(DIRECTOR, time.time() - 60)
    root = repository.read("metadata/1.root.json")
    repository.create(DIRECTOR, time.time())
    assert root in (None, repository.first_root())
    client = updater(tmp_path / "device", repository.first_root(), repository.read)
    assert decode_director_keys(download(client, DIRECTOR_TARGET)) == DIRECTOR


def test_a_root_of_other_keys_is_not_adopted(keys: KeyFolder, tmp_path: Path) -> None:
    first = ImageRepository(tmp_path / "repository", keys)
    first.create(DIRECTOR, time.time())
    (tmp_path / "repository" / "metadata" / "timestamp.json").unlink()
    other_keys = KeyFolder(tmp_path / "other")
    other_keys.create_missing()
    with pytest.raises(InvalidConfiguration):
        ImageRepository(tmp_path / "repository", other_keys).create(DIRECTOR, time.time())


def test_only_what_expires_soon_is_renewed(keys: KeyFolder, tmp_path: Path) -> None:
    repository = ImageRepository(tmp_path / "repository", keys)
    now_s = time.time()
    repository.create(DIRECTOR, now_s)
    assert repository.renew(now_s) == ()
    timestamp_due_s = (
        now_s + (LIFETIME[KeyRole.TIMESTAMP] - RENEW_BEFORE[KeyRole.TIMESTAMP]).total_seconds() + 1
    )
    assert repository.renew(timestamp_due_s) == (KeyRole.TIMESTAMP,)
    assert _versions(repository) == (2, 1, 1)
    snapshot_due_s = now_s + (LIFETIME[KeyRole.SNAPSHOT] - RENEW_BEFORE[KeyRole.SNAPSHOT]).total_seconds() + 1
    assert set(repository.renew(snapshot_due_s)) == {KeyRole.TIMESTAMP, KeyRole.SNAPSHOT}
    assert _versions(repository) == (3, 2, 1)


def test_a_hub_that_slept_for_years_is_accepted_after_a_renewal(keys: KeyFolder, tmp_path: Path) -> None:
    repository = ImageRepository(tmp_path / "repository", keys)
    repository.create(DIRECTOR, time.time() - 800 * DAY_S)
    root = repository.first_root()
    with pytest.raises(RepositoryError):
        updater(tmp_path / "early", root, repository.read).refresh()
    assert set(repository.renew(time.time())) == set(LIFETIME)
    assert repository.first_root() == root
    client = updater(tmp_path / "device", root, repository.read)
    assert decode_director_keys(download(client, DIRECTOR_TARGET)) == DIRECTOR


def test_offline_keys_are_needed_only_for_what_they_sign(
    repository: ImageRepository, keys: KeyFolder, tmp_path: Path
) -> None:
    for name in ("root.pem", "targets.pem"):
        (tmp_path / "keys" / name).unlink()
    later_s = time.time() + 25 * DAY_S
    assert set(repository.renew(later_s)) == {KeyRole.SNAPSHOT, KeyRole.TIMESTAMP}
    with pytest.raises(NotFound, match="targets"):
        repository.release("digits/1.json", b"one", later_s)
    assert _versions(repository) == (2, 2, 1)
    with pytest.raises(NotFound, match="root"):
        repository.renew(later_s + 400 * DAY_S)
    assert _versions(repository) == (3, 3, 1)


def test_damaged_metadata_is_reported_as_such(repository: ImageRepository, tmp_path: Path) -> None:
    (tmp_path / "repository" / "metadata" / "timestamp.json").write_bytes(b"{")
    with pytest.raises(StorageCorrupt):
        repository.release("digits/1.json", b"one", time.time())


def test_a_disk_that_refuses_leaves_the_repository_as_it_was(
    repository: ImageRepository, tmp_path: Path
) -> None:
    (tmp_path / "repository" / "targets" / "digits").write_bytes(b"a file where a folder belongs")
    with pytest.raises(StorageError):
        repository.release("digits/1.json", b"one", time.time())
    client = updater(tmp_path / "device", repository.first_root(), repository.read)
    assert client.get_targetinfo("digits/1.json") is None
