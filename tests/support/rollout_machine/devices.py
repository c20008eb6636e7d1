"""What devices send: what became of their orders, what they hold, and what they answered."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hypothesis import strategies as st

from fleet.protocol.deployment import DeploymentState
from fleet.protocol.errors import Cause
from fleet.protocol.messages import ModelState, StateReport
from fleet.protocol.records import DeploymentReport, RecordBody, TelemetryWindow
from hub.store.rows import IncomingRecord
from tests.support.rollout_machine.counted import marked
from tests.support.rollout_machine.fleet import MODELS, releases
from tests.support.rollout_machine.two_hubs import TwoHubs
from tests.support.rollout_world import World
from tests.support.stores import incoming, say

States = Sequence[tuple[DeploymentState, Cause | None]]
"""What a device reports of an order, one after the other, with its cause."""

TRANSPORT = Cause("delivery_timed_out", "The bytes did not arrive.")
BROKEN = Cause("golden_mismatch", "It answers otherwise.")
SUCCEEDED: States = ((DeploymentState.TRIAL, None), (DeploymentState.SUCCEEDED, None))
LOST: States = ((DeploymentState.DOWNLOADING, None), (DeploymentState.FAILED, TRANSPORT))
BACK_BY_ITSELF: States = ((DeploymentState.TRIAL, None), (DeploymentState.ROLLED_BACK, BROKEN))


class Senders(TwoHubs):
    """The devices of both hubs, whose records have one numbering.

    Args:
        template: The file that both hubs begin with.
    """

    def __init__(self, template: Path) -> None:
        super().__init__(template)
        self.number = 0
        self.runs: dict[tuple[str, str], int] = {}

    def answer(self, data: st.DataObject, devices: list[str], states: States) -> None:
        """Let devices report states of the orders that they have."""
        number = self.number
        self.both(data, lambda world: self.follow_orders(world, devices, states, number))

    def follow_orders(
        self, world: World, devices: list[str], states: States, number: int | None = None
    ) -> None:
        """Let devices of one hub report states of their orders, and all of what they are.

        Args:
            world: The hub.
            devices: Which devices.
            states: What they report.
            number: Records are numbered from here, so that those of the same work are the same.
        """
        self.number = self.number if number is None else number
        records = [record for device_id in devices for record in self._reports(world, device_id, states)]
        world.store.add_records(records)
        self.sent += records

    def _reports(self, world: World, device_id: str, states: States) -> list[IncomingRecord]:
        """Return what a device reports of its orders, and let it say what it holds."""
        desired = world.store.desired(device_id)
        records = []
        for order in desired.orders:
            for state, cause in states:
                body = DeploymentReport(
                    world.now_s, order.deployment_id, order.model, order.version, state, cause
                )
                records.append(self.record(device_id, body))
            if states[-1][0] is DeploymentState.SUCCEEDED:
                self.runs[device_id, order.model] = order.version
        held = tuple(
            ModelState(order.model, order.version, None, None, "COMMITTED", None) for order in desired.orders
        )
        for model in MODELS:
            if model not in {order.model for order in desired.orders}:
                self.runs.pop((device_id, model), None)
        say(world.store, device_id, world.now_s, report=StateReport(world.now_s, desired.sequence, held))
        return records

    def windows(self, wrong: int) -> list[IncomingRecord]:
        """Return two seconds of telemetry of all that devices run.

        Args:
            wrong: How many of 1,000 answers of versions above 1 are; above 1,000 they contradict themselves.
        """
        now_s = self.world.now_s
        return [
            self.record(
                device_id,
                TelemetryWindow(
                    started_at_s=now_s,
                    ended_at_s=now_s + 2.0,
                    model=model,
                    version=version,
                    manifest_sha256=releases()[model, version][0],
                    variant="onnx-fp32",
                    predictions=1000,
                    labelled=1000 if wrong <= 1000 or version == 1 else wrong,
                    correct=1000 - (min(wrong, 1000) if version > 1 else 30),
                    latency=marked(self.number, durations=900),
                ),
            )
            for (device_id, model), version in self.runs.items()
        ]

    def record(self, device_id: str, body: RecordBody) -> IncomingRecord:
        """Return a record of the next number."""
        self.number += 1
        return incoming(device_id, self.number, body)
