"""Carrying out what the hub wishes of this device beside its models: see `fleet.protocol.wishes`.

Every assignment says all of it, also the last one that is read again at the start; so each wish is carried
out as a state, not as a command, and nothing of it is kept here. The request for a diagnostic bundle is the
one that must not be carried out twice: the outbox remembers which was answered, in the transaction that takes
the answer in.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from agent.life.gate import Gate
from agent.log import set_level, unexpected_failure
from agent.settings import Settings
from agent.telemetry.outbox import Outbox
from agent.threads import run_to_end
from fleet.protocol.errors import MusterError, StorageError
from fleet.protocol.records import Diagnostics
from fleet.protocol.wishes import Wishes

if TYPE_CHECKING:
    from agent.diagnostics import Live

log = logging.getLogger(__name__)

RETRY_S = 30.0


class Remote:
    """Carries out wishes.

    Args:
        state: The state folder.
        settings: What holds where nothing is wished.
        gate: Is told whether updates are held.
        outbox: Takes diagnostic bundles.
        live: Gives what only the running agent knows.
        on_answer: Told when a bundle was put into the outbox.
        on_incident: Told of what a person may have to know.
    """

    def __init__(
        self,
        state: Path,
        settings: Settings,
        gate: Gate,
        outbox: Outbox,
        *,
        live: Callable[[], Live],
        on_answer: Callable[[], None],
        on_incident: Callable[[MusterError], None],
    ) -> None:
        self._state = state
        self._settings = settings
        self._gate = gate
        self._outbox = outbox
        self._live = live
        self._on_answer = on_answer
        self._on_incident = on_incident
        self._request_id: str | None = None
        self._answering: asyncio.Task[None] | None = None

    def apply(self, wishes: Wishes) -> None:
        """Carry out the wishes of an accepted assignment, in place of those before."""
        set_level(wishes.log_level or self._settings.log_level)
        self._gate.hear_hub(wishes.updates_held)
        if wishes.diagnostics is not None and wishes.diagnostics != self._request_id:
            self.close()
            self._request_id = wishes.diagnostics
            self._answering = asyncio.ensure_future(self._answer(wishes.diagnostics))

    def close(self) -> None:
        """Stop collecting; at the next start it begins anew."""
        if self._answering is not None:
            self._answering.cancel()

    async def _answer(self, request_id: str) -> None:
        """Answer a request for a bundle, unless it was answered; again while the disk does not allow it."""
        from agent.diagnostics import collect  # rarely needed, and not before the first answer

        while True:
            try:
                if not self._outbox.has_answered(request_id):
                    data = await run_to_end(partial(collect, self._state, self._live(), request_id))
                    self._outbox.put_answer(Diagnostics(time.time(), request_id, data))
                    log.info("The diagnostic bundle of request %s was made: %d bytes.", request_id, len(data))
                    self._on_answer()
            except StorageError as error:
                self._on_incident(error)
                await asyncio.sleep(RETRY_S)
                continue
            except MusterError as error:
                self._on_incident(error)
            except Exception:
                log.exception("The diagnostic bundle of request %s could not be made.", request_id)
                self._on_incident(unexpected_failure())
            return
