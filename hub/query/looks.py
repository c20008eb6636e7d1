"""The last looks at drift, device by device: in pages, so that no question reads the fleet at once."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import islice

import msgspec

from hub.query.devices import Search
from hub.store.protocols import DriftStore
from hub.store.rows import DriftRow

_DEVICES_AT_ONCE = 500


class LooksQuestion(msgspec.Struct, frozen=True):
    """Which looks are asked for.

    Attributes:
        model: Only of this model.
        device_id: Only of this device.
        current: Only of versions that devices run, by their last report.
        alarms: Only where the alarm is raised.
    """

    model: str | None = None
    device_id: str | None = None
    current: bool = True
    alarms: bool = False


def page_of_looks(
    store: DriftStore, asked: LooksQuestion, search: Search | None, *, after: str, limit: int
) -> tuple[list[DriftRow], str | None]:
    """Return the last looks at some devices, by id, model and version, and after which device there are more.

    Args:
        store: Keeps what the looks found.
        asked: Which looks.
        search: Finds the devices that are meant; None for all.
        after: Only devices whose id comes after it.
        limit: Most devices; all looks at a device are on one page.
    """
    page: list[DriftRow] = []
    devices = 0
    for row in _looks(store, asked, search, after, limit + 1):
        if not page or row.device_id != page[-1].device_id:
            if devices == limit:
                return page, page[-1].device_id
            devices += 1
        page.append(row)
    return page, None


def _looks(
    store: DriftStore, asked: LooksQuestion, search: Search | None, after: str, wanted: int
) -> Iterator[DriftRow]:
    for rows in _read(store, asked, search, after, min(wanted, _DEVICES_AT_ONCE)):
        yield from (row for row in rows if row.alarm.looks and (row.alarm.raised or not asked.alarms))


def _read(
    store: DriftStore, asked: LooksQuestion, search: Search | None, after: str, wanted: int
) -> Iterator[list[DriftRow]]:
    """Yield rows, of so many devices at a time."""
    read = partial(store.drift_page, model=asked.model, current=asked.current, alarms=asked.alarms)
    if search is None:
        only = None if asked.device_id is None else [asked.device_id]
        while rows := read(devices=only, after=after, limit=wanted):
            yield rows
            after = rows[-1].device_id
        return
    found = (row.device_id for row in search.devices(after=after, wanted=wanted))
    meant = (device_id for device_id in found if asked.device_id in {None, device_id})
    while ids := list(islice(meant, _DEVICES_AT_ONCE)):
        yield read(devices=ids, limit=len(ids))
