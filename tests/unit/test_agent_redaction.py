"""The redaction program, run for real: what it gives back is taken only in the form that it was given."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

import numpy as np
import pytest

from agent.capture.redaction import redact
from fleet.protocol.errors import InvalidMessage, MusterError, Unavailable
from fleet.protocol.samples import SampleTensor, array_of, tensors_of

TENSORS = tensors_of({"x": np.array([[1.0, 2.0, 3.0]], dtype=np.float32)})
READS = "import json, sys; data = sys.stdin.buffer; head = json.loads(data.readline()); rest = data.read()\n"
WRITES = "sys.stdout.buffer.write(json.dumps(head).encode() + b'\\n' + rest)"


def redacted(program: str | Sequence[str], timeout_s: float = 20.0) -> tuple[SampleTensor, ...]:
    """Return the sample as a Python program, or a command, gives it back."""
    command = [sys.executable, "-c", program] if isinstance(program, str) else program
    return asyncio.run(redact(command, timeout_s, "digits", TENSORS))


def test_what_the_program_writes_is_the_sample() -> None:
    (tensor,) = redacted(f"{READS}rest = bytes(4) + rest[4:]\n{WRITES}")
    assert array_of(tensor).tolist() == [[0.0, 2.0, 3.0]]


@pytest.mark.parametrize(
    ("program", "timeout_s", "error"),
    [
        ("raise SystemExit(3)", 20.0, Unavailable),
        (f"{READS}{WRITES}; sys.exit(3)", 20.0, Unavailable),
        ("import time; time.sleep(60)", 0.2, Unavailable),
        (["/no/such/program"], 20.0, Unavailable),
        ("", 20.0, InvalidMessage),
        ("print('{}')", 20.0, InvalidMessage),
        ("import sys; sys.stdout.buffer.write(bytes(10**7))", 20.0, InvalidMessage),
        ("import sys; sys.stdout.write(sys.stdin.readline())", 20.0, InvalidMessage),
        (f"{READS}rest += bytes(1)\n{WRITES}", 20.0, InvalidMessage),
        (f"{READS}head['inputs'][0]['size_bytes'] = 4; rest = rest[:4]\n{WRITES}", 20.0, InvalidMessage),
        (f"{READS}head['inputs'][0]['shape'] = [1, 1]\n{WRITES}", 20.0, InvalidMessage),
        (f"{READS}head['model'] = 'letters'\n{WRITES}", 20.0, InvalidMessage),
    ],
    ids=[
        "fails",
        "fails after all",
        "hangs",
        "is not there",
        "writes nothing",
        "another form",
        "too much",
        "no data",
        "more data",
        "less data",
        "another shape",
        "another model",
    ],
)
def test_anything_else_is_a_failure(
    program: str | list[str], timeout_s: float, error: type[MusterError]
) -> None:
    with pytest.raises(error):
        redacted(program, timeout_s)
