"""Assignments from the broker to the models' lives.

An assignment whose signer is known is verified and written down at once, before it is acknowledged to the
broker. One whose signer is not known waits in memory while the image repository is asked who the director
is; if the process ends meanwhile, the next `Hello` tells the hub what this device has accepted, and the hub
sends it again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from agent.backoff import Backoff
from agent.trust.director import Director
from agent.trust.image_repository import ImageRepository
from fleet.protocol.assignment import Assignment
from fleet.protocol.errors import MusterError, Unavailable

log = logging.getLogger(__name__)

MAX_WAITING = 8
"""Assignments of unknown signers that are kept, at most: the latest."""


class Orders:
    """Takes assignments.

    Args:
        director: Verifies them and remembers the last.
        repository: Says who the director is.
        refresh_interval_s: How long the director's keys are believed without asking again.
        apply: Carries an accepted assignment out.
        on_incident: Told of what is refused at the start, or after it waited for its signer.
        backoff: The waits between attempts to reach the repository.
    """

    def __init__(
        self,
        director: Director,
        repository: ImageRepository,
        *,
        refresh_interval_s: float,
        apply: Callable[[Assignment], None],
        on_incident: Callable[[MusterError], None],
        backoff: Backoff,
    ) -> None:
        self._director = director
        self._repository = repository
        self._refresh_interval_s = refresh_interval_s
        self._apply = apply
        self._on_incident = on_incident
        self._backoff = backoff
        self._waiting: deque[bytes] = deque(maxlen=MAX_WAITING)
        self._wake = asyncio.Event()
        self._due_s: float | None = None  # when to refresh; at the first occasion if None
        self._is_verified = True  # whether the assignment found at the start verified

    def start(self) -> bool:
        """Go on with the last accepted assignment, verified again.

        Returns:
            Whether it is known what was ordered last; not if the assignment cannot be verified now.
        """
        try:
            assignment = self._director.load()
        except MusterError as error:
            self._is_verified = False
            self._on_incident(error)
            return False
        if assignment is not None:
            self._apply(assignment)
        return True

    def on_connected(self) -> None:
        """See whether the director's keys are due to be refreshed."""
        self._wake.set()

    def on_assignment(self, message: bytes) -> None:
        """Take an assignment from the broker: accept it, or keep it until its signer is known.

        Raises:
            MusterError: It is refused.
        """
        if self._director.is_last(message):
            log.debug("The broker sent the last assignment again.")
        elif self._director.knows_signer(message):
            self._accept(message)
        else:
            self._waiting.append(message)
            self._wake.set()

    async def run(self) -> None:
        """Refresh the director's keys when they are due, or when an assignment waits for them."""
        while True:
            await self._wait()
            if not self._waiting and not self._is_due():
                continue
            try:
                self._director.trust(await self._repository.director_keys())
                self._due_s = asyncio.get_running_loop().time() + self._refresh_interval_s
                self._backoff.reset()
                self._verify_again()
            except Unavailable as error:
                log.warning("%s", error)
                await asyncio.sleep(self._backoff.next_s())
                self._wake.set()
                continue
            except MusterError as error:
                self._due_s = asyncio.get_running_loop().time() + self._backoff.next_s()
                self._on_incident(error)
            while self._waiting:
                try:
                    self._accept(self._waiting.popleft())
                except MusterError as error:
                    self._on_incident(error)

    async def _wait(self) -> None:
        """Wait for an occasion, or until a refresh is due."""
        try:
            async with asyncio.timeout_at(self._due_s):
                await self._wake.wait()
        except TimeoutError:
            return
        self._wake.clear()

    def _is_due(self) -> bool:
        return self._due_s is None or asyncio.get_running_loop().time() >= self._due_s

    def _verify_again(self) -> None:
        """Carry out what was found at the start and could not be verified for want of keys."""
        if not self._is_verified:
            self._is_verified = True
            with suppress(MusterError):  # told at the start
                self._apply(self._director.last_assignment())

    def _accept(self, message: bytes) -> None:
        if self._director.repeats_last(message):
            log.debug("The hub sent the last orders again.")
            return
        assignment = self._director.accept(message, now_s=time.time())
        log.info("Accepted assignment %d.", assignment.sequence)
        self._apply(assignment)
