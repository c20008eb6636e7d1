"""The running hub: broker, MQTT, ingest, rollouts, drift and API, started together and stopped together.

What the parts are, `hub.parts` says. If one of them fails for good, the whole hub ends with that part's
error: half a hub is worse than one that its supervisor restarts.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from fleet.protocol.errors import MusterError
from hub.alerts.alerting import senders
from hub.alerts.settings import read_alert_settings
from hub.api.app import PREFIX, make_app
from hub.api.server import serve_http
from hub.broker.kept import KeptBroker
from hub.durable import write_durably
from hub.home import ADDRESS_FILE, Address, Home, only_here, open_home
from hub.memory import share_heap
from hub.parts import Parts
from hub.retention import Retention
from hub.rollouts.absence import excuse_absence
from hub.settings import read_settings
from hub.tracing import tracing

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
    share_heap()
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
    await _Running(Parts(home, broker, alerts, sending)).run()


class _Running:
    """One run of the hub.

    Args:
        parts: Of the hub.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._home = parts.home

    async def run(self) -> None:
        """Serve until told to stop, then stop everything."""
        parts, settings = self._parts, self._home.settings
        parts.models.abandon_trainings()
        works = (
            parts.broker.keep(),
            parts.mqtt.run(),
            parts.publisher.run(),
            self._send_orders(),
            self._judge_fleet(),
            self._count_telemetry(),
            self._forget(),
            parts.alerting.run(),
            self._renew_metadata(),
        )
        try:
            async with asyncio.TaskGroup() as tasks:
                running = [tasks.create_task(work) for work in works]
                await parts.mqtt.wait_connected(BROKER_START_TIMEOUT_S)
                app = make_app(parts.services())
                await serve_http(app, settings.http_host, settings.http_port, self._announce)
                for work in running:
                    work.cancel()
        finally:
            await parts.models.close()
            await parts.ingest.close()
            await parts.broker.stop()

    def _announce(self, url: str) -> None:
        """Write down where the hub is, for the command line on this machine."""
        broker = self._parts.broker
        address = Address(url=url, mqtt_host=broker.host, mqtt_port=broker.port, broker=broker.version)
        write_durably(self._home.folder / ADDRESS_FILE, msgspec.json.encode(address))
        log.info("The hub is at %s, its documentation at %s%s/docs.", url, url, PREFIX)
        log.info("The broker is %s at %s:%d.", broker.version, broker.host, broker.port)

    async def _send_orders(self) -> None:
        while True:
            try:
                await self._parts.sender.send_due()
            except MusterError as error:
                log.error("%s", error)
            await self._woken(self._parts.to_send)

    async def _judge_fleet(self) -> None:
        """Judge the fleet; time in which the hub did not is excused first, see `hub.rollouts.absence`."""
        parts = self._parts
        await parts.mqtt.wait_connected(BROKER_START_TIMEOUT_S)
        while True:
            await asyncio.to_thread(_guarded, lambda: excuse_absence(parts.heartbeat, parts.rollouts))
            await asyncio.to_thread(_guarded, parts.rollouts.advance)
            await asyncio.to_thread(_guarded, parts.states.advance)
            await asyncio.to_thread(_guarded, parts.quality.advance)
            await self._woken(parts.to_judge)

    async def _count_telemetry(self) -> None:
        """Count windows, step by step; what comes within a moment is counted together, which costs less."""
        while True:
            while await asyncio.to_thread(_guarded, self._parts.telemetry.step):
                pass
            await asyncio.sleep(BETWEEN_COUNTS_S)
            await self._woken(self._parts.to_count)

    async def _forget(self) -> None:
        """Delete what is too old."""
        retention = Retention(self._home.store, self._home.settings.retention)
        while True:
            await asyncio.sleep(RETENTION_S)
            await asyncio.to_thread(_guarded, lambda: retention.run(time.time()))

    async def _renew_metadata(self) -> None:
        while True:
            await asyncio.to_thread(_guarded, lambda: self._home.repository.renew(time.time()))
            await asyncio.to_thread(_guarded, lambda: self._parts.samples.forget_old(time.time()))
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
