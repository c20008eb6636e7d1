"""The servers that are compared: how each is started, where it listens, and what it is asked.

==========  ====================  =======================================================================
server      environment           ways to ask it
==========  ====================  =======================================================================
muster      .venv                 Open Inference Protocol, JSON or binary tensors, Unix socket or TCP;
                                  the fast path, tensors through the socket or in shared memory
mlserver    peers/agent-mlserver  Open Inference Protocol, JSON, TCP; it refuses binary tensors over HTTP
bentoml     peers/agent-bentoml   JSON, TCP
litserve    peers/agent-litserve  JSON, TCP
fastapi     peers/agent-fastapi   JSON, TCP
==========  ====================  =======================================================================

Each serves one model, on one processor thread, from a group of processes of its own. The JSON is the same for
all.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from benchmarks.measure import ROOT
from benchmarks.peers.onnx_session import MODEL_VARIABLE
from benchmarks.serving.device import ONNX, write_device
from benchmarks.serving.load import Unanswered, receive
from benchmarks.serving.models import Model, tensor

ENVIRONMENTS = ROOT / ".venv" / "peers"
MUSTER, MLSERVER, BENTOML, LITSERVE, FASTAPI = "muster", "mlserver", "bentoml", "litserve", "fastapi"
PEERS = (MLSERVER, BENTOML, LITSERVE, FASTAPI)
START_LIMIT_S = 60.0
STOP_LIMIT_S = 10.0
_POLL_S = 0.005
_PATHS = {MLSERVER: "/v2/models/{}/infer", BENTOML: "/infer", LITSERVE: "/predict", FASTAPI: "/infer"}


class Route(NamedTuple):
    """One way to ask a server.

    Attributes:
        name: For people.
        way: As `benchmarks.serving.load.Order` has it.
        address: The same.
        request: The bytes that are sent.
    """

    name: str
    way: str
    address: str
    request: bytes


class NotStarted(Exception):
    """A server cannot be installed, or does not start, or gives no predictions."""


class Server:
    """A server that runs, from its start to `close`.

    Args:
        name: Which one.
        model: What it serves.
        folder: A new folder for what it needs and writes.
        variant: The variant that Muster's agent has installed.
        built: That variant's file.
        settings: Settings of the agent that differ from the defaults.

    Raises:
        NotStarted: It did not answer in time, or with no prediction.
    """

    def __init__(
        self,
        name: str,
        model: Model,
        folder: Path,
        variant: str = ONNX,
        built: bytes = b"",
        **settings: int,
    ) -> None:
        folder.mkdir(parents=True)
        self.name = name
        self._log = folder / "log.txt"
        port = free_port()
        if name == MUSTER:
            command = _agent(model, folder, port, variant, built or model.onnx(), **settings)
            self.routes = _agent_routes(model, folder, port)
        else:
            command = _peer(name, model, folder, port)
            self.routes = (
                Route(name, "http", f"127.0.0.1:{port}", _post(_PATHS[name], model, _json(model))),
            )
        environment = {
            **os.environ,
            MODEL_VARIABLE: str(folder / "model.onnx"),
            "PYTHONPATH": str(ROOT),
            "BENTOML_DO_NOT_TRACK": "True",
        }
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        self._started_s = time.perf_counter()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        self.process_id = self._process.pid
        try:
            self.first_answer_s = self._wait()
        except NotStarted:
            self.close()
            raise

    def close(self) -> None:
        """End it and every process of its group."""
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_LIMIT_S)
        with suppress(ProcessLookupError):
            os.killpg(self.process_id, signal.SIGKILL)
        self._process.wait()

    def _wait(self) -> float:
        """Return how long it took from the start to the first prediction, in seconds."""
        refused = ""
        while time.perf_counter() < self._started_s + START_LIMIT_S:
            if self._process.poll() is not None:
                lines = self._log.read_text(errors="replace").strip().splitlines()
                raise NotStarted(f"It ended: {(lines or ['no word'])[-1]}")
            try:
                _ask(self.routes[0])
            except OSError:
                time.sleep(_POLL_S)
            except Unanswered as error:
                refused = str(error).partition("\r\n")[0]
                time.sleep(_POLL_S)
            else:
                return time.perf_counter() - self._started_s
        raise NotStarted(f"It gave no prediction in {START_LIMIT_S:.0f} s: {refused or 'it does not listen'}")


def free_port() -> int:
    """Return a port on loopback that nobody listened on just now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _ask(route: Route) -> None:
    with socket.socket(socket.AF_UNIX if route.address.startswith("/") else socket.AF_INET) as sock:
        host, _, port = route.address.partition(":")
        sock.settimeout(START_LIMIT_S)
        sock.connect((host, int(port)) if port else route.address)
        sock.sendall(route.request)
        receive(sock)


def _agent(model: Model, folder: Path, port: int, variant: str, built: bytes, **settings: int) -> list[str]:
    write_device(
        folder / "state",
        model,
        variant,
        built,
        tcp_port=port,
        socket_path=str(folder / "s"),
        fast_socket_path=str(folder / "f"),
        log_level="error",
        **settings,
    )
    return [str(ROOT / ".venv" / "bin" / "muster-agent"), "run", "--state", str(folder / "state")]


def _agent_routes(model: Model, folder: Path, port: int) -> tuple[Route, ...]:
    path = "/v2/models/{}/infer"
    in_json, in_bytes = _post(path, model, _json(model)), _binary(path, model)
    fast, sample = str(folder / "f"), model.samples(1).tobytes()
    sockets = {"Unix": str(folder / "s"), "TCP": f"127.0.0.1:{port}"}
    over_http = tuple(
        Route(f"{MUSTER} {kind} {form}", "http", address, request)
        for form, request in (("JSON", in_json), ("binary", in_bytes))
        for kind, address in sockets.items()
    )
    return (
        *over_http,
        Route(f"{MUSTER} fast", "fast", fast, sample),
        Route(f"{MUSTER} fast, shared", "shared", fast, sample),
    )


def _peer(name: str, model: Model, folder: Path, port: int) -> list[str]:
    programs = ENVIRONMENTS / f"agent-{name}" / "bin"
    if not programs.is_dir():
        raise NotStarted("could not be installed")
    (folder / "model.onnx").write_bytes(model.onnx())
    if name == BENTOML:
        service = "benchmarks.peers.bentoml_server:Service"
        return [str(programs / "bentoml"), "serve", service, "--host", "127.0.0.1", "--port", str(port)]
    if name != MLSERVER:
        return [str(programs / "python"), "-m", f"benchmarks.peers.{name}_server", str(port)]
    settings = {
        "host": "127.0.0.1",
        "http_port": port,
        "grpc_port": free_port(),
        "metrics_port": free_port(),
        "parallel_workers": 0,
        "debug": False,
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    implementation = "benchmarks.peers.mlserver_model.OnnxModel"
    (folder / "model-settings.json").write_text(
        json.dumps({"name": model.name, "implementation": implementation})
    )
    return [str(programs / "mlserver"), "start", str(folder)]


def _json(model: Model) -> bytes:
    sample = model.samples(1)
    return json.dumps({"inputs": [{**tensor(sample), "data": sample.ravel().tolist()}]}).encode()


def _binary(path: str, model: Model) -> bytes:
    data = model.samples(1).astype("<f4").tobytes()
    head = {**tensor(model.samples(1)), "parameters": {"binary_data_size": len(data)}}
    text = json.dumps({"inputs": [head], "parameters": {"binary_data_output": True}}).encode()
    return _post(path, model, text + data, f"inference-header-content-length: {len(text)}\r\n")


def _post(path: str, model: Model, body: bytes, more: str = "content-type: application/json\r\n") -> bytes:
    head = f"POST {path.format(model.name)} HTTP/1.1\r\nhost: localhost\r\n{more}"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body
