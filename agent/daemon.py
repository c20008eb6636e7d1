"""The agent's process: its parts tied together, from start to orderly end.

::

    broker ── Link ──┬── assignment → Director → Models (one life each) → Host ── InferenceApi ── Unix socket
                     ├── file       → FileClient → ImageRepository          │
                     ├── chunk      → Delivery → BlobStore → Slots          ▼
                     ├── ack        → Sender ← Outbox ← reports, incidents, Recorder
                     └── hello, presence, state ← Announcer

Everything here lives in one event loop; blocking work is in threads. Order at start: what is installed
answers before the broker is asked for anything.
"""

from __future__ import annotations

import asyncio
import faulthandler
import fcntl
import logging
import os
import signal
import time
from collections.abc import Awaitable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from agent import capabilities, durable
from agent.announcement import Announcer, last_will
from agent.backoff import Backoff
from agent.blobs import BlobStore
from agent.capture.capture import Capture
from agent.capture.sender import SampleSender
from agent.connection import Done
from agent.delivery import Delivery
from agent.drain import Drain
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
from agent.memory import give_back, measure_memory
from agent.mqtt import Link
from agent.notify import Notifier
from agent.orders import Orders
from agent.remote import Remote
from agent.sensors import Board, Sensors
from agent.serving.api import InferenceApi
from agent.serving.fast import FastServer, services_of
from agent.serving.http import HttpServer, Request, Response
from agent.serving.shared_memory import SharedMemory
from agent.settings import read_settings
from agent.stall import end_when_stalled
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
from fleet.protocol.errors import Conflict, InvalidMessage, MusterError
from fleet.protocol.topics import Down, Up, device_subscription, down, parse_chunk, up

if TYPE_CHECKING:
    from agent.diagnostics import Live

log = logging.getLogger(__name__)

LOCK_FILE = "agent.lock"
FOR_GROUP = 0o660
GIVE_BACK_DELAY_S = 2.0
"""When what a start or a swap needed for a moment is given back: after what follows at once is done."""

MEMORY_PER_REQUEST = 96
"""How many times the largest request memory has to hold. The dearest JSON (``[[],[],…``) takes 24 times its
size while it is read (measured); that may be a quarter of all."""

STOP_S = 0.9
"""How long an orderly end takes at most; of what is still under way then, nothing has to last."""
DRAIN_S = 0.4
"""How much of it requests under way have to be answered."""
STOP_LIMIT_S = 5.0
"""When a process that is ending is ended anyway, wherever it is held up."""


def lock_state(state: Path) -> int:
    """Take the state folder for this process alone; return the lock's file descriptor.

    Raises:
        Conflict: Another agent runs on it.
    """
    with durable.storage_errors(state / LOCK_FILE):
        descriptor = os.open(state / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, durable.PRIVATE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise Conflict(f"Another agent runs on {state}.", remedy="Stop it first.") from error
    return descriptor


class Daemon:
    """One device's agent.

    Args:
        state: The state folder of an enrolled device, locked by the caller.

    Raises:
        InvalidConfiguration: The folder is not enrolled, or a setting cannot be used.
        StorageError: The folder cannot be used.
    """

    def __init__(self, state: Path) -> None:
        self._state = state
        self._loop = asyncio.get_running_loop()
        self._notifier = Notifier(os.environ)
        self._identity = identity = read_identity(state)
        self._settings = settings = read_settings(state)
        device_id = identity.device_id
        self._outbox = Outbox(state / "outbox.sqlite", settings.outbox_budget_bytes)
        self._incidents = Incidents(self._outbox, time.time)
        self._link = self._build_link()
        self._sender = Sender(device_id, self._outbox, self._link, settings, on_incident=self._on_incident)
        self._files = self._build_files()
        self._repository = ImageRepository(state / "trust", identity.root, self._files)
        self._host = Host()
        self._noise = CountNoise(
            settings.count_noise_epsilon, self._host, self._outbox, word=state / WORD_FILE
        )
        self._recorder = Recorder(
            self._outbox, self._host.close_windows, wake=self._sender.wake, on_incident=self._on_incident
        )
        self._blobs = BlobStore(state / "blobs")
        self._delivery = Delivery(
            device_id,
            self._link,
            self._blobs,
            settings,
            on_incident=self._on_incident,
            backoff=self._new_backoff,
        )
        self._gate = Gate(state, settings, self._on_change)
        slots = Slots(state / "models", self._blobs)
        self._models = self._build_models(slots)
        self._capture = Capture(
            state, settings, self._host, on_sample=self._wake_samples, on_incident=self._on_incident
        )
        self._samples = SampleSender(
            device_id,
            self._capture.spool,
            self._link,
            waiting_records=self._recorder.waiting_records,
            resend_s=settings.resend_interval_s,
        )
        self._remote = Remote(
            state,
            settings,
            self._gate,
            self._outbox,
            live=self._live,
            on_answer=self._sender.wake,
            on_incident=self._on_incident,
        )
        self._director = Director(state / "trust", device_id)
        self._board = Board(
            Sensors(), interval_s=settings.sensors_interval_s, window_s=settings.telemetry_interval_s
        )
        self._announcer = self._build_announcer()
        self._orders = Orders(
            self._director,
            self._repository,
            refresh_interval_s=settings.trust_refresh_interval_s,
            apply=self._apply,
            on_incident=self._on_incident,
            backoff=self._new_backoff(),
        )
        self._drain, self._server, self._fast = self._build_serving(slots)
        self._spare = asyncio.Event()
        self._ended = asyncio.Event()
        self._failed = False
        self._topics = {down(device_id, channel): channel for channel in Down}

    async def run(self) -> bool:
        """Run until SIGTERM or SIGINT, or a fault of ours, then end in an orderly way.

        Returns:
            Whether it ended because it was told to; else it should be started again.

        Raises:
            MusterError: The agent cannot start.
        """
        loop = asyncio.get_running_loop()
        for signal_number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signal_number, self._ended.set)
        try:
            await self._start()
        except MusterError:
            await asyncio.gather(self._fast.close(0.0), self._server.close())
            raise
        tasks = [
            asyncio.ensure_future(self._lasting(task))
            for task in (
                self._link.run(),
                self._sender.run(),
                self._orders.run(),
                self._announcer.keep_reporting(),
                self._announcer.keep_announcing(),
                self._recorder.keep_recording(self._settings.telemetry_interval_s),
                self._board.keep_reading(),
                self._give_back(),
                self._notifier.keep_telling(self._status),
                *((self._capture.run(), self._samples.run()) if self._settings.allow_sample_capture else ()),
            )
        ]
        watch = asyncio.ensure_future(self._lasting(end_when_stalled(self._settings.stall_limit_s)))
        try:
            await self._ended.wait()
        finally:
            watch.cancel()
            await self._stop(tasks)
        return not self._failed

    def _build_link(self) -> Link:
        device_id = self._identity.device_id
        return Link(
            device_id,
            self._identity.broker,
            will=last_will(device_id),
            handler=self._on_message,
            on_connected=self._on_connected,
            on_error=self._on_incident,
            backoff=self._new_backoff(),
            keepalive_s=self._settings.keepalive_s,
        )

    def _build_files(self) -> FileClient:
        return FileClient(
            partial(self._link.publish, up(self._identity.device_id, Up.FETCH)),
            self._link.wait_connected,
            timeout_s=self._settings.fetch_timeout_s,
            attempts=self._settings.fetch_attempts,
            backoff=self._new_backoff,
        )

    def _build_announcer(self) -> Announcer:
        settings = self._settings
        return Announcer(
            self._identity.device_id,
            self._link,
            settings,
            sequence=lambda: self._director.sequence,
            capabilities=lambda: capabilities.measure(
                self._state,
                captures_samples=settings.allow_sample_capture,
                count_noise_epsilon=self._noise.epsilon,
            ),
            states=self._models.states,
            waiting_records=self._recorder.waiting_records,
            board=lambda: self._board.window,
            samples=self._capture.counts,
        )

    def _build_serving(self, slots: Slots) -> tuple[Drain[[Request], Response], HttpServer, FastServer]:
        settings, state = self._settings, self._state
        limit_bytes = min(settings.request_limit_bytes, measure_memory().limit_bytes // MEMORY_PER_REQUEST)
        shared = SharedMemory(limit_bytes) if settings.shared_memory else None
        api = InferenceApi(self._host, self._models.are_ready, self._models.states, limit_bytes, shared)
        drain = Drain(api.answer)
        server = HttpServer(
            settings.socket(state), drain.respond, api.refuse, limit_bytes, port=settings.tcp_port
        )
        reception = Reception(self._models, slots, self._outbox, self._sender.wake)
        fast = FastServer(
            settings.fast_socket(state),
            services_of(self._host, api, reception.take, limit_bytes),
            mode=FOR_GROUP if settings.socket_access == "group" else durable.PRIVATE,
            connections=settings.fast_connections,
            timeout_s=settings.inference_timeout_s,
        )
        return drain, server, fast

    def _build_models(self, slots: Slots) -> Models:
        able = partial(capabilities.measure, self._state)
        opener = Opener(self._settings, self._on_incident_in_thread)
        chooser = Chooser(
            slots,
            Measurements(self._state / "variants.json", self._settings),
            self._outbox,
            opener.open,
            capabilities=able,
            timeout_s=self._settings.inference_timeout_s,
            on_incident=self._on_incident,
        )
        around = Surroundings(
            store=LifeStore(self._state / "life"),
            slots=slots,
            host=self._host,
            outbox=self._outbox,
            workshop=Workshop(
                self._repository,
                self._delivery,
                slots,
                self._host,
                chooser,
                opener=opener,
                gate=self._gate,
                settings=self._settings,
                capabilities=able,
                on_incident=self._on_incident,
                keep=self._recorder.keep_report,
            ),
            on_change=self._on_change,
            on_incident=self._on_incident,
        )
        return Models(around, self._blobs)

    async def _start(self) -> None:
        """Let what is installed answer, then begin to carry out the last assignment."""
        self._recorder.tell_damage()
        await self._server.start()
        await self._fast.start()
        if self._settings.socket_access == "group":
            path = self._settings.socket(self._state)
            with durable.storage_errors(path):
                path.chmod(FOR_GROUP)
        self._models.start()
        if self._orders.start() and self._director.sequence == 0:
            self._gate.hear_hub(held=False)  # it has never said anything
        self._notifier.ready(self._status())
        log.info("The agent of %s started.", self._identity.device_id)

    def _status(self) -> str:
        """Return one line for whoever asks the service manager."""
        states = self._models.states()
        answering = sum(state.version is not None for state in states)
        connected = "connected to the hub's broker" if self._link.is_connected else "offline"
        return f"{self._identity.device_id}: {answering} of {len(states)} model(s) answering, {connected}."

    async def _stop(self, tasks: list[asyncio.Task[None]]) -> None:
        """Answer what was asked, keep what was counted, say goodbye to the broker, give everything back."""
        faulthandler.dump_traceback_later(STOP_LIMIT_S, exit=True)
        self._notifier.stopping()
        clock = asyncio.get_running_loop().time
        end_s = clock() + STOP_S
        await asyncio.gather(self._drain.wait(DRAIN_S), self._fast.close(DRAIN_S))
        await self._server.close()
        self._remote.close()
        await asyncio.gather(self._models.close(), self._announcer.say_goodbye())
        self._recorder.keep_windows()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=max(0.05, end_s - clock()))
        self._outbox.close()
        self._capture.close()
        log.info("The agent of %s stopped.", self._identity.device_id)
        faulthandler.cancel_dump_traceback_later()

    async def _lasting(self, task: Awaitable[None]) -> None:
        """Run one of the agent's tasks; if a fault of ours ends it, end the process for a clean new start."""
        try:
            await task
        except Exception:
            log.exception("A part of the agent failed; it ends so that it can be started again.")
            self._failed = True
            self._ended.set()

    def _on_message(self, topic: str, payload: bytes, done: Done) -> None:
        """Take a message from the broker to the part it is for."""
        try:
            chunk = parse_chunk(topic)
            if chunk is not None:
                self._delivery.on_chunk(chunk, payload, done)
                return
        except MusterError as error:
            self._on_incident(error)
            return
        try:
            match self._topics.get(topic):
                case Down.ASSIGNMENT:
                    self._orders.on_assignment(payload)
                case Down.FILE:
                    self._files.on_answer(payload)
                case Down.ACK:
                    if not self._samples.on_ack(payload):
                        self._sender.on_ack(payload)
                case None:
                    raise InvalidMessage(f"A message came on the unknown topic {topic!r:.120}.")
        except MusterError as error:
            self._on_incident(error)
        finally:
            done()

    async def _on_connected(self) -> None:
        await self._link.subscribe(device_subscription(self._identity.device_id))
        await self._announcer.announce()
        self._sender.on_connected()
        self._delivery.on_connected()
        self._orders.on_connected()
        self._announcer.report_soon()
        self._spare.set()

    async def _give_back(self) -> None:
        """Give memory back after each connection and change of state: both leave code and heap unused."""
        while True:
            await self._spare.wait()
            await asyncio.sleep(GIVE_BACK_DELAY_S)
            self._spare.clear()
            await asyncio.to_thread(give_back)

    def _apply(self, assignment: Assignment) -> None:
        """Carry out an accepted assignment: what is wished first, for it may hold back what is ordered."""
        self._remote.apply(assignment.wishes)
        self._noise.hear_hub(assignment.wishes.count_noise, self._recorder.keep_windows)
        self._models.apply(assignment)
        self._capture.apply(assignment)

    def _live(self) -> Live:
        """Return what only the running agent knows, for a diagnostic bundle."""
        from agent.diagnostics import Live

        return Live(
            self._models.states(),
            self._recorder.counts(),
            self._link.is_connected,
            tuple(self._incidents.recent),
            recent_lines(),
        )

    def _wake_samples(self) -> None:
        self._samples.wake()

    def _on_change(self) -> None:
        self._spare.set()
        self._announcer.report_soon()
        self._sender.wake()

    def _on_incident(self, error: MusterError) -> None:
        self._incidents.report(error)
        self._sender.wake()

    def _on_incident_in_thread(self, error: MusterError) -> None:
        """Tell of an incident from any thread but the event loop's."""
        self._loop.call_soon_threadsafe(self._on_incident, error)

    def _new_backoff(self) -> Backoff:
        return Backoff(self._settings.backoff_minimum_s, self._settings.backoff_maximum_s)
