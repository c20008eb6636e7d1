"""The running hub: broker, MQTT, ingest, rollouts, drift and API, started together and stopped together.

::

    broker process ── MQTT ──→ Ingest ──→ store ──→ Rollouts, Telemetry ──→ store
                                                      │ orders
    devices ←── MQTT ── AssignmentSender, BlobPublisher ←┘

Every part takes its work from the store, so that a hub which was killed goes on where the store is. If one
part fails for good, the whole hub ends with that part's error: half a hub is worse than one that its
supervisor restarts.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from fleet.health import HealthPolicy
from fleet.protocol.errors import MusterError
from fleet.protocol.topics import HUB_ACCOUNT
from hub.alerts.alerting import Alerting, senders
from hub.alerts.delivery import Sender
from hub.alerts.facts import HubCounts
from hub.alerts.settings import AlertSettings, read_alert_settings
from hub.api.app import PREFIX, make_app
from hub.api.server import serve_http
from hub.api.services import HubServices
from hub.assignments import AssignmentSender
from hub.broker.kept import KeptBroker
from hub.delivery.blobs import BlobPublisher
from hub.delivery.files import answer_fetches
from hub.durable import write_durably
from hub.floods import Floods
from hub.health import FleetStates
from hub.heartbeat import Heartbeat
from hub.home import ADDRESS_FILE, ALIVE_FILE, Address, Home, only_here, open_home
from hub.ingest import Ingest
from hub.metrics import Instruments
from hub.mqtt import HubMqtt
from hub.mqtt_packets import Published
from hub.quality import QualityWatch
from hub.registry.models import Models
from hub.retention import Retention
from hub.rollouts.absence import excuse_absence
from hub.rollouts.shell import Rollouts
from hub.samples import Samples
from hub.settings import read_settings
from hub.store.state_rows import StateRules
from hub.telemetry.counting import Telemetry
from hub.tracing import span, tracing
from hub.wishes import Wishing

log = logging.getLogger(__name__)

BROKER_START_TIMEOUT_S = 30.0
RENEWAL_S = 3600.0
RETENTION_S = 300.0
BETWEEN_COUNTS_S = 0.2


def serve(home: Path) -> None:
    """Run the hub of a folder until SIGTERM or Ctrl-C.

    Raises:
        MusterError: It cannot start, or a part of it failed for good.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    read_settings(home)  # before anything is written to a folder that is no hub's
    with only_here(home):
        _serve_alone(home)


def _serve_alone(home: Path) -> None:
    opened = open_home(home)
    try:
        with tracing(opened.settings.otlp_endpoint, opened.settings.trace_share):
            asyncio.run(_serve(opened))
    except BaseExceptionGroup as errors:
        ours = errors.subgroup(MusterError)
        if ours is None:
            raise
        raise _first(ours) from errors
    finally:
        (home / ADDRESS_FILE).unlink(missing_ok=True)
        opened.store.close()


async def _serve(home: Home) -> None:
    alerts = read_alert_settings(home.folder)
    sending = senders(alerts, home.folder)
    broker = await KeptBroker.start(home)
    await _Running(home, broker, alerts, sending).run()


class _Running:
    """One run of the hub.

    Args:
        home: The opened folder.
        broker: Running already, and knows the hub's account.
        alerts: Where alerts begin, and who is told.
        sending: What sends to each receiver of them.
    """

    def __init__(
        self,
        home: Home,
        broker: KeptBroker,
        alerts: AlertSettings,
        sending: dict[str, Sender],
    ) -> None:
        settings, store = home.settings, home.store
        self._home = home
        self._broker = broker
        self._loop = asyncio.get_running_loop()
        self._heartbeat = Heartbeat(home.folder / ALIVE_FILE)
        self._instruments = Instruments()
        self._judge = asyncio.Event()
        self._count = asyncio.Event()
        self._orders = asyncio.Event()
        self._models = Models(store, home.datasets, home.blobs, home.repository)
        self._mqtt = HubMqtt(broker.host, broker.port, HUB_ACCOUNT, broker.hub_password, self._take)
        self._publisher = BlobPublisher(home.blobs, self._mqtt.publish)
        self._sender = AssignmentSender(
            store,
            home.director,
            self._mqtt.publish,
            lifetime_s=settings.assignment_lifetime_s,
            resend_s=settings.assignment_resend_s,
        )
        self._samples = Samples(
            store,
            manifest=self._models.manifest,
            on_orders=self._order_waits,
            budget_bytes=settings.sample_budget_bytes,
            retention_s=settings.sample_retention_s,
        )
        self._ingest = Ingest(
            store,
            Floods(store, settings.flood_limits),
            digest=lambda model, version: self._models.reference(model, version)[0],
            publish=self._mqtt.publish,
            send=self._mqtt.send,
            demand=self._publisher.want,
            answer=lambda requests: answer_fetches(requests, home.repository),
            on_behind=self._sender.send,
            on_records=self._records_came,
            on_written=self._instruments.ingest_write_s.observe,
            take_sample=self._samples.take,
            dead_letters_kept=settings.dead_letters_kept,
        )
        policy = HealthPolicy(silence_limit_s=settings.offline_after_s)
        self._states = FleetStates(store, StateRules(policy, settings.group_by))
        self._rollouts = Rollouts(
            store,
            released=self._models.released,
            on_orders=self._order_waits,
            group_by=settings.group_by,
        )
        self._quality = QualityWatch(store, reference=self._models.reference)
        self._telemetry = Telemetry(
            store,
            reference=self._models.reference,
            block_predictions=settings.drift_block_predictions,
            group_by=settings.group_by,
            dead_letters_kept=settings.dead_letters_kept,
        )
        self._alerting = Alerting(
            store,
            alerts,
            sending,
            broker_connected=lambda: self._mqtt.connected,
            counts=self._counts,
        )

    async def run(self) -> None:
        """Serve until told to stop, then stop everything."""
        settings = self._home.settings
        self._models.abandon_trainings()
        works = (
            self._broker.keep(),
            self._mqtt.run(),
            self._publisher.run(),
            self._send_orders(),
            self._judge_fleet(),
            self._count_telemetry(),
            self._forget(),
            self._alerting.run(),
            self._renew_metadata(),
        )
        try:
            async with asyncio.TaskGroup() as tasks:
                parts = [tasks.create_task(work) for work in works]
                await self._mqtt.wait_connected(BROKER_START_TIMEOUT_S)
                await serve_http(
                    make_app(self._services()), settings.http_host, settings.http_port, self._announce
                )
                for part in parts:
                    part.cancel()
        finally:
            await self._models.close()
            await self._ingest.close()
            await self._broker.stop()

    async def _take(self, published: Sequence[Published]) -> None:
        with span("ingest batch", messages=len(published)):
            await self._ingest.handle(published)

    def _services(self) -> HubServices:
        return HubServices(
            settings=self._home.settings,
            store=self._home.store,
            datasets=self._home.datasets,
            repository=self._home.repository,
            models=self._models,
            rollouts=self._rollouts,
            wishing=Wishing(self._home.store, on_orders=self._order_waits),
            states=self._states,
            ingest=self._ingest,
            telemetry=self._telemetry,
            samples=self._samples,
            broker_access=self._broker.access,
            update_accounts=self._broker.update_accounts,
            broker_connected=lambda: self._mqtt.connected,
            messages_waiting=lambda: self._mqtt.waiting,
            delivery=self._publisher.counters,
            instruments=self._instruments,
            alerting=self._alerting,
        )

    def _counts(self) -> HubCounts:
        """Count what alerts on the hub itself rest on."""
        return HubCounts(
            self._ingest.messages_taken, self._ingest.messages_refused, self._telemetry.backlog()
        )

    def _order_waits(self) -> None:
        """Wake the sender, from whatever thread."""
        self._loop.call_soon_threadsafe(self._orders.set)

    def _announce(self, url: str) -> None:
        """Write down where the hub is, for the command line on this machine."""
        broker = self._broker
        address = Address(url=url, mqtt_host=broker.host, mqtt_port=broker.port, broker=broker.version)
        write_durably(self._home.folder / ADDRESS_FILE, msgspec.json.encode(address))
        log.info("The hub is at %s, its documentation at %s%s/docs.", url, url, PREFIX)
        log.info("The broker is %s at %s:%d.", broker.version, broker.host, broker.port)

    async def _send_orders(self) -> None:
        while True:
            try:
                await self._sender.send_due()
            except MusterError as error:
                log.error("%s", error)
            await self._woken(self._orders)

    async def _judge_fleet(self) -> None:
        """Judge the fleet; time in which the hub did not is excused first, see `Rollouts.excuse`."""
        await self._mqtt.wait_connected(BROKER_START_TIMEOUT_S)
        while True:
            await asyncio.to_thread(_guarded, self._excuse_absence)
            await asyncio.to_thread(_guarded, self._rollouts.advance)
            await asyncio.to_thread(_guarded, self._states.advance)
            await asyncio.to_thread(_guarded, self._quality.advance)
            await self._woken(self._judge)

    def _records_came(self) -> None:
        self._judge.set()
        self._count.set()

    async def _count_telemetry(self) -> None:
        """Count windows, step by step; what comes within a moment is counted together, which costs less."""
        while True:
            while await asyncio.to_thread(_guarded, self._telemetry.step):
                pass
            await asyncio.sleep(BETWEEN_COUNTS_S)
            await self._woken(self._count)

    def _excuse_absence(self) -> None:
        excuse_absence(self._heartbeat, self._rollouts)

    async def _forget(self) -> None:
        """Delete what is too old."""
        retention = Retention(self._home.store, self._home.settings.retention)
        while True:
            await asyncio.sleep(RETENTION_S)
            await asyncio.to_thread(_guarded, lambda: retention.run(time.time()))

    async def _renew_metadata(self) -> None:
        while True:
            await asyncio.to_thread(_guarded, lambda: self._home.repository.renew(time.time()))
            await asyncio.to_thread(_guarded, lambda: self._samples.forget_old(time.time()))
            await asyncio.sleep(RENEWAL_S)

    async def _woken(self, event: asyncio.Event) -> None:
        """Wait for the event, or for the next tick."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._home.settings.rollout_tick_s):
                await event.wait()
        event.clear()


def _guarded(work: Callable[[], object]) -> object:
    """Do work that is done again soon; what it raises is for the log, and must not end the hub."""
    try:
        return work()
    except MusterError as error:
        log.error("%s", error)
    except Exception:  # whatever it is, the fleet's other work must go on
        log.exception("Something failed that should not; it is tried again.")
    return None


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    first = errors.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
