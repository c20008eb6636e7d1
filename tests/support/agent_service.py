"""An agent as a service: its manager's socket, models that hang or take time, a loop that can be blocked."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from benchmarks.bundles import Build
from fleet.protocol.manifest import Signature, Tensor
from tests.support.agent_bundles import GOLDEN, MODEL, VARIANT, Bundle, pack
from tests.support.agent_device import Device
from tests.support.processes import end
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]
ROUNDS_FOR_EVER = 2**62

_BLOCKABLE = """
import signal, sys, time
signal.signal(signal.SIGUSR1, lambda *_: time.sleep(3600))
from agent.cli import main
raise SystemExit(main(sys.argv[1:]))
"""
"""The agent, whose main thread, which is the event loop's, is blocked by SIGUSR1."""

_PATIENT = """
from agent import daemon
daemon.DRAIN_S = daemon.STOP_S = 60.0
"""
"""Before the agent: what is under way at its end is waited for, so that a test need not be quick."""

_HOLDABLE = """
import fcntl, sys
from agent.runtimes.onnx import OnnxModel
daemon.STOP_LIMIT_S = 60.0
infer, lock = OnnxModel.infer, sys.argv.pop(1)
def infer_when_let(*args):
    with open(lock) as let:
        fcntl.flock(let, fcntl.LOCK_SH)
    return infer(*args)
OnnxModel.infer = infer_when_let
from agent.cli import main
raise SystemExit(main(sys.argv[1:]))
"""
"""After `_PATIENT`: the agent, whose models compute while nobody holds a lock."""


class ServiceManager:
    """The socket of a service manager.

    Args:
        address: A path, or a name in the abstract namespace that begins with ``@``.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address[0] == "@" else address)
        self._socket.setblocking(False)
        self.told: list[str] = []

    def lines(self) -> list[str]:
        """Return every line that was told so far."""
        while True:
            try:
                self.told += self._socket.recv(65536).decode().splitlines()
            except BlockingIOError:
                return self.told

    def wait(self, line: str) -> None:
        """Wait until a line has been told."""
        eventually(lambda: line in self.lines(), f"the manager is told {line}")

    def signs_of_life(self) -> int:
        """Return how many came so far."""
        return self.lines().count("WATCHDOG=1")

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()


class Service(Device):
    """A device whose agent can be blocked and leaves a readable log."""

    program: tuple[str, ...] = (_BLOCKABLE,)

    def start(self) -> None:
        """Start the agent."""
        command = [sys.executable, "-W", "error", "-c", *self.program, "run", "--state", str(self.state)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(command, stderr=self._log, env=environment)

    def block(self) -> None:
        """Block the event loop for good."""
        assert self._process is not None
        self._process.send_signal(signal.SIGUSR1)

    @contextmanager
    def held_models(self) -> Iterator[None]:
        """Let no model compute for the time of a block, in an agent that was started holdable."""
        with self._lock.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def become_holdable(self) -> None:
        """Do what `become_patient` does, and make it one whose models can be held up."""
        self._lock.touch()
        self.program = (_PATIENT + _HOLDABLE, str(self._lock))

    def become_patient(self) -> None:
        """Make an agent that starts from now on one that waits for what is under way at its end."""
        self.program = (_PATIENT + _BLOCKABLE,)

    @property
    def _lock(self) -> Path:
        return self.state.with_name(f"{self.id}.lock")

    def begin_end(self) -> None:
        """Ask it to end, and do not wait."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)

    def end(self, how: signal.Signals) -> tuple[int, float]:
        """Send a signal; return the exit code and how long the end took it, in seconds."""
        assert self._process is not None
        took_s = end(self._process, how)
        return self._process.returncode, took_s

    def wait_ended(self) -> int:
        """Return the exit code, when it has ended."""
        assert self._process is not None
        return self._process.wait(20)

    def log_entries(self) -> list[dict[str, Any]]:
        """Return the log, decoded; a line that is no JSON fails the test."""
        return [msgspec.json.decode(line) for line in self._log_lines()]

    def _log_lines(self) -> list[str]:
        return self.state.with_name(f"{self.id}.log").read_text("utf-8").splitlines()


def build_working(version: int) -> Bundle:
    """Build a model that computes for ever, in native code, when its numbers add up to less than zero."""
    numbers = np.random.default_rng(7).random((GOLDEN, 4)).astype(np.float32)
    signature = Signature(
        inputs=(Tensor("pixels", "float32", (-1, 4)),),
        outputs=(Tensor("probabilities", "float32", (-1, 4)),),
        classes=tuple("abcd"),
    )
    shifted = np.exp(numbers - numbers.max(axis=1, keepdims=True))
    outputs = shifted / shifted.sum(axis=1, keepdims=True)
    data = _loop(ROUNDS_FOR_EVER)
    return pack(MODEL, version, signature, {"pixels": numbers}, outputs, Build(VARIANT, "model.onnx", data))


def _loop(rounds: int) -> bytes:
    """Return ``softmax(pixels)`` after a loop that changes nothing, of so many rounds for a sum below zero.

    The loop carries the pixels and adds zero to them: a graph optimizer cannot know that it is zero, for it
    is the product of an input and a constant.
    """
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_on"], ["go_on_out"]),
            helper.make_node("Add", ["carried", "nothing"], ["carried_out"]),
        ],
        "round",
        [
            helper.make_tensor_value_info("number", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("carried", TensorProto.FLOAT, ["N", 4]),
        ],
        [
            helper.make_tensor_value_info("go_on_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("carried_out", TensorProto.FLOAT, ["N", 4]),
        ],
    )
    nodes = [
        helper.make_node("ReduceSum", ["pixels"], ["sum"], keepdims=0),
        helper.make_node("Less", ["sum", "zero"], ["is_negative"]),
        helper.make_node("Where", ["is_negative", "many", "none"], ["rounds"]),
        helper.make_node("Mul", ["pixels", "zero"], ["nothing"]),
        helper.make_node("Loop", ["rounds", "", "pixels"], ["same"], body=body),
        helper.make_node("Softmax", ["same"], ["probabilities"], axis=1),
    ]
    constants = {
        "zero": np.array(0, dtype=np.float32),
        "many": np.array(rounds, dtype=np.int64),
        "none": np.array(0, dtype=np.int64),
    }
    graph = helper.make_graph(
        nodes,
        "working",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    data: bytes = model.SerializeToString()
    return data
