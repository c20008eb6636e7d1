"""Files in ``/dev/shm`` for tests, and requests about them."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

from tests.support.agent_device import Reply
from tests.support.inference_server import Api

ROUTE = "/v2/systemsharedmemory"


class SharedFile:
    """A file in memory, as shm_open(3) makes it.

    Args:
        data: What is in it.
    """

    def __init__(self, data: bytes) -> None:
        self.name = f"muster-test-{uuid.uuid4().hex}"
        self.key = f"/{self.name}"
        self.path = Path("/dev/shm") / self.name
        self.path.touch(0o600, exist_ok=False)
        self.write(data)

    def write(self, data: bytes, offset: int = 0) -> None:
        """Put bytes into it."""
        with self.path.open("r+b") as file:
            file.seek(offset)
            file.write(data)

    def truncate(self, size_bytes: int) -> None:
        """Give its end back."""
        os.truncate(self.path, size_bytes)

    def read(self) -> bytes:
        """Return what is in it."""
        return self.path.read_bytes()

    def remove(self) -> None:
        """Remove it."""
        self.path.unlink(missing_ok=True)


def register(api: Api, name: str, key: str, byte_size: int, **more: Any) -> Reply:
    """Register a region."""
    return api.call("POST", f"{ROUTE}/region/{name}/register", {"key": key, "byte_size": byte_size, **more})


def unregister(api: Api, name: str | None = None) -> Reply:
    """Unregister a region, or all."""
    return api.call("POST", f"{ROUTE}/region/{name}/unregister" if name else f"{ROUTE}/unregister")


def inside(region: str, byte_size: int, offset: int = 0) -> dict[str, Any]:
    """Return the parameters of a tensor in a region."""
    named = {"shared_memory_region": region, "shared_memory_byte_size": byte_size}
    return {**named, "shared_memory_offset": offset} if offset else named
