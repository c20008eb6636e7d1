"""Files that come as the body of a request: written to disk part by part, within a limit."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import Request

from fleet.protocol.errors import MessageTooLarge
from hub.durable import storage_error


@asynccontextmanager
async def uploaded(request: Request, maximum_bytes: int) -> AsyncGenerator[Path]:
    """Give the file that a request carries; it is gone afterwards.

    Args:
        request: Its body is the file.
        maximum_bytes: Largest that is taken; no more than this is ever written.

    Raises:
        MessageTooLarge: The file is larger.
        NoSpace: The disk is full.
        StorageError: The file cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="muster-upload-") as folder:
            file = Path(folder) / "upload"
            await _receive(request, file, maximum_bytes)
            yield file
    except OSError as error:
        raise storage_error(Path(tempfile.gettempdir()), error) from error


async def _receive(request: Request, file: Path, maximum_bytes: int) -> None:
    received = 0
    with file.open("wb") as target:
        async for part in request.stream():
            received += len(part)
            if received > maximum_bytes:
                raise MessageTooLarge(
                    f"The file is larger than {maximum_bytes} bytes.",
                    remedy="Raise the hub's setting maximum_upload_bytes.",
                )
            await asyncio.to_thread(target.write, part)
