"""The first run of a TFLite file, in a process of its own with limited memory and time.

`converters.tflite.inspect` finds files that would lead LiteRT to foreign memory. It cannot tell what a
well-formed but senseless graph does: one wrong byte in a shape asks for gigabytes, and kernels may end the
process. So a file that nobody vouches for runs here first. The child answers probes and ends; what becomes of
it decides.

The file goes to the child's standard input; an error's code and message come back on its standard output.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

from fleet.protocol.errors import InvalidModel, MusterError, error_of

MEMORY_BYTES = 2 * 1024**3
"""What a model may take beside eight times its size, which is its file, its copy and packed weights."""

TIMEOUT_S = 120
_REFUSED = 3
_PACKAGES_FOLDER = Path(__file__).parents[2]


def check_runs(data: bytes, name: str) -> None:
    """Run a file on probes in a child process.

    Args:
        data: The file, accepted by ``inspect_tflite``.
        name: What to call it in messages.

    Raises:
        InvalidModel: It fails, ends the process, or takes too much memory or time.
        UnsupportedOperator: It needs an operator that LiteRT does not have.
    """
    command = [sys.executable, "-P", "-m", __name__, name]  # -P: nothing is imported from the working folder
    convert_again = "Convert the model again, or distrust whoever sent it."
    try:
        done = subprocess.run(
            command, input=data, capture_output=True, timeout=TIMEOUT_S, check=False, env=_environment()
        )
    except subprocess.TimeoutExpired as error:
        raise InvalidModel(
            f"{name} does not answer one sample within {TIMEOUT_S} seconds.", remedy=convert_again
        ) from error
    if done.returncode == _REFUSED:
        code, _, message = done.stdout.decode(errors="replace").partition("\n")
        raise error_of(code)(message)
    if done.returncode < 0:
        ended = signal.Signals(-done.returncode).name
        raise InvalidModel(f"{name} ends the process that runs it ({ended}).", remedy=convert_again)
    if done.returncode:
        raise InvalidModel(
            f"{name} cannot be run within {MEMORY_BYTES + 8 * len(data)} bytes of memory.",
            remedy=convert_again,
        )


def main() -> int:
    """Answer probes with the file on standard input; return the exit code."""
    from converters.sources.tflite_file import read_tflite

    data = sys.stdin.buffer.read()
    limit = _own_memory_bytes() + MEMORY_BYTES + 8 * len(data)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        read_tflite(data, sys.argv[1])
    except MusterError as error:
        sys.stdout.write(f"{error.code}\n{error}")
        return _REFUSED
    return 0


def _environment() -> dict[str, str]:
    """Return this process's environment, where Python finds our packages whatever the working folder is."""
    paths = (str(_PACKAGES_FOLDER), os.environ.get("PYTHONPATH", ""))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}


def _own_memory_bytes() -> int:
    """Return what this process has taken before the model; 0 where the system does not tell."""
    status = Path("/proc/self/statm")
    return int(status.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE") if status.exists() else 0


if __name__ == "__main__":
    sys.exit(main())
