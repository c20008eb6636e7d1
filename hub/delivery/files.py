"""Answers devices that fetch files of the image repository, part by part."""

from __future__ import annotations

from fleet.protocol.messages import FILE_PART_SIZE_BYTES, FetchRequest, FileAnswer
from hub.trust.image_repository import ImageRepository


def answer_fetch(request: FetchRequest, repository: ImageRepository) -> FileAnswer:
    """Return the part of the file that was asked for.

    A file can be replaced between two parts (only the timestamp ever is, and it fits one part); the device
    checks the whole by length and digest.

    Args:
        request: From a device.
        repository: Where the files are.

    Raises:
        StorageError: The file is there and cannot be read.
    """
    data = repository.read(request.path)
    if data is None:
        return FileAnswer(request.request_id, None)
    part = data[request.offset : request.offset + FILE_PART_SIZE_BYTES]
    return FileAnswer(request.request_id, len(data), part)
