"""The shapes of requests and answers about tags."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from hub.api.schemas import Name, Schema

MAX_CHANGES = 64

Tags = Annotated[list[Name], Field(default_factory=list, max_length=MAX_CHANGES)]


class TagsIn(Schema):
    """Tags that a device gets and loses."""

    add: Tags
    remove: Tags


class TagsOut(Schema):
    """The tags that a device has."""

    device_id: str
    tags: list[str]
