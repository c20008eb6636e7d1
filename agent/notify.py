r"""Telling systemd how the service is: readiness, status, signs of life.

A service of ``Type=notify`` gets the address of a datagram socket in ``NOTIFY_SOCKET`` and sends lines of
``NAME=value`` to it: sd_notify(3). ``READY=1`` ends the start, ``STATUS=`` is shown by ``systemctl status``,
``STOPPING=1`` begins the end. If ``WATCHDOG_USEC`` is set, ``WATCHDOG=1`` must come within that many
microseconds again and again, and half of that is the interval asked for: sd_watchdog_enabled(3).

::

    NOTIFY_SOCKET=/run/systemd/notify    a path
    NOTIFY_SOCKET=@name                  a name in Linux's abstract namespace, sent as \0name

Without the variable nothing is sent: the agent runs under any supervisor, or none.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Mapping

from fleet.protocol.errors import InvalidConfiguration

log = logging.getLogger(__name__)

SEND_TIMEOUT_S = 0.2
STATUS_INTERVAL_S = 5.0


class Notifier:
    """Speaks to the service manager that started this process.

    Args:
        environment: Where ``NOTIFY_SOCKET``, ``WATCHDOG_USEC`` and ``WATCHDOG_PID`` may stand.

    Raises:
        InvalidConfiguration: One of them cannot be used; the manager would wait in vain.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._address = _address(environment.get("NOTIFY_SOCKET", ""))
        self.watchdog_interval_s = _watchdog_interval_s(environment) if self._address else None
        self._told_status = ""

    def ready(self, status: str) -> None:
        """Tell that the service has started."""
        self._told_status = status
        self._send("READY=1", f"STATUS={status}")

    def stopping(self) -> None:
        """Tell that the service has begun to end."""
        self._send("STOPPING=1", "STATUS=Stopping.")

    async def keep_telling(self, status: Callable[[], str]) -> None:
        """Send signs of life, and the status when it has changed, until cancelled.

        It lives in the event loop, so there are no signs of life from a loop that is blocked.

        Args:
            status: Gives one line for people.
        """
        if self._address is None:
            return
        interval_s = min(STATUS_INTERVAL_S, self.watchdog_interval_s or STATUS_INTERVAL_S)
        while True:
            lines = ["WATCHDOG=1"] if self.watchdog_interval_s else []
            text = status()
            if text != self._told_status:
                lines.append(f"STATUS={text}")
            if lines and self._send(*lines):
                self._told_status = text
            await asyncio.sleep(interval_s)

    def _send(self, *lines: str) -> bool:
        """Send lines; tell whether they have left. A manager that does not listen must not stop the agent."""
        if self._address is None:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(SEND_TIMEOUT_S)
                sender.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            log.warning("The service manager cannot be told %s: %s.", lines[0], error)
            return False
        return True


def _address(given: str) -> str | None:
    if not given:
        return None
    if given[0] == "/" and len(given) > 1:
        return given
    if given[0] == "@" and len(given) > 1:
        return "\0" + given[1:]
    raise InvalidConfiguration(f"NOTIFY_SOCKET={given!r:.120} is neither a path nor an abstract name.")


def _watchdog_interval_s(environment: Mapping[str, str]) -> float | None:
    """Return how often a sign of life is due: half of the time that is allowed; None if none is wanted."""
    given = environment.get("WATCHDOG_USEC", "")
    if not given or environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None  # the variables were meant for another process, and inherited
    if not given.isascii() or not given.isdigit() or not 0 < int(given[:20]) < 2**63:
        raise InvalidConfiguration(f"WATCHDOG_USEC={given!r:.40} is no number of microseconds.")
    return int(given) / 2e6
