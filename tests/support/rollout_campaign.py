"""The life of three rollouts in phases, each of which can be done again, for a process that may be killed.

One version comes to everybody, the next one is harmful and goes back in waves, and beside it another model
comes. As a program it goes on with a folder's campaign, and kills itself with SIGKILL at a statement::

    python -m tests.support.rollout_campaign FOLDER STATEMENT

The number of the phase is in the file ``phase`` of the folder before the phase begins.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

from fleet.protocol.deployment import DeploymentState
from fleet.protocol.messages import ModelState, StateReport
from fleet.protocol.records import DeploymentReport, TelemetryWindow
from fleet.rollout.events import Start
from fleet.rollout.plans.plan import Gate, Plan, Stage
from fleet.rollout.state.rollout import Status
from hub.store.rows import IncomingRecord
from tests.support.agent_bundles import build
from tests.support.rollout_world import Fault, Release, World
from tests.support.rollouts import LABELS
from tests.support.stores import add_device, incoming, say

DEVICES = [f"cam-{number}" for number in range(5)]
RELEASES = (("digits", 1), ("digits", 2), ("faces", 1))
PHASE_S = 3.0
BEGAN_S = 1_700_000_000.0
PLAN = Plan(
    stages=tuple(Stage(devices=devices, minimum_bake_s=5.0, maximum_bake_s=1e6) for devices in (2, "all")),
    gate=Gate(maximum_failed_share=0.4, metrics=(LABELS,)),
    devices_per_minute=60.0,
    rollback_devices_per_minute=10.0,
)

Phase = Callable[[World, int], None]


@cache
def releases() -> dict[tuple[str, int], Release]:
    """Return what may be rolled out."""
    built = {(model, version): build(version, model=model) for model, version in RELEASES}
    return {key: (bundle.sha256, bundle.manifest) for key, bundle in built.items()}


def begin(folder: Path) -> None:
    """Make the file of a hub with its fleet."""
    (folder / "0.db").touch()
    world = World(folder, None, releases())
    for device_id in DEVICES:
        add_device(world.store, device_id)
    world.close()


def run(world: World, first: int, note: Callable[[int], None], break_at: int | None = None) -> int:
    """Run the campaign from one of its phases to its end, and return how many statements it wrote.

    Args:
        world: The hub.
        first: The phase, from 0.
        note: Told the number of each phase before it begins.
        break_at: The statement at which there is a fault; None for none.
    """
    statements = 0
    for number, phase in enumerate(_phases()):
        if number < first:
            continue
        note(number)
        world.now_s = BEGAN_S + number * PHASE_S
        at = None if break_at is None else break_at - statements
        outcome = world.do(lambda world: phase(world, number), break_at=at, fault=Fault.KILLED)  # noqa: B023 - at once
        assert outcome.refusal is None
        statements += outcome.statements
    return statements


def _phases() -> list[Phase]:
    rounds: list[Phase] = [_answer, _advance]
    beginning = [_started(1, "digits", 1), *rounds * 8]
    return [*beginning, _started(2, "digits", 2), _started(3, "faces", 1), *rounds * 14]


def _started(number: int, model: str, version: int) -> Phase:
    def phase(world: World, _: int) -> None:
        """As an operator would who does not know whether he had done it."""
        if len(world.store.rollouts()) < number:
            world.rollouts.create(model, version, plan=PLAN, devices=None, seed=0)
        if world.store.rollout(number).state.status is Status.CREATED:
            world.rollouts.act(number, Start("ann"))

    return phase


def _advance(world: World, _: int) -> None:
    world.rollouts.advance()


def _answer(world: World, phase: int) -> None:
    """Let every device do as it is told, say so, and answer for a while."""
    records: list[IncomingRecord] = []

    def add(device_id: str, body: DeploymentReport | TelemetryWindow) -> None:
        records.append(incoming(device_id, phase * 1000 + len(records), body))

    for device_id in DEVICES:
        desired = world.store.desired(device_id)
        for order in desired.orders:
            for state in (DeploymentState.TRIAL, DeploymentState.SUCCEEDED):
                add(
                    device_id,
                    DeploymentReport(world.now_s, order.deployment_id, order.model, order.version, state),
                )
            add(device_id, _window(order.model, order.version, world.now_s))
        held = tuple(
            ModelState(order.model, order.version, None, None, "COMMITTED", None) for order in desired.orders
        )
        say(world.store, device_id, world.now_s, report=StateReport(world.now_s, desired.sequence, held))
    world.store.add_records(records)


def _window(model: str, version: int, now_s: float) -> TelemetryWindow:
    return TelemetryWindow(
        started_at_s=now_s,
        ended_at_s=now_s + 1.0,
        model=model,
        version=version,
        manifest_sha256=releases()[model, version][0],
        variant="onnx-fp32",
        predictions=1000,
        labelled=1000,
        correct=970 if version == 1 else 300,
    )


class _Mortal(World):
    """A world whose end is that of its process."""

    def _break(self, fault: Fault, committed: bool) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def _main(folder: Path, break_at: int) -> None:
    def note(number: int) -> None:
        (folder / "phase").write_text(str(number))

    run(_Mortal(folder, None, releases()), int((folder / "phase").read_text()), note, break_at)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), int(sys.argv[2]))
