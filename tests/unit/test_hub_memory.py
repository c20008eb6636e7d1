"""Threads of the hub share one heap: what is allocated in any of them lies in it."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

# In a process of its own, for it is the process that changes.
SCRIPT = """
import ctypes, threading
from pathlib import Path
from hub.memory import share_heap

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
shares = {shares} and share_heap()
at, places = threading.Barrier(4), []

def allocate():
    at.wait()
    places.append(libc.malloc(1000))
    at.wait()

threads = [threading.Thread(target=allocate) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
line = next(line for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith("[heap]"))
start, end = (int(part, 16) for part in line.split()[0].split("-"))
print(shares, sum(start <= place < end for place in places))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives threads heaps of their own")
@pytest.mark.parametrize(("shares", "said"), [(True, "True 4"), (False, "False 0")])
def test_threads_share_the_heap_once_they_are_told_to(shares: bool, said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(shares=shares)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == said
