"""What the routes stand on: the hub's services, put into the application when it is made."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from fleet.health import HealthPolicy
from fleet.protocol.enrolment import BrokerAccess
from hub.alerts.alerting import Alerting
from hub.delivery.blobs import DeliveryCounters
from hub.health import FleetStates
from hub.ingest import Ingest
from hub.metrics import Instruments
from hub.registry.models import Models
from hub.rollouts.shell import Rollouts
from hub.samples import Samples
from hub.settings import Settings
from hub.store.blobs import BlobFolder
from hub.store.protocols import Store
from hub.telemetry.counting import Telemetry
from hub.trust.image_repository import ImageRepository
from hub.wishes import Wishing


@dataclass(frozen=True)
class HubServices:
    """The services of a running hub.

    Attributes:
        broker_access: Gives a device's way to the broker from user name, password and the host it reached.
        update_accounts: Makes the broker know the accounts that the store holds.
        broker_connected: Tells whether the hub is connected to the broker.
        messages_waiting: Tells how many messages arrived and are not yet taken in.
        delivery: What was published, counted.
        instruments: Measure requests and writing.
        alerting: Finds, keeps and sends alerts.
    """

    settings: Settings
    store: Store
    datasets: BlobFolder
    repository: ImageRepository
    models: Models
    rollouts: Rollouts
    wishing: Wishing
    states: FleetStates
    ingest: Ingest
    telemetry: Telemetry
    samples: Samples
    broker_access: Callable[[str, str, str], BrokerAccess]
    update_accounts: Callable[[], Awaitable[None]]
    broker_connected: Callable[[], bool]
    messages_waiting: Callable[[], int]
    delivery: DeliveryCounters
    instruments: Instruments
    alerting: Alerting

    @property
    def health_policy(self) -> HealthPolicy:
        """Where the lines of health are drawn."""
        return self.states.rules.policy


def _services(request: Request) -> HubServices:
    services: HubServices = request.app.state.services
    return services


Hub = Annotated[HubServices, Depends(_services)]
