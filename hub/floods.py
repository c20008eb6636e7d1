"""Which devices of the fleet say too much: `fleet.flood` decides, quarantines are in the store."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol

from fleet.flood import BYTES_A_TOKEN, FloodLimits, FloodState, Verdict, admit, cost, full
from fleet.protocol.errors import MusterError, NotFound, Quarantined
from hub.store.protocols import QuarantineStore, WishStore
from hub.store.rows import Action, QuarantineRow

log = logging.getLogger(__name__)

KEPT_ACCOUNTS = 100_000
"""Of the devices that spoke last; one that said nothing for as long has a full account anyway."""


class FloodStore(QuarantineStore, WishStore, Protocol):
    """What is needed of the store."""


class Floods:
    """Admits messages, and keeps quarantines. Usable from any thread.

    Args:
        store: Keeps quarantines and what operators did.
        limits: What one device may do.
    """

    def __init__(self, store: FloodStore, limits: FloodLimits) -> None:
        self._store = store
        self._limits = limits
        self._lock = threading.Lock()
        self._accounts: OrderedDict[str, FloodState] = OrderedDict()
        self._left: dict[str, float] = {}  # tokens of devices that are calm, as they were counted last
        self.limited = 0
        self.ignored = 0
        now_s = time.time()
        for row in store.quarantines():
            self._accounts[row.device_id] = full(limits, now_s)._replace(quarantined_until_s=row.until_s)

    @property
    def quarantined(self) -> int:
        """How many devices are in quarantine."""
        now_s = time.time()
        return sum(row.until_s > now_s for row in self._store.quarantines())

    def admit(self, device_id: str, messages: Sequence[bytes], now_s: float) -> int:
        """Return how many of a device's messages are to be taken, from the first on.

        Args:
            device_id: Who sent them.
            messages: In the order of their arrival.
            now_s: Unix seconds.
        """
        short = max(map(len, messages)) < BYTES_A_TOKEN
        tokens = len(messages) if short else sum([cost(len(message)) for message in messages])
        left = self._left.get(device_id)
        if left is not None and left >= tokens:  # as nearly always: no clock, no lock
            self._left[device_id] = left - tokens
            return len(messages)
        return self._look(device_id, [cost(len(message)) for message in messages], now_s)

    def _look(self, device_id: str, costs: Sequence[int], now_s: float) -> int:
        with self._lock:
            state = self._accounts.pop(device_id, None) or full(self._limits, now_s)
            left = self._left.pop(device_id, state.tokens)
            decided = admit(state._replace(tokens=left), self._limits, costs, now_s)
            self._accounts[device_id] = decided.state
            if decided.state.is_calm:
                self._left[device_id] = decided.state.tokens
            if len(self._accounts) > KEPT_ACCOUNTS:
                oldest, _ = self._accounts.popitem(last=False)
                self._left.pop(oldest, None)
            if decided.verdict is Verdict.LIMITED:
                self.limited += len(costs) - decided.admitted
            elif decided.verdict is Verdict.QUARANTINED:
                self.ignored += len(costs)
        if decided.began:
            self._begin(device_id, now_s)
        return decided.admitted

    def lift(self, device_id: str, *, by: str) -> QuarantineRow:
        """Take a device out of quarantine and return it as it was.

        Args:
            device_id: Which device.
            by: The name of the API token.

        Raises:
            NotFound: It is in none.
        """
        now_s = time.time()
        rows = [row for row in self._store.quarantines(device_id=device_id) if row.until_s > now_s]
        if not rows:
            raise NotFound(
                f"{device_id!r:.80} is not in quarantine.", remedy="`muster device show` says who is in one."
            )
        self._store.end_quarantine(device_id)
        with self._lock:
            self._accounts[device_id] = full(self._limits, now_s)
            self._left.pop(device_id, None)
        self._store.add_action(device_id, Action(now_s, by, "Lifted the quarantine."))
        return rows[0]

    def _begin(self, device_id: str, now_s: float) -> None:
        error = Quarantined(
            f"{device_id} sent more than {self._limits.rate:g} messages a second for"
            f" {self._limits.quarantine_after_s:g} s;"
            f" for {self._limits.quarantine_s:g} s nothing of it is taken.",
            remedy="Find out why. `muster device lift-quarantine` takes it out early.",
        )
        log.warning("%s", error)
        row = QuarantineRow(device_id, now_s, now_s + self._limits.quarantine_s)
        try:
            self._store.begin_quarantine(row, error.cause())
        except MusterError as failure:  # it holds until the hub ends, and is shown nowhere
            log.error("The quarantine of %s could not be stored: %s", device_id, failure)
