"""Ends the process when its event loop has stood still for too long, so that it can be started again.

A quick model computes in the event loop (`agent.execution`). Should one hang there, nobody in Python can end
it; a thread of ``faulthandler``, written in C, can: unless it is put off in time, it writes every thread's
stack to the log and ends the process. Whatever supervises the agent starts it again, and the committed
version is loaded anew. Under systemd the service's own watchdog does the same.
"""

from __future__ import annotations

import asyncio
import faulthandler

PUT_OFF_PER_LIMIT = 4
"""How often it is put off within the time that it allows."""


async def end_when_stalled(limit_s: float) -> None:
    """Put the end off for as long as the event loop turns.

    Args:
        limit_s: How long the event loop may stand still.
    """
    while True:
        faulthandler.dump_traceback_later(limit_s, exit=True)
        await asyncio.sleep(limit_s / PUT_OFF_PER_LIMIT)
