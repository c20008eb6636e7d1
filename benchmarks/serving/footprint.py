"""Where an agent's resident memory comes from: a process that becomes an agent step by step, and one that is.

::

    python -m benchmarks.serving.footprint MODEL.onnx      bytes after each step, JSON

The steps are those of an agent's start: the interpreter, NumPy, ONNX Runtime, a session that has answered,
everything else that the agent imports, and then, less than nothing, what it gives back. What a real agent
holds more is its work: sockets, threads, buffers.
"""

from __future__ import annotations

import json
import os
import sys

from benchmarks.serving.processes import Memory, memory

REST = "the agent at work"


def parts(steps: dict[str, int], agent: Memory) -> dict[str, int]:
    """Return what each part adds, in bytes; the sum is what the agent holds.

    Args:
        steps: Resident bytes after each step, in order.
        agent: What a real agent holds.
    """
    added, before = {}, 0
    for step, size_bytes in {**steps, REST: agent.rss_bytes}.items():
        added[step] = size_bytes - before
        before = size_bytes
    return added


def main() -> None:
    """Take the steps."""
    steps: dict[str, int] = {}

    def done(step: str) -> None:
        steps[step] = memory(os.getpid()).rss_bytes

    done("interpreter")
    import numpy as np

    done("numpy")
    import onnxruntime

    done("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
    [given] = session.get_inputs()
    session.run(None, {given.name: np.zeros((1, *given.shape[1:]), np.float32)})
    done("session")
    import agent.daemon  # noqa: F401 - it is what is measured
    from agent.memory import give_back

    done("the agent's modules")
    give_back()
    done("code that ran once, given back")
    sys.stdout.write(json.dumps(steps))


if __name__ == "__main__":
    main()
