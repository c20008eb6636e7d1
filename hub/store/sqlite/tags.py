"""What devices are chosen by: the tags that operators gave them, and the names of their attributes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from fleet.protocol.errors import InvalidInput, NotFound
from hub.store.rows import Action
from hub.store.sqlite.database import Part
from hub.store.sqlite.wishes import remember_action

MAX_TAGS = 64
"""Most tags of one device."""


class SqliteTags(Part):
    """Implements `hub.store.protocols.TagStore`."""

    def attribute_names(self) -> set[str]:
        """Return the names of all attributes that some device has."""
        rows = self._database.rows(
            "SELECT DISTINCT each.key AS name FROM devices, json_each(devices.attributes) AS each"
        )
        return {row["name"] for row in rows}

    def tags(self, device_id: str) -> tuple[str, ...]:
        """Return a device's tags, sorted; none if there is no such device."""
        rows = self._database.rows("SELECT tag FROM tags WHERE device_id = ? ORDER BY tag", (device_id,))
        return tuple(row["tag"] for row in rows)

    def tags_of(self, device_ids: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """Return the tags of those of some devices that have any, sorted."""
        rows = self._database.rows(
            "SELECT device_id, tag FROM tags WHERE device_id IN (SELECT value FROM json_each(?))"
            " ORDER BY device_id, tag",
            (msgspec.json.encode(list(device_ids)).decode(),),
        )
        found: dict[str, list[str]] = {}
        for row in rows:
            found.setdefault(row["device_id"], []).append(row["tag"])
        return {device_id: tuple(tags) for device_id, tags in found.items()}

    def tag(
        self, device_id: str, *, add: Sequence[str], remove: Sequence[str], action: Action
    ) -> tuple[str, ...]:
        """Change a device's tags, see `hub.store.protocols.TagStore.tag`."""
        with self._database.writing() as db:
            if not db.execute("SELECT 1 FROM devices WHERE device_id = ?", [device_id]).fetchone():
                raise NotFound(f"There is no device {device_id!r:.80}.")
            before = {row[0] for row in db.execute("SELECT tag FROM tags WHERE device_id = ?", [device_id])}
            after = (before | set(add)) - set(remove)
            if len(after) > MAX_TAGS:
                raise InvalidInput(f"A device can have {MAX_TAGS} tags; {device_id} would have {len(after)}.")
            for tag in before - after:
                db.execute("DELETE FROM tags WHERE device_id = ? AND tag = ?", [device_id, tag])
            for tag in after - before:
                db.execute("INSERT INTO tags (device_id, tag) VALUES (?, ?)", [device_id, tag])
            if after != before:
                remember_action(db, device_id, action)
        return tuple(sorted(after))
