"""When demand has settled: how long chunks wait before they are published, for all who want them together.

A publication costs the same however many devices it reaches, and devices of a stage come to want a blob one
after the other, over seconds. So chunks wait until nobody new has asked for a pause; if somebody asks all the
time, they wait `longest_s` and no more::

    wants       |  | ||  |   |                                | || || | |||| || || | || ||| || |
                             └── pause ──► published          └────────── longest_s ──────────► published

A device that is alone is thus served after a short pause, `pause_s`. The more have come, the more are likely
to come, and what they said is likely to wait in the hub itself: the pause grows with each of them, up to
`crowd_pause_s` for a crowd of `CROWD`. Of devices that come without such a pause for a time T, at most
``T / longest_s + 2`` copies are published, one for each `longest_s` and one when all have come.
"""

from __future__ import annotations

CROWD = 64


class Settling:
    """One demand, from its first want until it has settled.

    Args:
        now_s: When the first want came, by a monotonic clock.
        pause_s: Of one device.
        crowd_pause_s: Of a crowd.
        longest_s: After so long it counts as settled.
    """

    def __init__(self, now_s: float, *, pause_s: float, crowd_pause_s: float, longest_s: float) -> None:
        self._pause_s = pause_s
        self._growth_s = (crowd_pause_s - pause_s) / (CROWD - 1)
        self._latest_s = now_s + longest_s
        self._devices: set[str] = set()
        self.due_s = min(now_s + pause_s, self._latest_s)

    def join(self, device_id: str, now_s: float) -> None:
        """Note that a device asks; to ask again delays nothing."""
        if device_id not in self._devices:
            self._devices.add(device_id)
            self.goes_on(now_s)

    def goes_on(self, now_s: float) -> None:
        """Note another reason to wait on: they get something of what they want right now."""
        more = min(len(self._devices), CROWD) - 1
        pause_s = self._pause_s + max(0, more) * self._growth_s
        self.due_s = max(self.due_s, min(now_s + pause_s, self._latest_s))
