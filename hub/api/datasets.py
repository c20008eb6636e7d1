"""Routes: datasets."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

import msgspec
from fastapi import APIRouter, Request

from fleet.protocol.errors import MessageTooLarge
from fleet.protocol.names import checked_name
from hub.api.auth import Operator, Viewer
from hub.api.paging import Limit
from hub.api.schemas import DatasetOut, Page
from hub.api.services import Hub
from hub.durable import storage_error
from hub.registry.datasets import register_dataset
from hub.store.rows import DatasetRow

router = APIRouter(tags=["datasets"])


@router.put("/datasets/{name}", status_code=201)
async def add_dataset(name: str, request: Request, hub: Hub, _: Operator) -> DatasetOut:
    """Register a dataset: the body is the ``.npz`` file. The same bytes again change nothing."""
    checked_name(name, "dataset name")
    try:
        with tempfile.TemporaryDirectory(prefix="muster-upload-") as folder:
            file = Path(folder) / "dataset.npz"
            await _receive(request, file, hub.settings.maximum_upload_bytes)
            row = await asyncio.to_thread(
                register_dataset, hub.store, hub.datasets, name=name, file=file, now_s=time.time()
            )
    except OSError as error:
        raise storage_error(Path(tempfile.gettempdir()), error) from error
    return _out(row)


@router.get("/datasets")
def list_datasets(hub: Hub, _: Viewer, after: str = "", limit: Limit = 100) -> Page[DatasetOut]:
    """List datasets by name."""
    rows = hub.store.datasets(after=after, limit=limit)
    return Page(items=[_out(row) for row in rows], next=rows[-1].name if len(rows) == limit else None)


@router.get("/datasets/{name}")
def show_dataset(name: str, hub: Hub, _: Viewer) -> DatasetOut:
    """Show one dataset."""
    return _out(hub.store.dataset(name))


async def _receive(request: Request, file: Path, maximum_bytes: int) -> None:
    received = 0
    with file.open("wb") as target:
        async for part in request.stream():
            received += len(part)
            if received > maximum_bytes:
                raise MessageTooLarge(
                    f"The dataset is larger than {maximum_bytes} bytes.",
                    remedy="Raise the hub's setting maximum_upload_bytes.",
                )
            await asyncio.to_thread(target.write, part)


def _out(row: DatasetRow) -> DatasetOut:
    return DatasetOut(**msgspec.to_builtins(row))
