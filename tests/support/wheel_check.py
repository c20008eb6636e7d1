"""Proves that a device needs the base package only: builds the wheel, installs it, runs the agent from it.

The agent is enrolled with a real hub, which runs from this repository's environment, and must download,
verify, test and commit a model. It runs outside the repository, in an environment that has none of the hub's
packages.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.support.hub import HubProcess

ROOT = Path(__file__).parents[2]
FORBIDDEN = (
    "fastapi",
    "sklearn",
    "onnx",
    "typer",
    "rich",
    "sqlite_utils",
    "uvicorn",
    "skl2onnx",
    "amqtt",
    "ai_edge_litert",
    "tflite_runtime",
)
TIMEOUT_S = 60.0


def main() -> int:
    """Return 0 if the wheel passes."""
    sys.path[0] = str(ROOT)  # not this script's folder, whose html.py would hide Python's
    with tempfile.TemporaryDirectory(prefix="muster-wheel-") as name:
        folder = Path(name)
        python = _installed(folder)
        _check_absent(python, folder)
        _check_hub_command_explains(python, folder)
        _run_agent(python, folder)
    print("wheel check: the agent runs from the base package alone")  # noqa: T201 - this is a command
    return 0


def _installed(folder: Path) -> Path:
    """Build the wheel and install it, with the locked base dependencies, into a clean environment."""
    shutil.rmtree(ROOT / "build", ignore_errors=True)  # or files that were removed since would be packed
    _run(
        [
            sys.executable,
            "-m",
            "build",
            "--wheel",
            "--no-isolation",
            "--outdir",
            str(folder / "dist"),
            str(ROOT),
        ]
    )
    [wheel] = (folder / "dist").glob("*.whl")
    _run([sys.executable, "-m", "venv", str(folder / "clean")])
    python = folder / "clean" / "bin" / "python"
    pip = [str(python), "-m", "pip", "install", "--quiet"]
    _run([*pip, "--require-hashes", "--requirement", str(ROOT / "requirements" / "agent.lock")])
    _run([*pip, "--no-deps", str(wheel)])
    return python


def _check_absent(python: Path, folder: Path) -> None:
    look = f"import importlib.util as u; print([m for m in {FORBIDDEN!r} if u.find_spec(m)])"
    found = _run([str(python), "-c", look], cwd=folder).strip()
    if found != "[]":
        raise SystemExit(f"The base package brings {found}.")


def _check_hub_command_explains(python: Path, folder: Path) -> None:
    """``muster`` without the hub's packages says so in one line."""
    done = subprocess.run(
        [str(python.with_name("muster"))], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode != 1 or "muster[hub]" not in done.stderr or "Traceback" in done.stderr:
        raise SystemExit(f"`muster` without the hub's packages says: {done.stderr}")


def _run_agent(python: Path, folder: Path) -> None:
    """Enrol, connect, and install a model that the device itself has tested and tried."""
    from tests.support.hub import HubProcess
    from tests.support.waiting import eventually

    with HubProcess(folder / "hub", broker="embedded") as hub:
        agent, state = str(python.with_name("muster-agent")), str(folder / "device")
        token = hub.client.post("/enrolment-tokens")["token"]
        environment = {**os.environ, "MUSTER_ENROLMENT_TOKEN": token}
        enroll = [agent, "enroll", "--hub", hub.url, "--id", "device-1", "--state", state]
        _run([*enroll, "--setting", "trial_s=1"], cwd=folder, environment=environment)
        process = subprocess.Popen([agent, "run", "--state", state], cwd=folder)
        try:
            eventually(lambda: _device(hub, process)["online"], "the agent is online", timeout_s=TIMEOUT_S)
            hub.train_and_release("digits", estimator="logistic")
            number = hub.client.post("/rollouts", {"model": "digits", "version": 1})["number"]
            hub.client.post(f"/rollouts/{number}/start")
            eventually(
                lambda: [m["phase"] for m in _device(hub, process)["models"]] == ["COMMITTED"],
                "the agent has committed the model",
                timeout_s=TIMEOUT_S,
            )
        finally:
            process.terminate()
            process.wait(TIMEOUT_S)


def _device(hub: HubProcess, process: subprocess.Popen[bytes]) -> dict[str, Any]:
    if process.poll() is not None:
        raise SystemExit("The agent has ended.")
    row: dict[str, Any] = hub.client.get("/devices/device-1")
    return row


def _run(command: list[str], *, cwd: Path = ROOT, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
