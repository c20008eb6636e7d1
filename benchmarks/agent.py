"""Servers of models side by side: ``make bench-agent``; docs/benchmarks.md says what is measured and how.

::

    for each model:  start every server ─► ask each in turns ─► memory ─► stop them
                     (a group of           (a client process
                     processes each)       each time)                       ─► tables ─► aims
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec

from benchmarks.measure import ROOT
from benchmarks.serving import processes
from benchmarks.serving.device import TFLITE
from benchmarks.serving.footprint import parts
from benchmarks.serving.load import Figures, Order
from benchmarks.serving.models import MODELS, Model
from benchmarks.serving.report import JOINED, LITERT, MANY, RAW, Found, Load, aims, median_load, tables
from benchmarks.serving.servers import MUSTER, PEERS, NotStarted, Route, Server

STEPS_TIMEOUT_S = 60.0
CLIENT_TIMEOUT_S = 60.0
"""How long a client may take beyond the time for which it asks."""
COLD_STARTS = 3


def main() -> None:
    """Run the benchmark as the command line says."""
    arguments = _arguments()
    if arguments.quick:
        arguments.rounds, arguments.seconds = 2, 0.2
    found = Found()
    with tempfile.TemporaryDirectory(prefix="bench-agent-") as temporary:
        folder = Path(temporary)
        for model in (model for model in MODELS if model.name in arguments.models):
            _measure(model, folder / model.name, found, arguments)
        for model in (model for model in MODELS if model.name in arguments.models):
            _measure_joined(model, folder / f"{model.name}-joined", found, arguments)
        _measure_starts(MODELS[0], folder / "starts", found, 1 if arguments.quick else COLD_STARTS)
        _measure_litert(MODELS[0], folder / "litert", found)
    sys.stdout.write("\n\n".join([*tables(found), "\n".join(str(aim) for aim in aims(found))]) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.agent", description="Compare servers of models.")
    models = [model.name for model in MODELS]
    parser.add_argument("--models", nargs="+", choices=models, default=models, help="by default all")
    parser.add_argument("--servers", nargs="+", choices=PEERS, default=PEERS, help="peers, by default all")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each way, by default 5")
    parser.add_argument("--seconds", type=float, default=0.8, help="of each turn, by default 0.8")
    parser.add_argument("--quick", action="store_true", help="few and short turns, to try it out")
    return parser.parse_args()


def _measure(model: Model, folder: Path, found: Found, arguments: argparse.Namespace) -> None:
    with ExitStack() as stack:
        servers = dict(_started(model, folder, found, [MUSTER, *arguments.servers], stack))
        raw = _raw(model, folder)
        turns: dict[tuple[int, str], list[Load]] = {}
        for number in range(arguments.rounds):
            sys.stderr.write(f"  {model.name}, round {number + 1}\n")
            for connections in (1, MANY):
                if connections == 1:
                    turns.setdefault((1, RAW), []).append(
                        _asked(raw, model, 1, folder, seconds=arguments.seconds)
                    )
                for server in servers.values():
                    for name, load in _turn(
                        server.routes,
                        server.process_id,
                        model,
                        connections,
                        folder,
                        found=found,
                        seconds=arguments.seconds,
                    ):
                        turns.setdefault((connections, name), []).append(load)
        for (connections, name), loads in turns.items():
            if (model.name, name) in found.lost:
                continue
            found.loads.setdefault((model.name, connections), {})[name] = median_load(loads)
        if model is MODELS[0]:
            found.memory |= {name: processes.memory(server.process_id) for name, server in servers.items()}
            if MUSTER in found.memory:
                found.parts = parts(_steps(folder / "raw.onnx"), found.memory[MUSTER])


def _measure_joined(model: Model, folder: Path, found: Found, arguments: argparse.Namespace) -> None:
    """Ask an agent that joins runs, and one that does not, over many connections in turns."""
    with ExitStack() as stack:
        turns: dict[tuple[str, int], list[Load]] = {}
        try:
            servers = {
                limit: Server(MUSTER, model, folder / str(limit), batch_limit=limit) for limit in JOINED
            }
        except NotStarted as error:
            found.failures[f"{MUSTER}, joined"] = str(error)
            return
        for server in servers.values():
            stack.callback(server.close)
        for _ in range(arguments.rounds):
            for limit, server in servers.items():
                routes = [route for route in server.routes if route.name.endswith(("Unix binary", "fast"))]
                for name, load in _turn(
                    routes,
                    server.process_id,
                    model,
                    MANY,
                    folder,
                    found=found,
                    seconds=arguments.seconds,
                ):
                    turns.setdefault((name, limit), []).append(load)
        for (name, limit), loads in turns.items():
            if (model.name, name) in found.lost:
                continue
            found.joined[model.name, name, limit] = median_load(loads)


def _turn(
    routes: Iterable[Route],
    server: int,
    model: Model,
    connections: int,
    folder: Path,
    *,
    found: Found,
    seconds: float,
) -> Iterator[tuple[str, Load]]:
    """Ask a server, by its process, in every way once; in one that failed it is not asked again."""
    for route in routes:
        if connections > 1 and route.way == "shared":
            continue  # its client blocks: many would be many processes
        if (model.name, route.name) in found.lost:
            continue
        try:
            load = _asked(route, model, connections, folder, seconds=seconds, server=server)
        except ClientFailed as error:
            found.lost[model.name, route.name] = str(error)
        else:
            yield route.name, load


def _started(
    model: Model, folder: Path, found: Found, names: list[str], stack: ExitStack
) -> Iterator[tuple[str, Server]]:
    for name in names:
        sys.stderr.write(f"  {model.name}: starting {name}\n")
        try:
            server = Server(name, model, folder / name)
        except NotStarted as error:
            found.failures[name] = str(error)
            continue
        stack.callback(server.close)
        yield name, server


def _raw(model: Model, folder: Path) -> Route:
    """Return the way that runs the model in the client itself."""
    path = folder / "raw.onnx"
    path.write_bytes(model.onnx())
    return Route(RAW, RAW, str(path), model.samples(1).tobytes())


class ClientFailed(Exception):
    """A client gave no figures; it says why on standard error."""


def _asked(
    route: Route, model: Model, connections: int, folder: Path, *, seconds: float, server: int | None = None
) -> Load:
    """Let a client ask; without a server the client's own time is what a request costs.

    Raises:
        ClientFailed: It could not, or took too long.
    """
    request = folder / "request.bin"
    request.write_bytes(route.request)
    order = Order(
        way=route.way,
        address=route.address,
        request=str(request),
        name=model.name,
        shape=[1, *model.shape],
        connections=connections,
        seconds=seconds,
    )
    before_s = 0.0 if server is None else processes.cpu_s(server)
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.serving.load"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    ) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        client.stdin.write(json.dumps(order).encode() + b"\n")
        client.stdin.flush()
        watch = threading.Timer(seconds + CLIENT_TIMEOUT_S, client.kill)
        watch.start()
        answer = client.stdout.readline()
        watch.cancel()
        if not answer:
            raise ClientFailed(f"the client of {route.name} failed, or did not end in time")
        figures = msgspec.json.decode(answer, type=Figures)
        cpu_s = figures.cpu_s if server is None else processes.cpu_s(server) - before_s
    return Load(figures.per_s, figures.p50_us, figures.p99_us, cpu_s / figures.requests * 1e6)


def _steps(model: Path) -> dict[str, int]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.serving.footprint", str(model)],
        stdout=subprocess.PIPE,
        timeout=STEPS_TIMEOUT_S,
        cwd=ROOT,
        check=True,
    )
    return msgspec.json.decode(done.stdout, type=dict[str, int])


def _measure_starts(model: Model, folder: Path, found: Found, count: int) -> None:
    """Start each server by itself, in turns; the files are cached by now."""
    names = [name for name in (MUSTER, *PEERS) if name not in found.failures]
    seconds: dict[str, list[float]] = {}
    for number in range(count):
        for name in names:
            sys.stderr.write(f"  cold start {number + 1} of {name}\n")
            server = Server(name, model, folder / f"{name}{number}")
            server.close()
            seconds.setdefault(name, []).append(server.first_answer_s)
    found.first_answer_s |= {name: statistics.median(values) for name, values in seconds.items()}


def _measure_litert(model: Model, folder: Path, found: Found) -> None:
    """Measure the memory of an agent that runs the model by LiteRT."""
    from converters.convert import convert

    folder.mkdir()
    source = folder / "model.onnx"
    source.write_bytes(model.onnx())
    conversion = convert(source, targets=[TFLITE])
    try:
        server = Server(MUSTER, model, folder / "server", TFLITE, conversion.models[TFLITE])
    except NotStarted as error:
        found.failures[LITERT] = str(error)
        return
    with ExitStack() as stack:
        stack.callback(server.close)
        list(_turn(server.routes[:1], server.process_id, model, 1, folder, found=found, seconds=0.2))
        found.memory[LITERT] = processes.memory(server.process_id)
        found.first_answer_s[LITERT] = server.first_answer_s


if __name__ == "__main__":
    main()
