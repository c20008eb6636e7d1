"""The hub of the fleet benchmark: its folder with two released versions, its process, and its devices.

The model is a file of random bytes: devices check its digest and never run it.
"""

from __future__ import annotations

import http.client
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.bundles import Build, Golden, packed
from benchmarks.fleet_windows import CLASSES, MODEL, PIXELS, VARIANT, reference
from fleet.protocol.assignment import ModelOrder
from fleet.protocol.enrolment import ENROL_PATH, EnrolmentAnswer, EnrolmentRequest, parse_token
from fleet.protocol.manifest import Manifest, Signature, Tensor, encode_manifest, manifest_sha256
from fleet.protocol.messages import Capabilities
from fleet.rollout.engine import create, step
from fleet.rollout.events import Abort
from fleet.rollout.plans.plan import rollback_plan
from fleet.rollout.state.rollout import Kind
from hub.broker.accounts import hash_password, new_password
from hub.cli.client import API
from hub.home import ADDRESS_FILE, Address, Home, create_home, open_home
from hub.registry.models import Models
from hub.settings import Settings, read_settings, write_settings
from hub.store.rows import NewDevice, OrderChange, VersionRow, VersionStatus

OLD, NEW = 1, 2
BOARDS = ("Board Model 3 Rev 1.2", "Board Model 4 Rev 1.1", "Board Model 5 Rev 1.0")
SITES = 20
GOLDEN = 8
START_TIMEOUT_S = 120.0
ENROLLED_AT_ONCE = 16


def make_home(folder: Path, model_bytes: int) -> tuple[str, dict[int, Manifest]]:
    """Make a hub's folder with two released versions; return the admin's token and the manifests.

    Args:
        folder: Where.
        model_bytes: Size of the model's file.
    """
    settings = Settings(http_port=0, mqtt_port=0, broker="mosquitto")
    token = create_home(folder, settings)
    home = open_home(folder)
    with closing(home.store):
        manifests = {version: _release(home, version, model_bytes) for version in (OLD, NEW)}
    return token, manifests


def _release(home: Home, version: int, model_bytes: int) -> Manifest:
    """Register and release a version as the hub does with one that it trained."""
    drawn = random.Random(version)  # noqa: S311 - stands for a model
    model = drawn.randbytes(model_bytes)
    manifest, blobs = packed(
        MODEL,
        version,
        Signature(
            inputs=(Tensor("pixels", "float32", (-1, PIXELS)),),
            outputs=(Tensor("probabilities", "float32", (-1, CLASSES)),),
            classes=tuple(str(number) for number in range(CLASSES)),
        ),
        Golden([bytes(GOLDEN * 4 * PIXELS)], drawn.randbytes(GOLDEN * 4 * CLASSES), GOLDEN),
        reference(),
        Build(VARIANT, "model.onnx", model, memory_bytes=10 * model_bytes, precision="int8"),
    )
    for blob in blobs.values():
        home.blobs.put(blob)
    row = VersionRow(MODEL, version, VersionStatus.REGISTERED, "none", "none", {}, version, time.time())
    digest = home.blobs.put(encode_manifest(manifest))
    home.store.add_version(msgspec.structs.replace(row, manifest_sha256=digest))
    Models(home.store, home.datasets, home.blobs, home.repository).release(MODEL, version)
    return manifest


def capabilities(number: int) -> Capabilities:
    """Return what a device says that it can run."""
    return Capabilities(
        agent_version="0.1.0",
        architecture="aarch64",
        runtimes={"onnxruntime": "1.31.1"},
        memory_bytes=2**30,
        free_bytes=2**33,
        hardware=BOARDS[number % len(BOARDS)],
        obeys_wishes=True,
        keeps_windows=True,
    )


def attributes(number: int) -> dict[str, str]:
    """Return what operators select a device by."""
    return {"site": f"site-{number % SITES}"}


def device_id(number: int) -> str:
    """Return the name of a device."""
    return f"cam-{number:06d}"


def enrolled_in_store(folder: Path, count: int) -> dict[str, str]:
    """Write so many devices through the store of a hub that does not run; return their passwords."""
    home, passwords = open_home(folder), {}
    with closing(home.store):
        for number in range(count):
            name, password = device_id(number), new_password()
            home.store.add_enrolment_token(name, created_at_s=0.0, expires_at_s=2e9)
            device = NewDevice(name, hash_password(password), attributes(number), capabilities(number))
            home.store.enrol(device, token_sha256=name, now_s=1.0)
            passwords[name] = password
    return passwords


def order_old_version(folder: Path, names: Sequence[str], manifest: Manifest) -> None:
    """Order the first version for every device, in the store of a hub that does not run."""
    home, digest = open_home(folder), manifest_sha256(encode_manifest(manifest))
    with closing(home.store):
        row = home.store.create_rollout(
            lambda number: create(
                number=number,
                kind=Kind.ROLLBACK,
                model=MODEL,
                version=OLD,
                manifest_sha256=digest,
                plan=rollback_plan(),
                seed=0,
                devices=dict.fromkeys(names, NEW),
                now_s=1.0,
            ),
            1.0,
        )
        ended, _ = step(
            row.state, Abort(by="the benchmark", reason="they are to run it", roll_back=False), 1.0
        )
        order = ModelOrder(MODEL, OLD, bytes.fromhex(digest), VARIANT, "before")
        changes = [OrderChange(name, MODEL, order) for name in names]
        home.store.apply_step(ended, previous=row.state, position=0, changes=changes)


class HubProcess:
    """``muster hub serve`` as a process of its own.

    Args:
        folder: The hub's.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.address = Address("", "", 0, "")

    @property
    def pid(self) -> int:
        """The process's number."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until it serves; its ports stay the same from the first start on."""
        (self._folder / ADDRESS_FILE).unlink(missing_ok=True)
        command = [sys.executable, "-m", "hub", "hub", "serve", "--home", str(self._folder)]
        with (self._folder / "hub.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not (self._folder / ADDRESS_FILE).exists():
            if self._process.poll() is not None or time.monotonic() > deadline_s:
                raise RuntimeError(f"The hub did not start: {self.log()[-500:]}")
            time.sleep(0.05)
        self.address = msgspec.json.decode((self._folder / ADDRESS_FILE).read_bytes(), type=Address)
        ports: dict[str, Any] = {
            "http_port": int(self.address.url.rpartition(":")[2]),
            "mqtt_port": self.address.mqtt_port,
        }
        write_settings(self._folder, msgspec.structs.replace(read_settings(self._folder), **ports))

    def stop(self) -> None:
        """Stop it as an operator would; to do so twice does no harm."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        self._end(signal.SIGKILL)

    def log(self) -> str:
        """Return what it wrote to its log."""
        return (self._folder / "hub.log").read_text("utf-8", "replace")

    def enrol(self, token: str, count: int) -> dict[str, str]:
        """Enrol so many devices over the API, each with a token of its own; return their passwords."""
        numbers = [list(range(first, count, ENROLLED_AT_ONCE)) for first in range(ENROLLED_AT_ONCE)]
        with ThreadPoolExecutor(ENROLLED_AT_ONCE) as threads:
            parts = threads.map(lambda mine: self._enrol(token, mine), numbers)
            return {name: password for part in parts for name, password in part.items()}

    def _enrol(self, token: str, numbers: Sequence[int]) -> dict[str, str]:
        passwords = {}
        connection = http.client.HTTPConnection(self.address.url.partition("://")[2], timeout=120.0)

        def posted(path: str, body: bytes) -> bytes:
            headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
            connection.request("POST", path, body, headers)
            response = connection.getresponse()
            data = response.read()
            if response.status != 201:
                raise RuntimeError(f"The hub did not enrol a device: {data[:300]!r}")
            return data

        with closing(connection):
            for number in numbers:
                given = msgspec.json.decode(posted(f"{API}/enrolment-tokens", b"{}"))["token"]
                request = EnrolmentRequest(
                    parse_token(given).secret, device_id(number), capabilities(number), attributes(number)
                )
                answer = posted(ENROL_PATH, msgspec.json.encode(request))
                access = msgspec.json.decode(answer, type=EnrolmentAnswer).broker
                passwords[access.username] = access.password
        return passwords

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
            self._process.wait(60.0)
