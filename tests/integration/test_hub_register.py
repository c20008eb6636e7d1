"""Bundles that were built elsewhere become versions: over the command line and the API, also when killed."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from converters.bundles.bundle import Bundle, renamed
from converters.bundles.folder import BLOBS_FOLDER, MANIFEST_FILE, write_bundle
from converters.bundles.output import REPORT_FILE, write_conversion
from fleet.protocol.manifest import decode_manifest
from tests.support.digits import digits_conversion
from tests.support.hub import HubProcess
from tests.support.processes import children, command_line, is_alive
from tests.support.registrable import archive, endless, small_bundle, with_variant
from tests.support.waiting import eventually

BUNDLE = small_bundle()


def _upload(
    hub: HubProcess, model: str, data: bytes, *, token: str | None = None, chunked: bool = False
) -> httpx.Response:
    return httpx.post(
        f"{hub.url}/api/v1/models/{model}/versions/bundle",
        content=iter([data]) if chunked else data,
        headers={"Authorization": f"Bearer {hub.token if token is None else token}"},
        timeout=60,
    )


def _blobs(hub: HubProcess) -> set[str]:
    return {path.name for path in (hub.home / "blobs").rglob("*") if path.is_file()}


def _versions(hub: HubProcess, model: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = hub.client.get("/models", model=model)["items"]
    return items


def _kept(hub: HubProcess, sha256: str) -> bytes:
    return (hub.home / "blobs" / sha256[:2] / sha256).read_bytes()


def test_what_a_conversion_wrote_is_registered_once_and_can_be_released(
    hub: HubProcess, tmp_path: Path
) -> None:
    conversion = digits_conversion()
    assert conversion.bundle is not None
    write_conversion(tmp_path / "out", conversion)
    version = json.loads(hub.muster("model", "register", "converted", str(tmp_path / "out"), "--json"))
    assert (version["model"], version["version"], version["status"]) == ("converted", 1, "REGISTERED")
    kept = _kept(hub, version["manifest_sha256"])
    assert kept == renamed(conversion.bundle, "converted", 1).manifest_bytes
    for sha256, data in conversion.bundle.blobs.items():
        assert _kept(hub, sha256) == data

    assert [each["name"] for each in version["report"]["variants"]] == [
        variant.name for variant in conversion.bundle.manifest.variants
    ]
    for found in version["report"]["verified"]:
        assert found["difference"] <= conversion.bundle.manifest.variant(found["name"]).golden_tolerance
    provenance = decode_manifest(kept).provenance
    assert provenance == conversion.bundle.manifest.provenance
    assert (version["estimator"], version["dataset"]) == (provenance.estimator, provenance.dataset)

    again = hub.muster("model", "register", "converted", str(tmp_path / "out" / "bundle"))
    assert "converted version 1 REGISTERED" in again
    assert hub.client.post("/models/converted/versions/1/release")["status"] == "RELEASED"
    assert [row["status"] for row in _versions(hub, "converted")] == ["RELEASED"]


def test_versions_count_on_and_a_known_bundle_is_answered_with_its_version(hub: HubProcess) -> None:
    first = _upload(hub, "counted", archive(BUNDLE))
    assert (first.status_code, first.json()["version"]) == (201, 1)
    second = _upload(hub, "counted", archive(small_bundle(2)), chunked=True)
    assert (second.status_code, second.json()["version"]) == (201, 2)
    again = _upload(hub, "counted", archive(renamed(BUNDLE, "another-name", 17)))
    assert (again.status_code, again.json()) == (200, first.json())
    elsewhere = _upload(hub, "counted-elsewhere", archive(BUNDLE))
    assert (elsewhere.status_code, elsewhere.json()["version"]) == (201, 1)


def _damaged() -> bytes:
    model = BUNDLE.blobs[BUNDLE.manifest.variants[0].model_file.sha256]
    return archive(BUNDLE).replace(model, model[::-1])


def _tolerant() -> Bundle:
    return with_variant(BUNDLE, lambda variant: msgspec.structs.replace(variant, golden_tolerance=10.0))


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(b"", "invalid_input", id="nothing"),
        pytest.param(_damaged(), "digest_mismatch", id="damaged"),
        pytest.param(archive(_tolerant()), "invalid_manifest", id="tolerant"),
        pytest.param(archive(small_bundle(golden_error=0.1)), "self_test_failed", id="wrong"),
    ],
)
def test_a_bundle_that_does_not_keep_its_word_leaves_nothing_behind(
    hub: HubProcess, data: bytes, code: str
) -> None:
    before = _blobs(hub)
    response = _upload(hub, "refused", data)
    assert (response.status_code, response.json()["code"]) == (422, code)
    assert "Traceback" not in response.text
    assert _versions(hub, "refused") == []
    assert _blobs(hub) == before


def test_operators_register_and_viewers_do_not(hub: HubProcess) -> None:
    viewer = hub.muster("hub", "token", "vi", "--role", "viewer", "--home", str(hub.home)).strip()
    operator = hub.muster("hub", "token", "op", "--role", "operator", "--home", str(hub.home)).strip()
    assert _upload(hub, "guarded", archive(BUNDLE), token="nobody's").status_code == 401
    assert _upload(hub, "guarded", archive(BUNDLE), token=viewer).status_code == 403
    assert _upload(hub, "Not A Name", archive(BUNDLE)).status_code == 422
    assert _versions(hub, "guarded") == []
    assert _upload(hub, "guarded", archive(BUNDLE), token=operator).status_code == 201


def test_a_folder_that_holds_no_bundle_is_refused_before_anything_is_sent(
    hub: HubProcess, tmp_path: Path
) -> None:
    def refused(folder: Path) -> str:
        return hub.muster("model", "register", "unsent", str(folder), check=False)

    assert "[not_found]" in refused(tmp_path / "nothing")
    (tmp_path / "unjudged").mkdir()
    (tmp_path / "unjudged" / REPORT_FILE).write_text("{}")
    assert "Convert with --calibrate. [invalid_input]" in refused(tmp_path / "unjudged")
    write_bundle(tmp_path / "bundle", BUNDLE)
    blob = tmp_path / "bundle" / BLOBS_FOLDER / min(BUNDLE.blobs)
    blob.write_bytes(blob.read_bytes()[::-1])
    assert "[digest_mismatch]" in refused(tmp_path)
    (tmp_path / "bundle" / MANIFEST_FILE).write_bytes(b"{}")
    assert "[invalid_manifest]" in refused(tmp_path)
    assert _versions(hub, "unsent") == []


@pytest.fixture(scope="module")
def narrow_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    """A hub of its own that takes small uploads, and may be killed."""
    home = tmp_path_factory.mktemp("narrow") / "home"
    with HubProcess(home, broker="embedded", settings={"maximum_upload_bytes": 1_500_000}) as running:
        yield running


@pytest.mark.parametrize("chunked", [False, True])
def test_more_than_the_hub_takes_is_refused(narrow_hub: HubProcess, chunked: bool) -> None:
    response = _upload(narrow_hub, "large", archive(small_bundle(padding_bytes=2_000_000)), chunked=chunked)
    assert (response.status_code, response.json()["code"]) == (413, "message_too_large")
    assert _upload(narrow_hub, "small", archive(BUNDLE)).status_code in {200, 201}
    assert [row["model"] for row in narrow_hub.client.get("/models")["items"]] == ["small"]


def _checker(hub: HubProcess) -> int | None:
    return next((child for child in children(hub.pid) if "check_worker" in command_line(child)), None)


def test_a_hub_that_is_killed_while_it_checks_has_no_version_and_takes_the_next_bundle(
    narrow_hub: HubProcess,
) -> None:
    before = _blobs(narrow_hub)
    with ThreadPoolExecutor(1) as thread:
        answer = thread.submit(_upload, narrow_hub, "killed", archive(endless()))
        checker = eventually(lambda: _checker(narrow_hub), "the bundle is checked")
        narrow_hub.kill()
        with pytest.raises(httpx.TransportError):
            answer.result()
    eventually(lambda: not is_alive(checker), "the check has ended with its hub")
    narrow_hub.start()
    assert _versions(narrow_hub, "killed") == []
    assert _blobs(narrow_hub) == before
    assert _upload(narrow_hub, "killed", archive(BUNDLE)).json()["version"] == 1


def test_a_check_that_is_killed_is_a_typed_error_and_the_hub_goes_on(narrow_hub: HubProcess) -> None:
    with ThreadPoolExecutor(1) as thread:
        answer = thread.submit(_upload, narrow_hub, "crashed", archive(endless()))
        checker = eventually(lambda: _checker(narrow_hub), "the bundle is checked")
        os.kill(checker, signal.SIGSEGV)
        response = answer.result()
    assert (response.status_code, response.json()["code"]) == (422, "model_error")
    assert "SIGSEGV" in response.json()["detail"]
    assert _versions(narrow_hub, "crashed") == []


def test_a_hub_that_is_told_to_stop_does_not_wait_for_a_check(narrow_hub: HubProcess) -> None:
    with ThreadPoolExecutor(1) as thread:
        answer = thread.submit(_upload, narrow_hub, "stopped", archive(endless()))
        checker = eventually(lambda: _checker(narrow_hub), "the bundle is checked")
        narrow_hub.stop()
        assert answer.exception() is not None or answer.result().is_error
    eventually(lambda: not is_alive(checker), "the check has ended with its hub")
    narrow_hub.start()
