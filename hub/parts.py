"""What a hub is made of, and who tells whom.

::

    broker process ── MQTT ──→ Ingest ──→ store ──→ Rollouts, Telemetry ──→ store
                                                      │ orders
    devices ←── MQTT ── AssignmentSender, BlobPublisher ←┘

Every part takes its work from the store, so that a hub which was killed goes on where the store is.
`hub.service` runs them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from fleet.health import HealthPolicy
from fleet.protocol.topics import HUB_ACCOUNT
from hub.alerts.alerting import Alerting
from hub.alerts.delivery import Sender
from hub.alerts.facts import HubCounts
from hub.alerts.settings import AlertSettings
from hub.api.services import HubServices
from hub.assignments import AssignmentSender
from hub.broker.kept import KeptBroker
from hub.delivery.blobs import BlobPublisher
from hub.delivery.files import answer_fetches
from hub.floods import Floods
from hub.health import FleetStates
from hub.heartbeat import Heartbeat
from hub.home import ALIVE_FILE, Home
from hub.ingest import Ingest
from hub.metrics import Instruments
from hub.mqtt import HubMqtt
from hub.mqtt_packets import Published
from hub.quality import QualityWatch
from hub.registry.models import Models
from hub.rollouts.shell import Rollouts
from hub.samples import Samples
from hub.store.state_rows import StateRules
from hub.telemetry.counting import Telemetry
from hub.tracing import span
from hub.wishes import Wishing


class Parts:
    """The parts of one hub. Nothing of it runs yet; made in the event loop that it runs in.

    Args:
        home: The opened folder.
        broker: Running already, and knows the hub's account.
        alerts: Where alerts begin, and who is told.
        sending: What sends to each receiver of them.
    """

    def __init__(
        self, home: Home, broker: KeptBroker, alerts: AlertSettings, sending: dict[str, Sender]
    ) -> None:
        self.home = home
        self.broker = broker
        self._loop = asyncio.get_running_loop()
        self.to_judge = asyncio.Event()
        """Set when there is something new to judge the fleet by."""
        self.to_count = asyncio.Event()
        """Set when windows of telemetry may have come."""
        self.to_send = asyncio.Event()
        """Set when an order waits."""
        self.heartbeat = Heartbeat(home.folder / ALIVE_FILE)
        self.instruments = Instruments()
        self.models = Models(home.store, home.datasets, home.blobs, home.repository)
        self.mqtt = HubMqtt(broker.host, broker.port, HUB_ACCOUNT, broker.hub_password, self._take)
        self.publisher = BlobPublisher(home.blobs, self.mqtt.publish)
        self.sender = self._build_sender()
        self.samples = self._build_samples()
        self.ingest = self._build_ingest()
        self.states = self._build_states()
        self.rollouts = self._build_rollouts()
        self.quality = QualityWatch(home.store, reference=self.models.reference)
        self.telemetry = self._build_telemetry()
        self.alerting = self._build_alerting(alerts, sending)

    def services(self) -> HubServices:
        """Return what the routes of the API stand on."""
        return HubServices(
            settings=self.home.settings,
            store=self.home.store,
            datasets=self.home.datasets,
            repository=self.home.repository,
            models=self.models,
            rollouts=self.rollouts,
            wishing=Wishing(self.home.store, on_orders=self._order_waits),
            states=self.states,
            ingest=self.ingest,
            telemetry=self.telemetry,
            samples=self.samples,
            broker_access=self.broker.access,
            update_accounts=self.broker.update_accounts,
            broker_connected=lambda: self.mqtt.connected,
            messages_waiting=lambda: self.mqtt.waiting,
            delivery=self.publisher.counters,
            instruments=self.instruments,
            alerting=self.alerting,
        )

    # What each is given ------------------------------------------------------

    def _build_sender(self) -> AssignmentSender:
        return AssignmentSender(
            self.home.store,
            self.home.director,
            self.mqtt.publish,
            lifetime_s=self.home.settings.assignment_lifetime_s,
            resend_s=self.home.settings.assignment_resend_s,
        )

    def _build_samples(self) -> Samples:
        return Samples(
            self.home.store,
            manifest=self.models.manifest,
            on_orders=self._order_waits,
            budget_bytes=self.home.settings.sample_budget_bytes,
            retention_s=self.home.settings.sample_retention_s,
        )

    def _build_ingest(self) -> Ingest:
        return Ingest(
            self.home.store,
            Floods(self.home.store, self.home.settings.flood_limits),
            digest=lambda model, version: self.models.reference(model, version)[0],
            publish=self.mqtt.publish,
            send=self.mqtt.send,
            demand=self.publisher.want,
            answer=lambda requests: answer_fetches(requests, self.home.repository),
            on_behind=self.sender.send,
            on_records=self._records_came,
            on_written=self.instruments.ingest_write_s.observe,
            take_sample=self.samples.take,
            dead_letters_kept=self.home.settings.dead_letters_kept,
        )

    def _build_states(self) -> FleetStates:
        settings = self.home.settings
        policy = HealthPolicy(silence_limit_s=settings.offline_after_s)
        return FleetStates(self.home.store, StateRules(policy, settings.group_by))

    def _build_rollouts(self) -> Rollouts:
        return Rollouts(
            self.home.store,
            released=self.models.released,
            on_orders=self._order_waits,
            group_by=self.home.settings.group_by,
            known=self.models.manifest,
            refresh=self.states.before_answer,
        )

    def _build_telemetry(self) -> Telemetry:
        return Telemetry(
            self.home.store,
            reference=self.models.reference,
            block_predictions=self.home.settings.drift_block_predictions,
            group_by=self.home.settings.group_by,
            dead_letters_kept=self.home.settings.dead_letters_kept,
        )

    def _build_alerting(self, alerts: AlertSettings, sending: dict[str, Sender]) -> Alerting:
        return Alerting(
            self.home.store,
            alerts,
            sending,
            broker_connected=lambda: self.mqtt.connected,
            counts=self._counts,
        )

    # Who tells whom ----------------------------------------------------------

    async def _take(self, published: Sequence[Published]) -> None:
        with span("ingest batch", messages=len(published)):
            await self.ingest.handle(published)

    def _records_came(self) -> None:
        self.to_judge.set()
        self.to_count.set()

    def _order_waits(self) -> None:
        """Wake the sender, from whatever thread."""
        self._loop.call_soon_threadsafe(self.to_send.set)

    def _counts(self) -> HubCounts:
        """Count what alerts on the hub itself rest on."""
        return HubCounts(self.ingest.messages_taken, self.ingest.messages_refused, self.telemetry.backlog())
