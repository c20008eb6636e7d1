"""Everything about alerts of a running hub, put together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from fleet.protocol.errors import MusterError
from hub.alerts.delivery import Delivery, Sender, sender_for
from hub.alerts.facts import FactStore, FleetLook, HubCounts
from hub.alerts.settings import AlertSettings
from hub.alerts.watch import AlertWatch
from hub.store.protocols import AlertStore

log = logging.getLogger(__name__)

LONGEST_PAUSE_S = 1.0
"""Between two questions whether it is time to look."""


class AlertingStore(AlertStore, FactStore, Protocol):
    """What alerts need of the store."""


class Alerting:
    """Finds, keeps and sends alerts. Made in the event loop in which `delivery` will run.

    Args:
        store: Of the hub.
        settings: From ``alerts.toml``.
        senders: For each receiver, from `senders`.
        broker_connected: Tells whether the hub is connected to its broker.
        counts: Returns what the hub counts of itself.

    Attributes:
        settings: As given.
        watch: Looks.
        delivery: Sends.
    """

    def __init__(
        self,
        store: AlertingStore,
        settings: AlertSettings,
        senders: dict[str, Sender],
        *,
        broker_connected: Callable[[], bool],
        counts: Callable[[], HubCounts],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._pause_s = min(LONGEST_PAUSE_S, settings.rules.look_interval_s)
        self.settings = settings
        self.delivery = Delivery(store, settings, senders)
        look = FleetLook(store, settings.rules, broker_connected=broker_connected, counts=counts)
        self.watch = AlertWatch(
            store,
            settings,
            findings=look.findings,
            gather_s=self.delivery.gather_s,
            on_messages=self._wake,
        )

    async def run(self) -> None:
        """Look and send until cancelled; neither waits for the other, nor the hub's other work for them."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.delivery.run())
            tasks.create_task(self._look())

    async def _look(self) -> None:
        while True:
            try:
                await asyncio.to_thread(self.watch.advance)
            except MusterError as error:
                log.error("Alerts were not looked at: %s", error)
            except Exception:  # whatever it is, the hub's other work must go on
                log.exception("Looking at alerts failed as it should not; it is tried again.")
            await asyncio.sleep(self._pause_s)

    def _wake(self) -> None:
        """Let the delivery look, from whatever thread."""
        self._loop.call_soon_threadsafe(self.delivery.wake)


def senders(settings: AlertSettings, folder: Path) -> dict[str, Sender]:
    """Return what sends to each receiver, by name.

    Args:
        settings: From ``alerts.toml``.
        folder: Of the hub; relative paths in the settings begin there.

    Raises:
        InvalidConfiguration: A setting or secret cannot be used.
    """
    return {receiver.name: sender_for(receiver, folder, settings.hub_url) for receiver in settings.receiver}
