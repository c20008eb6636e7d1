"""What requests have in common with those before them: the model, the head, at best all but id and data.

An application asks in the same form again and again: of two of its frames only the request ids and the data
differ. That is told by comparing bytes where they lie, and then nothing of them is unpacked::

    0           8          12                        data
    ┌───────────┬──────────┬────────────────────────┬──────┐
    │ the same: │ request  │ the same: version,     │      │
    │ kind…     │ id       │ sizes, head            │      │
    └───────────┴──────────┴────────────────────────┴──────┘
"""

from __future__ import annotations

import struct

from agent.hosting.hosted import Hosted
from agent.serving.fast_frames import HEADER, Header
from agent.serving.fast_plan import Plan, plan_request
from agent.serving.fast_regions import Regions

MAX_PLANS = 64
_ID = struct.Struct("<I")
_ID_AT, _ID_END = 8, 12


class Opened:
    """A model that a client has opened, and the plans of its requests to the version that answers."""

    def __init__(self, model: str) -> None:
        self.model = model
        self._plans: dict[bytes, Plan] = {}
        self._release: object = None
        self._last: tuple[bytes, Plan] | None = None

    def plan(self, hosted: Hosted, header: Header, buffer: bytearray, regions: Regions) -> Plan:
        """Return the plan of a request: that of the last one, if it looks the same."""
        if self._release is not hosted.release:  # another version, perhaps with another signature
            self.forget_plans()
            self._release = hosted.release
        if self._last is not None:
            head, plan = self._last
            if (
                len(head) == header.head_bytes
                and plan.data_bytes == header.data_bytes
                and buffer.startswith(head, HEADER.size)
            ):
                return plan
        head = bytes(memoryview(buffer)[HEADER.size : HEADER.size + header.head_bytes])
        found = self._plans.get(head)
        if found is None or found.data_bytes != header.data_bytes:
            found = plan_request(head, header.data_bytes, hosted.manifest.signature, regions)
            if len(self._plans) >= MAX_PLANS:  # of shapes that change all the time
                self._plans.clear()
            self._plans[head] = found
        self._last = (head, found)
        return found

    def forget_plans(self) -> None:
        """Forget them: they may be of another version, or of regions that are no more."""
        self._plans.clear()
        self._last = None


class Form:
    """What requests that look the same have in common.

    Args:
        model: Name of the model that they ask.
        hosted: The version that answers them.
        plan: How they are carried out.
        header: Of one of them.
        buffer: Where it was received; it is at the beginning.
    """

    def __init__(self, model: str, hosted: Hosted, plan: Plan, header: Header, buffer: bytearray) -> None:
        self.model = model
        self.release = hosted.release
        self.plan = plan
        self.classes = hosted.manifest.signature.classes
        self.data_start = HEADER.size + header.head_bytes
        self.size_bytes = self.data_start + header.data_bytes
        self._begin = bytes(buffer[:_ID_AT])
        self._rest = bytes(memoryview(buffer)[_ID_END : self.data_start])

    def begins(self, buffer: bytearray, filled: int) -> bool:
        """Tell whether a buffer holds a request of this form, or the beginning of one, and nothing else.

        Args:
            buffer: Where requests are received.
            filled: How many bytes were.
        """
        return (
            self.data_start <= filled <= self.size_bytes
            and buffer.startswith(self._rest, _ID_END)
            and buffer.startswith(self._begin)
        )

    @staticmethod
    def request_id(buffer: bytearray) -> int:
        """Return the id of the request in a buffer."""
        number: int = _ID.unpack_from(buffer, _ID_AT)[0]
        return number
