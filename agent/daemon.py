"""The agent's process: its parts started, run and brought to an orderly end.

What the parts are, `agent.parts` says. Order at start: what is installed answers before the broker is asked
for anything.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import signal
from collections.abc import Awaitable, Iterator
from pathlib import Path

from agent.memory import give_back
from agent.notify import Notifier
from agent.parts import Parts
from agent.stall import end_when_stalled
from fleet.protocol.errors import MusterError

log = logging.getLogger(__name__)

GIVE_BACK_DELAY_S = 2.0
"""When what a start or a swap needed for a moment is given back: after what follows at once is done."""

STOP_S = 0.9
"""How long an orderly end takes at most; of what is still under way then, nothing has to last."""
DRAIN_S = 0.4
"""How much of it requests under way have to be answered."""
STOP_LIMIT_S = 5.0
"""When a process that is ending is ended anyway, wherever it is held up."""


class Daemon:
    """One device's agent.

    Args:
        state: The state folder of an enrolled device, locked by the caller.

    Raises:
        InvalidConfiguration: The folder is not enrolled, or a setting cannot be used.
        StorageError: The folder cannot be used.
    """

    def __init__(self, state: Path) -> None:
        self._notifier = Notifier(os.environ)
        self._parts = Parts(state)
        self._ended = asyncio.Event()
        self._failed = False

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
            await self._parts.servers.close(0.0)
            raise
        tasks = [asyncio.ensure_future(self._lasting(task)) for task in self._works()]
        watch = asyncio.ensure_future(self._lasting(end_when_stalled(self._parts.settings.stall_limit_s)))
        try:
            await self._ended.wait()
        finally:
            watch.cancel()
            await self._stop(tasks)
        return not self._failed

    def _works(self) -> Iterator[Awaitable[None]]:
        """Yield what runs as long as the agent does."""
        parts, settings = self._parts, self._parts.settings
        yield parts.link.run()
        yield parts.sender.run()
        yield parts.orders.run()
        yield parts.announcer.keep_reporting()
        yield parts.announcer.keep_announcing()
        yield parts.recorder.keep_recording(settings.telemetry_interval_s)
        yield parts.board.keep_reading()
        yield self._give_back()
        yield self._notifier.keep_telling(self._status)
        if settings.allow_sample_capture:
            yield parts.capture.run()
            yield parts.samples.run()

    async def _start(self) -> None:
        """Let what is installed answer, then begin to carry out the last assignment."""
        parts = self._parts
        parts.recorder.tell_damage()
        await parts.servers.start()
        parts.models.start()
        if parts.orders.start() and parts.director.sequence == 0:
            parts.gate.hear_hub(held=False)  # it has never said anything
        self._notifier.ready(self._status())
        log.info("The agent of %s started.", parts.identity.device_id)

    async def _stop(self, tasks: list[asyncio.Task[None]]) -> None:
        """Answer what was asked, keep what was counted, say goodbye to the broker, give everything back."""
        parts = self._parts
        faulthandler.dump_traceback_later(STOP_LIMIT_S, exit=True)
        self._notifier.stopping()
        clock = asyncio.get_running_loop().time
        end_s = clock() + STOP_S
        await parts.servers.close(DRAIN_S)
        parts.remote.close()
        await asyncio.gather(parts.models.close(), parts.announcer.say_goodbye())
        parts.recorder.keep_windows()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=max(0.05, end_s - clock()))
        parts.outbox.close()
        parts.capture.close()
        log.info("The agent of %s stopped.", parts.identity.device_id)
        faulthandler.cancel_dump_traceback_later()

    def _status(self) -> str:
        """Return one line for whoever asks the service manager."""
        parts = self._parts
        states = parts.models.states()
        answering = sum(state.version is not None for state in states)
        connected = "connected to the hub's broker" if parts.link.is_connected else "offline"
        return f"{parts.identity.device_id}: {answering} of {len(states)} model(s) answering, {connected}."

    async def _lasting(self, task: Awaitable[None]) -> None:
        """Run one of the agent's tasks; if a fault of ours ends it, end the process for a clean new start."""
        try:
            await task
        except Exception:
            log.exception("A part of the agent failed; it ends so that it can be started again.")
            self._failed = True
            self._ended.set()

    async def _give_back(self) -> None:
        """Give memory back after each connection and change of state: both leave code and heap unused."""
        while True:
            await self._parts.spare.wait()
            await asyncio.sleep(GIVE_BACK_DELAY_S)
            self._parts.spare.clear()
            await asyncio.to_thread(give_back)
