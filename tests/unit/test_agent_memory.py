"""The agent's memory: what there is under which limit, and what is given back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from agent.memory import measure_memory
from tests.support.memory_limit import memory_group

MIB = 1024**2
ROOT = Path(__file__).parents[2]

MEASURE = """
from agent.memory import measure_memory
before = measure_memory()
used = b"\\1" * 30_000_000
print(*before, *measure_memory())
"""
GIVE_BACK = """
import numpy, onnxruntime
from agent.memory import give_back
from tests.support.agent_models import linear
def resident_kb():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmRSS")).split()[1])
model = linear(numpy.ones((4, 3), numpy.float32))
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
ask = lambda: session.run(None, {"pixels": numpy.ones((1, 4), numpy.float32)})[0].tolist()
answer, before = ask(), resident_kb()
give_back()
print(before, resident_kb(), ask() == answer)
"""


def _run(script: str, *prefix: str) -> list[str]:
    command = [*prefix, sys.executable, "-c", script]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()


def test_a_control_groups_limit_counts_and_what_is_used_is_not_free() -> None:
    with memory_group(90 * MIB) as group:
        limit, free, limit_again, free_again = map(int, _run(MEASURE, *group.prefix))
    assert limit == limit_again == 90 * MIB
    assert 60 * MIB < free < 90 * MIB
    assert 25_000_000 < free - free_again < 35_000_000


def test_without_a_limit_it_is_the_machines(tmp_path: Path) -> None:
    _kernel(tmp_path, groups="", mounts="")
    memory = measure_memory(tmp_path)
    assert memory == (1000 * 1024, 600 * 1024)


@pytest.mark.parametrize("root", ["/", "/outer"], ids=["host", "container"])
def test_the_least_limit_on_the_way_to_the_root_counts(tmp_path: Path, root: str) -> None:
    """Control groups of version 2, as files that the kernel would show."""
    mounted = tmp_path / "unified"
    inner = mounted / ("outer/inner" if root == "/" else "inner")
    inner.mkdir(parents=True)
    _limit(inner, "max", 9)
    _limit(inner.parent, str(500 * 1024), 300 * 1024)
    _kernel(
        tmp_path,
        groups="0::/outer/inner\n",
        mounts=f"36 25 0:32 {root} {mounted} rw - cgroup2 cgroup2 rw\n",
    )
    assert measure_memory(tmp_path) == (500 * 1024, (500 - 300 + 50 + 40) * 1024)


def test_memory_is_given_back_and_the_model_still_answers() -> None:
    before, after, is_same = _run(GIVE_BACK)
    assert int(after) < int(before) - 8 * 1024
    assert is_same == "True"


def test_the_agent_starts_without_what_it_needs_later_or_never() -> None:
    script = "import sys, agent.daemon; print(*{name.partition('.')[0] for name in sys.modules})"
    late = {"tuf", "securesystemslib", "urllib3", "onnxruntime", "ai_edge_litert", "tflite_runtime"}
    assert late.isdisjoint(_run(script))


def _limit(group: Path, limit: str, used_bytes: int) -> None:
    (group / "memory.max").write_text(f"{limit}\n")
    (group / "memory.current").write_text(f"{used_bytes}\n")
    (group / "memory.stat").write_text(f"anon 7\nactive_file {50 * 1024}\ninactive_file {40 * 1024}\n")


def _kernel(proc: Path, *, groups: str, mounts: str) -> None:
    (proc / "self").mkdir()
    (proc / "meminfo").write_text("MemTotal:  1000 kB\nMemFree:  1 kB\nMemAvailable:  600 kB\n")
    (proc / "self" / "cgroup").write_text(groups)
    (proc / "self" / "mountinfo").write_text(mounts)
