"""Threads that read a document at once, the first in their process, all read it.

msgspec 0.22 learns a type at its first use, and a second thread that comes meanwhile finds it half learnt:
that is a segmentation fault. An agent that starts in the middle of an update reads two manifests at once.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fleet.protocol.director import DirectorKeys, encode_director_keys
from fleet.protocol.errors import Cause
from fleet.protocol.messages import Record, encode
from fleet.protocol.records import Incident
from tests.support.agent_bundles import build

ROOT = Path(__file__).parents[2]
PROCESSES = 60
PROGRAM = f"""
import os, sys, threading
from fleet.protocol.director import decode_director_keys
from fleet.protocol.manifest import decode_manifest
from fleet.protocol.messages import Record, decode as decode_message

def decode_record(data):
    return decode_message(data, Record)

decode, data = globals()[sys.argv[1]], sys.stdin.buffer.read()
sys.setswitchinterval(1e-6)

def race():
    start, read = threading.Barrier(8), []
    def use():
        start.wait()
        read.append(decode(data))
    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    return len(read)

for _ in range({PROCESSES}):
    child = os.fork()
    if child == 0:
        os._exit(0 if race() == 8 else 1)
    if os.waitpid(child, 0)[1] != 0:
        sys.exit(1)
"""
"""Forks before the first use, so that each of its processes has one of its own."""

MANIFEST = build(1).data
RECORD = encode(Record("0" * 16, 1, Incident(1.0, Cause("storage_error", "Full."))))
KEYS = encode_director_keys(DirectorKeys(("00" * 32,)))


@pytest.mark.parametrize(
    ("decode", "data"),
    [("decode_manifest", MANIFEST), ("decode_director_keys", KEYS), ("decode_record", RECORD)],
)
def test_a_first_use_by_several_threads_is_no_crash(decode: str, data: bytes) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, decode], input=data, cwd=ROOT, check=False)
    assert done.returncode == 0
