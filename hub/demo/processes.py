"""The demo's processes: hub and agents, each on a leash, so that nothing outlives the demo."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from hub import children

STOP_TIMEOUT_S = 15.0
LOG_TAIL_LINES = 8


class Process:
    """A running command that ends when the demo does, even if the demo is killed.

    Args:
        name: For people.
        arguments: Of ``python -m``.
        log: File for its standard error.
        environment: Added to the demo's own.
    """

    def __init__(
        self, name: str, arguments: Sequence[str], *, log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                children.command("hub.leash", "--", *children.command(*arguments)),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env={**children.environment(), **(environment or {})},
                start_new_session=True,  # Ctrl-C is the demo's to handle
            )

    @property
    def has_ended(self) -> bool:
        """Whether the process is gone."""
        return self._process.poll() is not None

    def let_go(self) -> None:
        """Tell it to stop, without waiting."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def wait(self) -> None:
        """Wait until it has stopped; one that does not is killed."""
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def last_words(self) -> str:
        """Return the end of its log."""
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(lines[-LOG_TAIL_LINES:])


def run_command(arguments: Sequence[str], *, environment: Mapping[str, str], timeout_s: float) -> str:
    """Run ``python -m …`` to its end and return what it printed.

    Raises:
        subprocess.CalledProcessError: It failed; ``stderr`` says why.
        subprocess.TimeoutExpired: It did not end in time.
    """
    done = subprocess.run(
        children.command(*arguments),
        env={**children.environment(), **environment},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=True,
    )
    return done.stdout
