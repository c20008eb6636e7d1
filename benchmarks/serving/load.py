"""A client that asks one server for the same prediction again and again, in a process of its own.

::

    python -m benchmarks.serving.load     order on standard input, figures on standard output; both JSON

It does as little as it can, so that what is measured is the server: one thread, blocking sockets that stay
connected, the same bytes each time, and of an answer only the status and the length are looked at. With
several connections each has one request under way. Some ways do not speak HTTP: `fast` is the agent's fast
path by its own client, `shared` the same with the tensors in shared memory, and `raw` runs the model in this
process, which is what all servers are compared with.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, TypedDict

RECEIVE_BYTES = 256 * 1024
TIMEOUT_S = 30.0
_END = b"\r\n\r\n"
_LENGTH = b"content-length:"
INPUT = "features"
"""Name of the input, see `benchmarks.serving.models`, which would import what a client does not need."""


class Order(TypedDict):
    """What to do.

    Attributes:
        way: ``http``, ``fast``, ``shared`` or ``raw``.
        address: Path of a Unix socket, or ``host:port``; of ``raw`` the model's file.
        request: File with the bytes of the request, or of the sample.
        name: Of the model.
        shape: Of the sample, with its batch of one.
        connections: How many requests are under way at once.
        seconds: How long to ask, after a tenth of it that does not count.
    """

    way: str
    address: str
    request: str
    name: str
    shape: list[int]
    connections: int
    seconds: float


class Figures(NamedTuple):
    """What came of it.

    Attributes:
        requests: All that were answered, those that do not count included.
        per_s: Requests per second.
        p50_us: Half of the answers took no longer,
        p99_us: and of a hundred all but one.
        cpu_s: What this process took for all of them.
    """

    requests: int
    per_s: float
    p50_us: float
    p99_us: float
    cpu_s: float


Ask = Callable[[], object]
"""Asks once and returns when the answer is here."""


class Unanswered(Exception):
    """The server answered with something else than a prediction."""


def main() -> None:
    """Do what the order says, and stay connected until the input ends.

    A server may have a thread for each connection, whose time can be read only while it lives.
    """
    order: Order = json.loads(sys.stdin.readline())
    figures, connections = measured(order)
    sys.stdout.write(json.dumps(figures) + "\n")
    sys.stdout.flush()
    sys.stdin.read()
    del connections


def measured(order: Order) -> tuple[Figures, Iterator[int]]:
    """Do what the order says and return the figures, and what keeps the connections."""
    if order["connections"] > 1:
        took_ns = _many(order)
    else:
        took_ns = _one({"http": _http, "raw": _raw, "fast": _fast, "shared": _fast}[order["way"]](order))
    return _figures(order, took_ns), took_ns


def _figures(order: Order, took_ns: Iterator[int]) -> Figures:
    """Take durations until the time is over."""
    clock = time.perf_counter
    for _ in range(3):  # connections, caches
        next(took_ns)
    started_s = clock()
    uncounted, begin_s = 3, started_s + order["seconds"] / 10
    while clock() < begin_s:
        next(took_ns)
        uncounted += 1
    kept: list[int] = []
    cpu_s, begin_s = time.process_time(), clock()
    end_s = begin_s + order["seconds"]
    while clock() < end_s:
        kept.append(next(took_ns))
    elapsed_s, cpu_s = clock() - begin_s, time.process_time() - cpu_s
    kept.sort()
    return Figures(
        requests=len(kept) + uncounted,
        per_s=len(kept) / elapsed_s,
        p50_us=kept[len(kept) // 2] / 1000,
        p99_us=kept[len(kept) * 99 // 100] / 1000,
        cpu_s=cpu_s * (len(kept) + uncounted) / len(kept),
    )


def _one(ask: Ask) -> Iterator[int]:
    clock = time.perf_counter_ns
    while True:
        started_ns = clock()
        ask()
        yield clock() - started_ns


def _many(order: Order) -> Iterator[int]:
    """Keep a request under way on each connection; yield how long each answer took."""
    clock, connected = time.perf_counter_ns, (_connected(order) for _ in range(order["connections"]))
    sockets = {sock.fileno(): sock for sock in connected}
    take: Callable[[socket.socket], object] = receive
    if order["way"] == "http":
        request = Path(order["request"]).read_bytes()
    else:
        request, take = _frame(order, sockets.values()), receive_frame
    started_ns: dict[int, int] = {}
    poll = select.epoll()
    for number, sock in sockets.items():
        poll.register(number, select.EPOLLIN)
        started_ns[number] = clock()
        sock.sendall(request)
    while True:
        events = poll.poll(TIMEOUT_S)
        if not events:
            raise Unanswered("No answer came in time.")
        for number, _ in events:
            take(sockets[number])
            now_ns = clock()
            yield now_ns - started_ns[number]
            started_ns[number] = clock()
            sockets[number].sendall(request)


def _frame(order: Order, sockets: Iterable[socket.socket]) -> bytes:
    """Open the model on connections of the fast path; return the frame that asks for the prediction."""
    from agent.serving.fast_frames import Described, Header, Kind, pack_head

    name, data = order["name"].encode(), Path(order["request"]).read_bytes()
    handle = 0
    for sock in sockets:
        sock.sendall(Header(Kind.OPEN, data_bytes=len(name)).pack() + name)
        handle = receive_frame(sock)
    head = pack_head([Described(INPUT, "float32", tuple(order["shape"]), size_bytes=len(data))])
    infer = Header(Kind.INFER, handle=handle, head_bytes=len(head), data_bytes=len(data))
    return infer.pack() + head + data


def receive_frame(sock: socket.socket) -> int:
    """Take one answer from a connection of the fast path; return its handle.

    Raises:
        Unanswered: It is an error.
    """
    from agent.serving.fast_frames import GOOD, HEADER, unpack_header

    data = sock.recv(RECEIVE_BYTES)
    while len(data) < HEADER.size:
        data += _more(sock)
    header = unpack_header(data)
    missing = HEADER.size + header.head_bytes + header.data_bytes - len(data)
    while missing > 0:
        missing -= len(_more(sock))
    if header.status != GOOD:
        raise Unanswered(data.decode("latin-1"))
    return header.handle


def _http(order: Order) -> Ask:
    sock, request = _connected(order), Path(order["request"]).read_bytes()

    def ask() -> None:
        sock.sendall(request)
        receive(sock)

    return ask


def receive(sock: socket.socket) -> None:
    """Take one answer from a connection.

    Raises:
        Unanswered: It is none, or an error.
    """
    data = sock.recv(RECEIVE_BYTES)
    while (end := data.find(_END)) < 0:
        data += _more(sock)
    head = data[: end + 2].lower()
    if not head.startswith(b"http/1.1 200"):
        raise Unanswered(data.decode("latin-1"))
    at = head.find(_LENGTH)
    if at < 0:
        raise Unanswered(f"The answer does not say its length: {head.decode('latin-1')}")
    missing = end + len(_END) + int(head[at + len(_LENGTH) : head.index(b"\r", at)]) - len(data)
    while missing > 0:
        missing -= len(_more(sock))


def _more(sock: socket.socket) -> bytes:
    data = sock.recv(RECEIVE_BYTES)
    if not data:
        raise Unanswered("The server ended the connection.")
    return data


def _connected(order: Order) -> socket.socket:
    address = order["address"]
    if address.startswith("/"):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(address)
    else:
        host, _, port = address.partition(":")
        sock = socket.create_connection((host, int(port)))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # A timeout of Python's own would cost a system call for each answer.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", int(TIMEOUT_S), 0))
    return sock


def _raw(order: Order) -> Ask:
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(order["address"], options, providers=["CPUExecutionProvider"])
    sample = np.fromfile(order["request"], np.float32).reshape(order["shape"])
    given = {session.get_inputs()[0].name: sample}
    return lambda: session.run(None, given)


def _fast(order: Order) -> Ask:
    import numpy as np

    from agent import client

    connected = client.connect(order["address"])
    model = connected.model(order["name"])
    sample = np.fromfile(order["request"], np.float32).reshape(order["shape"])
    if order["way"] == "fast":
        return lambda: model(sample)
    shared = connected.shared_array(order["shape"], np.float32)
    shared[:] = sample
    [output] = model.outputs
    answer = connected.shared_array([1, *output.shape[1:]], np.float32)
    return lambda: model(shared, outputs={output.name: answer})


if __name__ == "__main__":
    main()
