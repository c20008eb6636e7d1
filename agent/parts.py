"""What an agent is made of, and who tells whom.

::

    broker ── Link ──┬── assignment → Director → Models (one life each) → Host ── InferenceApi ── Unix socket
                     ├── file       → FileClient → ImageRepository          │
                     ├── chunk      → Delivery → BlobStore → Slots          ▼
                     ├── ack        → Sender ← Outbox ← reports, incidents, Recorder
                     └── hello, presence, state ← Announcer

Everything here lives in one event loop; blocking work is in threads. `agent.daemon` starts and ends it.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from agent import capabilities
from agent.announcement import Announcer, last_will
from agent.backoff import Backoff
from agent.blobs import BlobStore
from agent.capture.capture import Capture
from agent.capture.sender import SampleSender
from agent.connection import Done
from agent.delivery import Delivery
from agent.hosting.host import Host
from agent.identity import read_identity
from agent.life.choice import Chooser
from agent.life.gate import Gate
from agent.life.measurements import Measurements
from agent.life.models import Models
from agent.life.opening import Opener
from agent.life.shell import Surroundings
from agent.life.slots import Slots
from agent.life.store import LifeStore
from agent.life.work import Workshop
from agent.log import recent_lines
from agent.mqtt import Link
from agent.orders import Orders
from agent.remote import Remote
from agent.sensors import Board, Sensors
from agent.serving.local_servers import LocalServers
from agent.settings import read_settings
from agent.telemetry.incidents import Incidents
from agent.telemetry.noise import WORD_FILE, CountNoise
from agent.telemetry.outbox import Outbox
from agent.telemetry.reception import Reception
from agent.telemetry.recorder import Recorder
from agent.telemetry.sender import Sender
from agent.trust.director import Director
from agent.trust.fetcher import FileClient
from agent.trust.image_repository import ImageRepository
from fleet.protocol.assignment import Assignment
from fleet.protocol.errors import InvalidMessage, MusterError
from fleet.protocol.topics import Down, Up, device_subscription, down, parse_chunk, up

if TYPE_CHECKING:
    from agent.diagnostics import Live


class Parts:
    """The parts of one device's agent. Nothing of it runs yet.

    Args:
        state: The state folder of an enrolled device, locked by the caller.

    Raises:
        InvalidConfiguration: The folder is not enrolled, or a setting cannot be used.
        StorageError: The folder cannot be used.
    """

    def __init__(self, state: Path) -> None:
        self._loop = asyncio.get_running_loop()
        self._state = state
        self.identity = read_identity(state)
        self.settings = read_settings(state)
        self.spare = asyncio.Event()
        """Set when memory may have become unused."""
        self.outbox = Outbox(state / "outbox.sqlite", self.settings.outbox_budget_bytes)
        self.incidents = Incidents(self.outbox, time.time)
        self.link = self._build_link()
        self.sender = self._build_sender()
        self.files = self._build_files()
        self.repository = ImageRepository(state / "trust", self.identity.root, self.files)
        self.host = Host()
        self.noise = self._build_noise()
        self.recorder = self._build_recorder()
        self.blobs = BlobStore(state / "blobs")
        self.delivery = self._build_delivery()
        self.gate = Gate(state, self.settings, self._on_change)
        self.slots = Slots(state / "models", self.blobs)
        self.models = self._build_models()
        self.capture = self._build_capture()
        self.samples = self._build_samples()
        self.remote = self._build_remote()
        self.director = Director(state / "trust", self.identity.device_id)
        self.board = self._build_board()
        self.announcer = self._build_announcer()
        self.orders = self._build_orders()
        self.servers = self._build_servers()
        self._topics = {down(self.identity.device_id, channel): channel for channel in Down}

    # What each is given ------------------------------------------------------

    def _build_link(self) -> Link:
        device_id = self.identity.device_id
        return Link(
            device_id,
            self.identity.broker,
            will=last_will(device_id),
            handler=self._on_message,
            on_connected=self._on_connected,
            on_error=self._on_incident,
            backoff=self._new_backoff(),
            keepalive_s=self.settings.keepalive_s,
        )

    def _build_sender(self) -> Sender:
        return Sender(
            self.identity.device_id, self.outbox, self.link, self.settings, on_incident=self._on_incident
        )

    def _build_files(self) -> FileClient:
        return FileClient(
            partial(self.link.publish, up(self.identity.device_id, Up.FETCH)),
            self.link.wait_connected,
            timeout_s=self.settings.fetch_timeout_s,
            attempts=self.settings.fetch_attempts,
            backoff=self._new_backoff,
        )

    def _build_noise(self) -> CountNoise:
        epsilon = self.settings.count_noise_epsilon
        return CountNoise(epsilon, self.host, self.outbox, word=self._state / WORD_FILE)

    def _build_recorder(self) -> Recorder:
        return Recorder(
            self.outbox, self.host.close_windows, wake=self.sender.wake, on_incident=self._on_incident
        )

    def _build_delivery(self) -> Delivery:
        return Delivery(
            self.identity.device_id,
            self.link,
            self.blobs,
            self.settings,
            on_incident=self._on_incident,
            backoff=self._new_backoff,
        )

    def _build_models(self) -> Models:
        able = partial(capabilities.measure, self._state)
        opener = Opener(self.settings, self._on_incident_in_thread)
        chooser = Chooser(
            self.slots,
            Measurements(self._state / "variants.json", self.settings),
            self.outbox,
            opener.open,
            capabilities=able,
            timeout_s=self.settings.inference_timeout_s,
            on_incident=self._on_incident,
        )
        around = Surroundings(
            store=LifeStore(self._state / "life"),
            slots=self.slots,
            host=self.host,
            outbox=self.outbox,
            workshop=Workshop(
                self.repository,
                self.delivery,
                self.slots,
                self.host,
                chooser,
                opener=opener,
                gate=self.gate,
                settings=self.settings,
                capabilities=able,
                on_incident=self._on_incident,
                keep=self.recorder.keep_report,
            ),
            on_change=self._on_change,
            on_incident=self._on_incident,
        )
        return Models(around, self.blobs)

    def _build_capture(self) -> Capture:
        return Capture(
            self._state,
            self.settings,
            self.host,
            on_sample=self._wake_samples,
            on_incident=self._on_incident,
        )

    def _build_samples(self) -> SampleSender:
        return SampleSender(
            self.identity.device_id,
            self.capture.spool,
            self.link,
            waiting_records=self.recorder.waiting_records,
            resend_s=self.settings.resend_interval_s,
        )

    def _build_remote(self) -> Remote:
        return Remote(
            self._state,
            self.settings,
            self.gate,
            self.outbox,
            live=self._live,
            on_answer=self.sender.wake,
            on_incident=self._on_incident,
        )

    def _build_board(self) -> Board:
        return Board(
            Sensors(),
            interval_s=self.settings.sensors_interval_s,
            window_s=self.settings.telemetry_interval_s,
        )

    def _build_announcer(self) -> Announcer:
        settings = self.settings
        return Announcer(
            self.identity.device_id,
            self.link,
            settings,
            sequence=lambda: self.director.sequence,
            capabilities=lambda: capabilities.measure(
                self._state,
                captures_samples=settings.allow_sample_capture,
                count_noise_epsilon=self.noise.epsilon,
            ),
            states=self.models.states,
            waiting_records=self.recorder.waiting_records,
            board=lambda: self.board.window,
            samples=self.capture.counts,
        )

    def _build_orders(self) -> Orders:
        return Orders(
            self.director,
            self.repository,
            refresh_interval_s=self.settings.trust_refresh_interval_s,
            apply=self._apply,
            on_incident=self._on_incident,
            backoff=self._new_backoff(),
        )

    def _build_servers(self) -> LocalServers:
        reception = Reception(self.models, self.slots, self.outbox, self.sender.wake)
        return LocalServers(self._state, self.settings, self.host, self.models, reception)

    # Who tells whom ----------------------------------------------------------

    def _on_message(self, topic: str, payload: bytes, done: Done) -> None:
        """Take a message from the broker to the part it is for."""
        try:
            chunk = parse_chunk(topic)
            if chunk is not None:
                self.delivery.on_chunk(chunk, payload, done)
                return
        except MusterError as error:
            self._on_incident(error)
            return
        try:
            match self._topics.get(topic):
                case Down.ASSIGNMENT:
                    self.orders.on_assignment(payload)
                case Down.FILE:
                    self.files.on_answer(payload)
                case Down.ACK:
                    if not self.samples.on_ack(payload):
                        self.sender.on_ack(payload)
                case None:
                    raise InvalidMessage(f"A message came on the unknown topic {topic!r:.120}.")
        except MusterError as error:
            self._on_incident(error)
        finally:
            done()

    async def _on_connected(self) -> None:
        await self.link.subscribe(device_subscription(self.identity.device_id))
        await self.announcer.announce()
        self.sender.on_connected()
        self.delivery.on_connected()
        self.orders.on_connected()
        self.announcer.report_soon()
        self.spare.set()

    def _apply(self, assignment: Assignment) -> None:
        """Carry out an accepted assignment: what is wished first, for it may hold back what is ordered."""
        self.remote.apply(assignment.wishes)
        self.noise.hear_hub(assignment.wishes.count_noise, self.recorder.keep_windows)
        self.models.apply(assignment)
        self.capture.apply(assignment)

    def _live(self) -> Live:
        """Return what only the running agent knows, for a diagnostic bundle."""
        from agent.diagnostics import Live

        return Live(
            self.models.states(),
            self.recorder.counts(),
            self.link.is_connected,
            tuple(self.incidents.recent),
            recent_lines(),
        )

    def _wake_samples(self) -> None:
        self.samples.wake()

    def _on_change(self) -> None:
        self.spare.set()
        self.announcer.report_soon()
        self.sender.wake()

    def _on_incident(self, error: MusterError) -> None:
        self.incidents.report(error)
        self.sender.wake()

    def _on_incident_in_thread(self, error: MusterError) -> None:
        """Tell of an incident from any thread but the event loop's."""
        self._loop.call_soon_threadsafe(self._on_incident, error)

    def _new_backoff(self) -> Backoff:
        return Backoff(self.settings.backoff_minimum_s, self.settings.backoff_maximum_s)
