"""Carrying out what the update machine says, for each model: the shell around `agent.life.machine`.

For every event: advance, write the new state down, put its reports into the outbox, then carry out its
other effects. If the state cannot be written, nothing has happened: the event waits, with those that come
after it, and is tried again later. Of orders and removals only the latest waits: assignments are complete,
so it stands for all before it. Two things do not wait for the disk, because they need nothing written: a
step that leaves the state as it was, and letting the committed version answer after a start or a failure.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Container
from typing import NamedTuple

from agent.hosting.host import Host
from agent.hosting.hosted import Hosted
from agent.life.actions import Step
from agent.life.machine import advance
from agent.life.slots import Slots
from agent.life.store import LifeStore, Stored
from agent.life.terms import (
    Clean,
    Damaged,
    Effect,
    Event,
    Failed,
    Life,
    Ordered,
    Phase,
    Release,
    Report,
    Rest,
    Restarted,
    Serve,
    Stopped,
    Withdrawn,
    Work,
)
from agent.life.work import Workshop
from agent.log import unexpected_failure
from agent.telemetry.outbox import Outbox
from fleet.protocol.errors import MusterError, StorageError
from fleet.protocol.records import DeploymentReport

log = logging.getLogger(__name__)

RETRY_S = 5.0


class Surroundings(NamedTuple):
    """What the shell of a model works with; all models share it.

    Attributes:
        store: Where states are written.
        slots: Installed versions.
        host: The versions that answer.
        outbox: Where reports go.
        workshop: Does the work of the phases.
        on_change: Told after each change of state.
        on_incident: Told of what a person may have to know.
    """

    store: LifeStore
    slots: Slots
    host: Host
    outbox: Outbox
    workshop: Workshop
    on_change: Callable[[], None]
    on_incident: Callable[[MusterError], None]


class ModelShell:
    """The life of one model.

    Args:
        model: Its name.
        stored: Its state as it was written.
        around: What to work with.
        clean: Removes from the disk what no model needs any more; may raise `StorageError`.
    """

    def __init__(
        self, model: str, stored: Stored, around: Surroundings, clean: Callable[[str], None]
    ) -> None:
        self.life: Life = stored.life
        self._model = model
        self._around = around
        self._clean_disk = clean
        self._unsent = stored.reports
        self._unwritten: deque[Event] = deque()
        self._work: asyncio.Task[None] | None = None
        self._loading: asyncio.Task[None] | None = None
        self._coming: Release | None = None  # what is being loaded
        self._ready: dict[Release, Hosted] = {}  # in memory and not answering
        self._retry: asyncio.TimerHandle | None = None

    @property
    def has_unsent_reports(self) -> bool:
        """Whether something is still to be told that is written with the state alone."""
        return bool(self._unsent)

    def start(self) -> None:
        """Go on from the written state."""
        self.handle(Restarted())

    def handle(self, event: Event) -> None:
        """Take an event through the machine and carry out what follows, after those that still wait."""
        if isinstance(event, Ordered | Withdrawn):
            kept = [waiting for waiting in self._unwritten if not isinstance(waiting, Ordered | Withdrawn)]
            self._unwritten = deque(kept)
        self._unwritten.append(event)
        self._go_on()

    async def close(self) -> None:
        """End in an orderly way: a trial that is going on does not count this as a crash."""
        self.handle(Stopped())
        tasks = [task for task in (self._work, self._loading) if task is not None and not task.done()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=0.3)
        if self._retry is not None:
            self._retry.cancel()
        for hosted in (*self._ready.values(), self._around.host.put(self._model, None)):
            if hosted is not None:
                self._retire(hosted)

    def _go_on(self) -> None:
        """Take the events that wait, in their order, as far as the disk allows."""
        while self._unwritten:
            event = self._unwritten[0]
            step = advance(self.life, event)
            if not self._write(step):
                if isinstance(event, Restarted | Failed):
                    self._stop_work()
                    self._serve(self.life.active)
                self._retry_later()
                return
            self._unwritten.popleft()
            if step.effects:
                for effect in step.effects:
                    self._carry_out(effect)
                self._around.on_change()

    def _write(self, step: Step) -> bool:
        """Write what a step changes down; tell whether it is written."""
        new = tuple(effect for effect in step.effects if isinstance(effect, Report))
        if step.life != self.life or new:
            try:
                self._around.store.save(self._model, Stored(step.life, (*self._unsent, *new)))
            except StorageError as error:
                self._around.on_incident(error)
                return False
        if step.life.phase is not self.life.phase:
            log.info("Model %s: %s -> %s.", self._model, self.life.phase, step.life.phase)
        self.life, self._unsent = step.life, (*self._unsent, *new)
        self._send_reports()
        return True

    def _send_reports(self) -> None:
        if not self._unsent:
            return
        now_s = time.time()
        try:
            self._around.outbox.put(
                *(
                    DeploymentReport(now_s, r.deployment_id, self._model, r.version, r.state, r.cause)
                    for r in self._unsent
                )
            )
        except StorageError as error:  # the reports stay with the state
            log.warning("%s", error)
            self._retry_later()
            return
        self._unsent = ()
        try:
            self._around.store.save(self._model, Stored(self.life))
        except StorageError as error:  # after a crash they would be told twice, which does no harm
            log.warning("%s", error)

    def _retry_later(self) -> None:
        if self._retry is None:
            self._retry = asyncio.get_running_loop().call_later(RETRY_S, self._try_again)

    def _try_again(self) -> None:
        self._retry = None
        if self._unsent:
            self._send_reports()
            if self.life == Life() and not self._unsent and not self._unwritten:
                self._clean()  # a model that was removed stays until that is told
        self._go_on()

    def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Serve(release):
                self._serve(release)
            case Work():
                self._stop_work()
                self._work = asyncio.ensure_future(self._do_work(self.life))
            case Rest():
                self._stop_work()
                self._let_go(but=(self.life.active, self.life.previous))
            case Clean():
                self._clean()
            case Report():
                pass  # sent when the state was written

    def _stop_work(self) -> None:
        if self._work is not None and self._work is not asyncio.current_task():
            self._work.cancel()
        self._work = None

    async def _do_work(self, life: Life) -> None:
        """Do the work of a phase; its outcome is the next event."""
        try:
            if life.phase in {Phase.SHADOW, Phase.TRIAL} and self._loading is not None:
                await asyncio.wait([self._loading])
            event = await self._around.workshop.work(self._model, life, self._ready)
        except MusterError as error:
            event = Failed(life.deployment_id, error.cause())
        except Exception:
            log.exception("Model %s: the work of %s failed unexpectedly.", self._model, life.phase)
            event = Failed(life.deployment_id, unexpected_failure().cause())
        self.handle(event)

    def _serve(self, release: Release | None) -> None:
        """Let a version answer: at once if it is in memory, else as soon as it is loaded."""
        if self._loading is not None:
            if self._coming == release and not self._loading.done():
                return
            self._loading.cancel()
            self._loading = None
        current = self._around.host.get(self._model)
        if current is not None and current.release == release:
            return
        if release is None:
            self._swap(None)
        elif release in self._ready:
            self._swap(self._ready.pop(release))
        else:
            self._coming = release
            self._loading = asyncio.ensure_future(self._load(release))

    async def _load(self, release: Release) -> None:
        try:
            hosted = await self._around.workshop.load(self._model, release)
        except MusterError as error:
            if release == self.life.candidate:
                self.handle(Failed(self.life.deployment_id, error.cause()))
            else:
                self._around.on_incident(error)
                self.handle(Damaged(release))
            return
        self._swap(hosted)
        self._around.on_change()

    def _swap(self, hosted: Hosted | None) -> None:
        before = self._around.host.put(self._model, hosted)
        if hosted is not None:
            hosted.counter.begin(time.time())
        if before is None:
            return
        if before.release in (self.life.active, self.life.previous):  # a trial may bring it back at once
            self._ready[before.release] = before
            self._flush(before)
        else:
            self._retire(before)

    def _clean(self) -> None:
        """Let go of versions in memory that do not answer, then of what is on disk."""
        self._let_go()
        try:
            self._clean_disk(self._model)
        except StorageError as error:
            self._around.on_incident(error)

    def _let_go(self, but: Container[Release | None] = ()) -> None:
        """Let go of versions in memory that do not answer: others may need the room."""
        for release in [release for release in self._ready if release not in but]:
            self._retire(self._ready.pop(release))

    def _retire(self, hosted: Hosted) -> None:
        self._flush(hosted)
        hosted.close()

    def _flush(self, hosted: Hosted) -> None:
        window = hosted.counter.close(time.time())
        if window is not None:
            try:
                self._around.outbox.put(window)
            except StorageError as error:
                log.warning("A telemetry window is lost: %s", error)
