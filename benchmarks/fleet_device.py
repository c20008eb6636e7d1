"""A simulated device, true to the protocol: all that hub and broker see of an agent, and no model.

::

    hello, presence, state ─► assignment: signature, device, sequence number, time ─► DOWNLOADING
       ─► timestamp, snapshot, targets, manifest, asked for part by part; the manifest's digest is the order's
       ─► subscribe, Want, chunks of each file that is not here, SHA-256 ─► VERIFYING, STAGED, TRIAL
       ─► windows of the new version ─► SUCCEEDED, or ROLLED_BACK

Records are numbered and kept until the hub has acknowledged them, and sent again after `RESEND_S` or a new
connection. What comes is asked for again after `STALL_S`. Where it differs from the agent: signatures of the
image repository are not verified (digests are), nothing is written to a disk, nothing is inferred.
"""

from __future__ import annotations

import random
import time
from copy import copy

from benchmarks.fleet_download import Incoming, Steps, update
from benchmarks.fleet_habits import Fate, Fleet
from benchmarks.fleet_link import Link
from benchmarks.fleet_windows import MODEL, VARIANT
from fleet.protocol.assignment import (
    ModelOrder,
    check_acceptable,
)
from fleet.protocol.deployment import DeploymentState
from fleet.protocol.errors import AssignmentReplayed, Cause
from fleet.protocol.manifest import File
from fleet.protocol.messages import (
    PROTOCOL_VERSION,
    Ack,
    Capabilities,
    FetchRequest,
    FileAnswer,
    Hello,
    ModelState,
    Presence,
    Record,
    StateReport,
    Want,
    decode,
    encode,
)
from fleet.protocol.records import DeploymentReport, RecordBody
from fleet.protocol.topics import (
    Down,
    Up,
    blob_subscription,
    device_subscription,
    down,
    parse_chunk,
    up,
)

RESEND_S, STALL_S = 15.0, 10.0
LABELLED_WRONG = 0.05
"""Share of answers whose label contradicts them, in either version."""


class Device:
    """One device.

    Args:
        fleet: Shared with the others.
        device_id: Its name and account.
        password: Of the account.
        capabilities: What it says that it can run.
        running: The version that it has, and its bundle.
        held: Digests of the blobs that it has.
        fate: What befalls it.
        rng: Draws what it does when.
    """

    def __init__(
        self,
        fleet: Fleet,
        device_id: str,
        password: str,
        capabilities: Capabilities,
        *,
        running: tuple[int, str],
        held: frozenset[str],
        fate: Fate,
        rng: random.Random,
    ) -> None:
        self.id, self.password = device_id, password
        self.fate = fate
        self.connected = False
        self.attempts = 0
        self.outbox: dict[int, tuple[bytes, float]] = {}
        self.last_number = 0
        self.predictions: dict[int, int] = {}
        self.version, self._digest = running
        self.outcome: DeploymentState | None = None
        self._fleet, self._capabilities, self._rng = fleet, capabilities, rng
        self._stream = f"{rng.getrandbits(64):016x}"
        self._sequence = 1
        self._deployment = ""
        self._link: Link | None = None
        self._held = held
        self._order: ModelOrder | None = None
        self._steps: Steps | None = None
        self._asked: tuple[str, int] | None = None
        self._blob: Incoming | None = None
        self._requests = 0
        self._progress_s = 0.0
        self._trial_ends_s: float | None = None
        self._phase = "COMMITTED"
        now_s = time.time()
        self._heartbeat_due_s = now_s + rng.random() * fleet.habits.heartbeat_s
        self._window_due_s = now_s + rng.random() * fleet.habits.window_s
        self._window_begun_s = now_s
        self._topics = {channel: up(device_id, channel) for channel in Up}
        self._down = {down(device_id, channel): channel for channel in Down}

    @property
    def stream(self) -> str:
        """Of its records."""
        return self._stream

    def new_link(self) -> Link:
        """Return the next connection."""
        self._link = Link(self, self.id, self.password, self._fleet.traffic)
        return self._link

    def on_connected(self) -> None:
        """Subscribe, announce, and take up what was under way."""
        assert self._link is not None
        self._link.subscribe(device_subscription(self.id), self._announce)

    def _announce(self) -> None:
        self.connected, self.attempts = True, 0
        self._say(Up.HELLO, encode(Hello(PROTOCOL_VERSION, self._sequence, self._capabilities)))
        self._say(Up.PRESENCE, encode(Presence(online=True)))
        self._report()
        self._send_records(older_than_s=0.0)
        self._ask_again()

    def on_lost(self) -> None:
        """Come back after a while, longer each time."""
        self.connected, self._link = False, None
        self.attempts += 1
        wait_s = min(8.0, 0.25 * 2**self.attempts) * self._rng.uniform(0.5, 1.0)
        if self.fate is Fate.AWAY and self._phase == "TRIAL":
            wait_s = self._fleet.habits.away_s
        self._fleet.reconnect(self, wait_s)

    def on_message(self, topic: str, payload: bytes) -> None:
        """Take a message from the broker to what it is for."""
        match self._down.get(topic):
            case Down.ACK:
                for number in decode(payload, Ack).numbers:
                    self.outbox.pop(number, None)
            case Down.ASSIGNMENT:
                self._take_assignment(payload)
            case Down.FILE:
                self._take_file(decode(payload, FileAnswer))
            case None:
                self._take_chunk(topic, payload)

    def tick(self, now_s: float) -> None:
        """Do what is due."""
        habits = self._fleet.habits
        if self._trial_ends_s is not None and now_s >= self._trial_ends_s:
            self._end_trial(now_s)
        if now_s >= self._window_due_s:
            self._close_window(now_s)
            self._window_due_s = now_s + habits.window_s
        if not self.connected:
            return
        if now_s >= self._heartbeat_due_s:
            self._report()
            self._send_records(older_than_s=RESEND_S)
            self._heartbeat_due_s = now_s + habits.heartbeat_s
        if self._steps is not None and now_s > self._progress_s + STALL_S:
            self._ask_again()

    def send_again(self) -> None:
        """Send what was not acknowledged for long."""
        if self.connected:
            self._send_records(older_than_s=RESEND_S)

    def close(self) -> None:
        """End the connection in order."""
        if self._link is not None:
            self._link.close()

    # Orders ------------------------------------------------------------------------------------------

    def _take_assignment(self, message: bytes) -> None:
        assignment = self._fleet.opened(message)
        try:
            check_acceptable(assignment, device_id=self.id, last_sequence=self._sequence, now_s=time.time())
        except AssignmentReplayed:  # the hub has not heard yet that it was accepted
            self._report()
            return
        self._sequence = assignment.sequence
        for order in assignment.models:
            if order.model == MODEL and order.deployment_id != self._deployment:
                self._begin(order)
        self._report()

    def _begin(self, order: ModelOrder) -> None:
        self._order, self._deployment = order, order.deployment_id
        self._steps = self._blob = self._asked = self._trial_ends_s = None
        if order.version == self.version:
            self._phase = "COMMITTED"
            self._tell(DeploymentState.SUCCEEDED)
            return
        self._fleet.ordered_s.append(time.perf_counter())
        self._enter(DeploymentState.DOWNLOADING)
        self._steps = update(order, self._held)
        self._advance(None)
        if self.fate is Fate.RECONNECTS and self._link is not None:
            self._link.abort()

    def _advance(self, answer: FileAnswer | None) -> None:
        """Take the next step of the update."""
        assert self._steps is not None
        self._asked = self._blob = None
        try:
            step = self._steps.send(answer)
        except StopIteration:
            self._steps = None
            self._install()
            return
        if isinstance(step, File):
            self._blob = Incoming(step)
        else:
            self._asked = step
            self._requests += 1
        self._ask_again()

    def _ask_again(self) -> None:
        """Ask for what the update waits for."""
        self._progress_s = time.time()
        if self._asked is not None:
            self._say(Up.FETCH, encode(FetchRequest(self._requests, *self._asked)))
        elif self._blob is not None and self._link is not None and self.connected:
            self._link.subscribe(blob_subscription(self._blob.file.sha256), self._want)

    def _want(self) -> None:
        if self._blob is not None:
            self._say(Up.WANT, encode(Want(self._blob.file.sha256, self._blob.missing())))

    def _take_file(self, answer: FileAnswer) -> None:
        if self._asked is not None and answer.request_id == self._requests:
            self._advance(answer)

    def _take_chunk(self, topic: str, data: bytes) -> None:
        at = parse_chunk(topic)
        if at is None or self._blob is None or at.sha256 != self._blob.file.sha256:
            return
        if self._blob.take(at.number, data):
            self._progress_s = time.time()
        if self._blob.is_whole():
            self._held |= {at.sha256}
            assert self._link is not None
            self._link.unsubscribe(blob_subscription(at.sha256))
            self._advance(None)

    def _install(self) -> None:
        self._enter(DeploymentState.VERIFYING)
        self._enter(DeploymentState.STAGED)
        self._enter(DeploymentState.TRIAL)
        assert self._order is not None
        now_s = time.time()
        self._close_window(now_s)
        self.version, self._digest = self._order.version, self._order.manifest_sha256.hex()
        self._trial_ends_s = now_s + self._fleet.habits.trial_s
        self._report()
        if self.fate is Fate.AWAY and self._link is not None:
            self._link.abort()

    def _end_trial(self, now_s: float) -> None:
        self._trial_ends_s = None
        self._close_window(now_s)
        self._phase = "COMMITTED"
        if self.fate is Fate.FAILS:
            self.version, self._digest = self._fleet_version_before()
            cause = Cause("self_test_failed", "The trial failed, as it was drawn.")
            self._tell(DeploymentState.ROLLED_BACK, cause)
        else:
            self._tell(DeploymentState.SUCCEEDED)
        self._report()

    def _fleet_version_before(self) -> tuple[int, str]:
        before = min(self._fleet.windows)
        return before, self._fleet.windows[before][0].manifest_sha256

    # What it says ------------------------------------------------------------------------------------

    def _enter(self, state: DeploymentState) -> None:
        self._phase = state.value
        self._tell(state)

    def _tell(self, state: DeploymentState, cause: Cause | None = None) -> None:
        assert self._order is not None
        if state.is_terminal and self.outcome is None:
            self.outcome = state
        report = DeploymentReport(time.time(), self._deployment, MODEL, self._order.version, state, cause)
        self._keep(report)

    def _close_window(self, now_s: float) -> None:
        """Keep a window of what the version answered since the last one."""
        bodies = self._fleet.windows[self.version]
        window = copy(bodies[self._rng.randrange(len(bodies))])
        window.started_at_s, window.ended_at_s = self._window_begun_s, now_s
        window.labelled = window.predictions
        window.correct = sum(self._rng.random() >= LABELLED_WRONG for _ in range(window.predictions))
        self._window_begun_s = now_s
        self.predictions[self.version] = self.predictions.get(self.version, 0) + window.predictions
        self._keep(window)

    def _keep(self, body: RecordBody) -> None:
        """Put a record into the outbox and send it."""
        self.last_number += 1
        message = encode(Record(self._stream, self.last_number, body))
        self.outbox[self.last_number] = message, time.time()
        self._say(Up.RECORD, message)

    def _send_records(self, *, older_than_s: float) -> None:
        now_s = time.time()
        for number, (message, sent_s) in self.outbox.items():
            if now_s - sent_s >= older_than_s:
                self.outbox[number] = message, now_s
                self._say(Up.RECORD, message)

    def _report(self) -> None:
        model = ModelState(MODEL, self.version, self._digest, VARIANT, self._phase, self._deployment or None)
        self._say(Up.STATE, encode(StateReport(time.time(), self._sequence, (model,), len(self.outbox))))

    def _say(self, channel: Up, payload: bytes) -> None:
        if self.connected and self._link is not None:
            self._link.publish(self._topics[channel], payload)
