"""Everything that happened to one device, newest first: several accounts merged by the hub's time.

==============  ==============================================================================================
kind            from
==============  ==============================================================================================
``deployment``  the device's reports of what became of an order
``incident``    what the device reported that belongs to no deployment
``window``      what its versions did in each hour or day; dated by its beginning
``alarm``       the drift alarms that are raised for it now, and alerts that named it, as they began and ended
``order``       what the newest five rollouts that it was part of sent it
``action``      what operators did about it
==============  ==============================================================================================
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Collection, Iterable, Iterator
from enum import StrEnum

import msgspec

from fleet.protocol.errors import Cause, NotFound
from fleet.protocol.latency import quantile_us
from fleet.protocol.records import DeploymentReport, Incident
from fleet.rollout.state.rollout import Rollout
from hub.query.times import TimeRange, check_spans
from hub.store.protocols import RecordStore, Store
from hub.store.rows import StoredRecord
from hub.store.telemetry_rows import ONE_DEVICE, RollupRow

_PAGE = 200
_MAX_ACTIONS = 1000
_MAX_ALERTS = 1000
_MAX_ROLLOUTS = 5  # of a large fleet each takes a good part of a second to read
_ORDER = re.compile(r"r(\d{1,15})-")


class Kind(StrEnum):
    """Kinds of entries, see the head of this file."""

    DEPLOYMENT = "deployment"
    INCIDENT = "incident"
    WINDOW = "window"
    ALARM = "alarm"
    ORDER = "order"
    ACTION = "action"


class Entry(msgspec.Struct, frozen=True):
    """One thing that happened.

    Attributes:
        at_s: When, by the hub's clock.
        kind: What kind of thing.
        text: One sentence.
        device_at_s: When, by the device's clock; None where the device does not say.
        model: The model it is about; None for none.
        version: Its version; None for none.
        deployment_id: The deployment; None for none.
        state: The state that the deployment reached; None for none.
        cause: Why it failed; None if it did not.
        by: Who did it; None if nobody.
    """

    at_s: float
    kind: Kind
    text: str
    device_at_s: float | None = None
    model: str | None = None
    version: int | None = None
    deployment_id: str | None = None
    state: str | None = None
    cause: Cause | None = None
    by: str | None = None


def timeline(
    store: Store, device_id: str, within: TimeRange, resolution_s: int, kinds: Collection[Kind]
) -> Iterator[Entry]:
    """Yield what happened to a device, newest first.

    Args:
        store: Knows it.
        device_id: The device.
        within: From when to when, by the hub's clock.
        resolution_s: Length of the spans in which windows are told: 3,600 or 86,400.
        kinds: Which kinds of entries.

    Raises:
        InvalidInput: There would be too many spans.
    """
    accounts: list[Iterable[Entry]] = []
    if {Kind.DEPLOYMENT, Kind.INCIDENT}.intersection(kinds):
        records = _records(store, device_id, within)
        accounts.append(entry for entry in records if entry.kind in kinds)
    if Kind.WINDOW in kinds:
        check_spans(within, resolution_s)
        accounts.append(_windows(store, device_id, within, resolution_s))
    if Kind.ALARM in kinds:
        accounts.append(_newest_first(_alarms(store, device_id), within))
    if Kind.ORDER in kinds:
        accounts.append(_newest_first(_orders(store, device_id), within))
    if Kind.ACTION in kinds:
        actions = store.actions(device_id, limit=_MAX_ACTIONS)
        told = (Entry(action.at_s, Kind.ACTION, action.text, by=action.by) for action in actions)
        accounts.append(_newest_first(told, within))
    return heapq.merge(*accounts, key=lambda entry: entry.at_s, reverse=True)


def _newest_first(entries: Iterable[Entry], within: TimeRange) -> list[Entry]:
    found = [entry for entry in entries if within.start_s <= entry.at_s < within.end_s]
    return sorted(found, key=lambda entry: entry.at_s, reverse=True)


def _records(store: RecordStore, device_id: str, within: TimeRange) -> Iterator[Entry]:
    before: int | None = None
    while records := store.timeline(device_id, before=before, limit=_PAGE):
        for record in records:
            if record.received_at_s < within.start_s:
                return
            if record.received_at_s < within.end_s:
                yield _of_record(record)
        before = records[-1].position


def _of_record(record: StoredRecord) -> Entry:
    body = record.body
    assert isinstance(body, DeploymentReport | Incident)
    if isinstance(body, Incident):
        return Entry(
            record.received_at_s, Kind.INCIDENT, body.cause.detail, device_at_s=body.at_s, cause=body.cause
        )
    what = f"version {body.version}" if body.version else "removal"
    return Entry(
        record.received_at_s,
        Kind.DEPLOYMENT,
        f"{body.model}: {what} {body.state.value}{f': {body.cause.detail}' if body.cause else '.'}",
        device_at_s=body.at_s,
        model=body.model,
        version=body.version,
        deployment_id=body.deployment_id,
        state=body.state.value,
        cause=body.cause,
    )


def _windows(store: Store, device_id: str, within: TimeRange, resolution_s: int) -> Iterator[Entry]:
    spans = within.aligned(resolution_s)
    models = {total.model for total in store.totals(device_id=device_id)}
    for end_s in range(int(spans.end_s), int(spans.start_s), -_PAGE * resolution_s):
        rows: list[RollupRow] = []
        for model in sorted(models):
            rows += store.rollups(
                model=model,
                key=ONE_DEVICE,
                values=[device_id],
                start_s=max(spans.start_s, end_s - _PAGE * resolution_s),
                end_s=end_s,
                resolution_s=resolution_s,
                profiles=False,
            )
        rows.sort(key=lambda row: -row.start_s)
        yield from (_of_window(row) for row in rows)


def _of_window(row: RollupRow) -> Entry:
    window, slowest = row.window, quantile_us(row.window.latency, 0.99)
    parts = [f"{window.predictions:,} answers", f"{window.errors:,} failed"]
    if window.labelled:
        parts.append(f"{window.correct:,} of {window.labelled:,} labelled ones right")
    if slowest is not None:
        parts.append(f"99 % within {slowest:,.0f} µs")
    hours = row.duration_s // 3600
    return Entry(
        float(row.start_s),
        Kind.WINDOW,
        f"{row.model} version {row.version}, {hours} h: {', '.join(parts)}.",
        device_at_s=window.ended_at_s,
        model=row.model,
        version=row.version,
    )


def _alarms(store: Store, device_id: str) -> Iterator[Entry]:
    for row in store.drift(device_id=device_id):
        at_s = row.raised_at_s
        if row.alarm.raised and at_s is not None:
            told = "; ".join(look.sentence for look in row.last_look if look.feature in row.alarm.raised)
            yield Entry(at_s, Kind.ALARM, f"Drift: {told}.", model=row.model, version=row.version)
    for _, alert in store.alerts(limit=_MAX_ALERTS):
        if device_id not in alert.matter.devices:
            continue
        title, model, version = alert.matter.title, alert.matter.model, alert.matter.version
        yield Entry(alert.started_at_s, Kind.ALARM, f"Alert began: {title}.", model=model, version=version)
        if alert.ended_at_s is not None:
            yield Entry(alert.ended_at_s, Kind.ALARM, f"Alert ended: {title}.", model=model, version=version)


def _orders(store: Store, device_id: str) -> Iterator[Entry]:
    """Yield what the newest rollouts that the device was part of sent it."""
    named = {order.deployment_id for order in store.desired(device_id).orders}
    for record in store.timeline(device_id, limit=_PAGE):
        if isinstance(record.body, DeploymentReport):
            named.add(record.body.deployment_id)
    numbers = {int(match[1]) for name in named if (match := _ORDER.match(name))}
    for number in sorted(numbers, reverse=True)[:_MAX_ROLLOUTS]:
        try:
            rollout = store.rollout(number).state
        except NotFound:
            continue
        yield from _orders_of(rollout, device_id)


def _orders_of(rollout: Rollout, device_id: str) -> Iterator[Entry]:
    deployment = rollout.deployments.of_device(device_id)
    if deployment is None:
        return
    ways = [(deployment.attempt, rollout.version), (deployment.restore, deployment.previous_version)]
    for attempt, version in ways:
        if attempt is not None and attempt.ordered_s is not None:
            what = "the removal" if version is None else f"version {version}"
            yield Entry(
                attempt.ordered_s,
                Kind.ORDER,
                f"Rollout {rollout.number} orders {what} of {rollout.model}.",
                model=rollout.model,
                version=version,
                deployment_id=attempt.deployment_id,
            )
