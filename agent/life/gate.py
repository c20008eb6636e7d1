"""When a staged version may be swapped in: if the hub, the people at the device and its own programs agree.

============================  ====================================================  =========================
who                           how                                                   asked
============================  ====================================================  =========================
the hub                       its wish in the assignment                            all the time
people at the device          ``muster-agent hold``, see `agent.life.hold`          every `LOOK_S`
the order                     its maintenance window, on the device's clock         every `LOOK_S`
the settings                  ``maintenance_windows``, see `agent.life.maintenance` every `LOOK_S`
the device's own program      ``readiness_command``, see `agent.life.readiness`     ``readiness_interval_s``,
                                                                                    when all others agree
============================  ====================================================  =========================

An order that is *forced* asks the first two alone, unless the setting ``forced_updates`` forbids it: then it
is an order like any other. A window of the order opens no window that the settings keep closed.

Nothing fails open: what cannot be asked is taken for a no. That holds for the hub's wish as well, as long as
the last assignment could not be verified. Once a version was let through it is tested and tried to the end.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

import msgspec

from agent.life import hold
from agent.life.maintenance import Window, is_open, next_open_s, parse_windows, windows_of
from agent.life.readiness import ask
from agent.settings import Settings
from fleet.protocol.maintenance import Maintenance, Mode

log = logging.getLogger(__name__)

LOOK_S = 1.0
WAITING_FILE = "waiting.json"
_HELD_BY_HUB = "Updates are held by the hub."
_NO_WORD_OF_HUB = "The last assignment could not be verified: it is not known whether the hub holds updates."


class Gate:
    """Keeps staged versions waiting.

    Args:
        state: The state folder.
        settings: The agent's settings.
        on_change: Told when a version begins or ceases to wait, or waits for something else.
    """

    def __init__(self, state: Path, settings: Settings, on_change: Callable[[], None]) -> None:
        self._state = state
        self._settings = settings
        self._windows = parse_windows(settings.maintenance_windows)
        self._on_change = on_change
        self._against_by_hub: str | None = _NO_WORD_OF_HUB
        self._waiting: dict[str, str] = {}
        self._wake = asyncio.Event()
        self._asking = asyncio.Lock()  # one program at a time, however many models wait
        self._write()

    def hear_hub(self, held: bool) -> None:
        """Take the hub's word on whether updates are held."""
        self._against_by_hub = _HELD_BY_HUB if held else None
        self._wake.set()

    def waiting_for(self, model: str) -> str | None:
        """Return what a model's staged version waits for, a sentence; None if it does not wait."""
        return self._waiting.get(model)

    async def wait(self, model: str, maintenance: Maintenance | None = None, mode: Mode = Mode.SOFT) -> None:
        """Return when a model's staged version may be swapped in.

        Args:
            model: Its name.
            maintenance: The window of the order; None for any time.
            mode: Whom the order asks.
        """
        ordered = windows_of(maintenance)
        forced = mode is Mode.FORCED and self._settings.forced_updates
        try:
            while (against := await self._against(ordered, forced=forced)) is not None:
                reason, again_s = against
                self._tell(model, reason)
                self._wake.clear()
                try:
                    async with asyncio.timeout(again_s):
                        await self._wake.wait()
                except TimeoutError:
                    continue
        finally:
            self._tell(model, None)

    async def _against(self, ordered: Sequence[Window], *, forced: bool) -> tuple[str, float] | None:
        """Return what stands against a swap, and in how many seconds to look again; None if nothing does."""
        reason = self._standing(ordered, forced=forced)
        if reason is not None:
            return reason, LOOK_S
        if forced or not self._settings.readiness_command:
            return None
        async with self._asking:
            reason = await ask(self._settings.readiness_command, self._settings.readiness_timeout_s)
        if reason is not None:
            return reason, self._settings.readiness_interval_s
        reason = self._standing(ordered, forced=forced)  # it may have changed while the program was asked
        return None if reason is None else (reason, LOOK_S)

    def _standing(self, ordered: Sequence[Window], *, forced: bool) -> str | None:
        """Return what stands against a swap without asking a program."""
        if self._against_by_hub is not None:
            return self._against_by_hub
        held = hold.held(self._state)
        if held is not None:
            return held
        if forced:
            return None
        return _closed(self._windows, "The next") or _closed(ordered, "The rollout's next")

    def _tell(self, model: str, reason: str | None) -> None:
        if reason == self._waiting.get(model):
            return
        if reason is None:
            del self._waiting[model]
            log.info("Model %s waits no longer.", model)
        else:
            self._waiting[model] = reason
            log.info("Model %s waits: %s", model, reason)
        self._write()
        self._on_change()

    def _write(self) -> None:
        """Leave the reasons for `agent.status`, which must work without this process."""
        path = self._state / WAITING_FILE
        try:
            if not self._waiting:
                path.unlink(missing_ok=True)
                return
            temporary = path.with_name(f".{WAITING_FILE}.new")
            temporary.write_bytes(msgspec.json.encode(self._waiting))
            temporary.replace(path)  # without fsync: after a power cut nothing of it is true any more
        except OSError as error:
            log.warning("What models wait for cannot be written down: %s", error)


def read_waiting(state: Path) -> dict[str, str]:
    """Return what staged versions wait for, by model, as the agent that runs has written it down."""
    try:
        return msgspec.json.decode((state / WAITING_FILE).read_bytes(), type=dict[str, str])
    except (OSError, msgspec.DecodeError):
        return {}


def _closed(windows: Sequence[Window], which: str) -> str | None:
    """Return when windows open next, a sentence; None if they are open."""
    now_s = time.time()
    if is_open(windows, _local(now_s)):
        return None
    opens = _local(next_open_s(windows, now_s, datetime.fromtimestamp))
    return f"{which} maintenance window opens on {opens:%A, %Y-%m-%d at %H:%M}."


def _local(unix_s: float) -> datetime:
    """Return what the clock on the wall shows."""
    time.tzset()  # the zone may have been changed while the agent runs
    return datetime.fromtimestamp(unix_s)  # noqa: DTZ006 - the clock on the wall is what is asked for
