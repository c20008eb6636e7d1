"""Captured samples on the hub: who may capture what, taking samples in, and giving them out for labelling.

A sample is taken in only from a device that has a policy for the model, captured before it ended, in the
form that the version takes, and within what the policy allows in a day. Everything else is refused, told as a
dead letter, and acknowledged all the same, for sending it again would not help. Samples go when they are too
old, when all of them are too large together, or when somebody deletes them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, Protocol

import msgspec

from fleet.protocol.assignment import CLOCK_TOLERANCE_S
from fleet.protocol.capture import CapturePolicy
from fleet.protocol.errors import Conflict, InvalidMessage, NotFound
from fleet.protocol.samples import Sample, SampleMessage, check_sample, read_sample
from hub.registry.lookups import Known
from hub.store.protocols import DeviceStore, SampleStore, WishStore
from hub.store.rows import Action, DeviceRow
from hub.store.sample_rows import SampleFilter, SampleRow

DAY_S = 86400.0
GRACE_S = 30 * DAY_S
"""How long after a policy has ended a device may send what it captured before: it may have been away. No
clock of a device keeps a policy going for longer."""
DAYS_AT_ONCE = 2
"""What a device may send in a day: what it captured that day and what waited from the day before."""


class SamplingStore(DeviceStore, WishStore, SampleStore, Protocol):
    """What samples need of the store."""


class Ordered(NamedTuple):
    """What became of a policy.

    Attributes:
        changed: Devices whose policy changed.
        refused: Devices that cannot capture, and why not.
    """

    changed: list[str]
    refused: dict[str, str]


class Samples:
    """Policies and samples. Its methods block on the store: call them in a thread.

    Args:
        store: Keeps them.
        manifest: Looks up versions that have a bundle.
        on_orders: Called after a policy was stored: assignments wait to be sent.
        budget_bytes: How much all samples may take.
        retention_s: How long a sample is kept.
    """

    def __init__(
        self,
        store: SamplingStore,
        *,
        manifest: Known,
        on_orders: Callable[[], None],
        budget_bytes: int,
        retention_s: float,
    ) -> None:
        self._store = store
        self._manifest = manifest
        self._on_orders = on_orders
        self._budget_bytes = budget_bytes
        self._retention_s = retention_s

    def order(
        self, model: str, devices: Iterable[DeviceRow], policy: CapturePolicy | None, *, by: str
    ) -> Ordered:
        """Let devices capture inputs of a model by a policy, or no more.

        Args:
            model: Name of the model.
            devices: Which devices.
            policy: None to take it back.
            by: Who orders it.

        Raises:
            Conflict: None of several devices can capture.
        """
        able, refused = [], {}
        for device in devices:
            if policy is None or device.capabilities.captures_samples:
                able.append(device.device_id)
            else:
                refused[device.device_id] = "Its owner does not allow it, or its agent does not know of it."
        if refused and not able:
            raise Conflict(
                f"No device that is meant may capture samples of {model}.",
                remedy="Set allow_sample_capture on the devices; they tell the hub when they connect again.",
            )
        action = Action(time.time(), by, _told(model, policy))
        changed = self._store.set_capture(model, able, policy, action)
        if changed:
            self._on_orders()
        return Ordered(changed, refused)

    def take(self, device_id: str, message: SampleMessage, now_s: float) -> None:
        """Keep a sample that a device sent.

        Raises:
            NotFound: There is no such version.
            InvalidMessage: It was not asked for, is not of this version, or more came than the policy allows.
            MessageTooLarge: It is larger than a sample may be.
        """
        sample = message.sample
        policies = self._store.captures(model=sample.model, device_id=device_id)
        if not policies:
            raise InvalidMessage(f"{device_id} is not asked for samples of {sample.model}.")
        policy = policies[0].policy
        _check_time(policy, sample, now_s)
        if sample.size_bytes > policy.sample_bytes:
            raise InvalidMessage(
                f"A sample has {sample.size_bytes} bytes; {policy.sample_bytes} are ordered."
            )
        if policy.redaction is not None and sample.redaction != policy.redaction:
            raise InvalidMessage(f"A sample of {sample.model} did not go through {policy.redaction}.")
        digest, manifest = self._manifest(sample.model, sample.version)
        check_sample(sample, digest, manifest.signature)
        if sample.feature and sample.feature not in {each.name for each in manifest.reference.features}:
            raise InvalidMessage(f"A sample is said to drift in {sample.feature!r:.80}, which is no feature.")
        before = self._store.sample_bytes(device_id, sample.model, since_s=now_s - DAY_S)
        if before + sample.size_bytes > DAYS_AT_ONCE * policy.bytes_per_day:
            raise InvalidMessage(f"{device_id} sends more samples of {sample.model} than are ordered.")
        self._store.add_sample(device_id, message, now_s=now_s, budget_bytes=self._budget_bytes)

    def forget_old(self, now_s: float) -> int:
        """Delete samples that are older than they may become; return how many."""
        return self._store.delete_samples(SampleFilter(until_s=now_s - self._retention_s))

    def delete(self, wanted: SampleFilter, *, by: str) -> int:
        """Delete samples for good, and remember who did it; return how many.

        Raises:
            Conflict: Nothing says which.
        """
        if wanted == SampleFilter():
            raise Conflict(
                "Every sample of the fleet is meant.", remedy="Say which: by device, model or time."
            )
        deleted = self._store.delete_samples(wanted)
        if wanted.device_id is not None and deleted:
            self._remember(wanted.device_id, by, f"{deleted} captured sample(s) deleted.")
        return deleted

    def read(self, rows: Sequence[SampleRow], *, by: str) -> list[tuple[SampleRow, Sample]]:
        """Return samples with their inputs, and remember who took them; those that are gone are left out."""
        data = self._store.sample_data([row.number for row in rows])
        found = [(row, read_sample(data[row.number])) for row in rows if row.number in data]
        for device_id in sorted({row.device_id for row, _ in found}):
            count = sum(row.device_id == device_id for row, _ in found)
            self._remember(device_id, by, f"{count} captured sample(s) downloaded.")
        return found

    def _remember(self, device_id: str, by: str, text: str) -> None:
        try:
            self._store.add_action(device_id, Action(time.time(), by, text))
        except NotFound:
            return  # its samples outlive a device


def _check_time(policy: CapturePolicy, sample: Sample, now_s: float) -> None:
    """Refuse what was captured after its policy ended; what was before may come `GRACE_S` later."""
    late_s = sample.at_s - policy.expires_at_s
    if late_s > CLOCK_TOLERANCE_S:
        raise InvalidMessage(f"A sample was captured {late_s:.0f} s after its policy had ended.")
    if now_s > policy.expires_at_s + GRACE_S:
        raise InvalidMessage(
            f"A sample came more than {GRACE_S / DAY_S:.0f} days after its policy had ended."
        )


def _told(model: str, policy: CapturePolicy | None) -> str:
    if policy is None:
        return f"Samples of {model} are captured no more."
    return f"Samples of {model} are captured: {msgspec.json.encode(policy).decode()}."
