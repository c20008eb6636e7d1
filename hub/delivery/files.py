"""Answers devices that fetch files of the image repository, part by part."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from fleet.protocol.messages import FILE_PART_SIZE_BYTES, FetchRequest, FileAnswer
from hub.trust.image_repository import ImageRepository


def answer_fetches(requests: Iterable[FetchRequest], repository: ImageRepository) -> list[FileAnswer]:
    """Return the parts of files that were asked for.

    Devices of a stage ask for the same files at about the same time, so each is read once for all requests.
    A file can be replaced between two parts (only the timestamp ever is, and it fits one part); the device
    checks the whole by length and digest.

    Args:
        requests: From devices.
        repository: Where the files are.

    Raises:
        StorageError: A file is there and cannot be read.
    """
    read = cache(repository.read)
    return [_part(request, read(request.path)) for request in requests]


def _part(request: FetchRequest, data: bytes | None) -> FileAnswer:
    if data is None:
        return FileAnswer(request.request_id, None)
    part = data[request.offset : request.offset + FILE_PART_SIZE_BYTES]
    return FileAnswer(request.request_id, len(data), part)
