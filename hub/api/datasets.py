"""Routes: datasets."""

from __future__ import annotations

import asyncio
import time

import msgspec
from fastapi import APIRouter, Request

from fleet.protocol.names import checked_name
from hub.api.auth import Operator, Viewer
from hub.api.paging import Limit
from hub.api.schemas import DatasetOut, Page
from hub.api.services import Hub
from hub.api.uploads import uploaded
from hub.registry.datasets import register_dataset
from hub.store.rows import DatasetRow

router = APIRouter(tags=["datasets"])


@router.put("/datasets/{name}", status_code=201)
async def add_dataset(name: str, request: Request, hub: Hub, _: Operator) -> DatasetOut:
    """Register a dataset: the body is the ``.npz`` file. The same bytes again change nothing."""
    checked_name(name, "dataset name")
    async with uploaded(request, hub.settings.maximum_upload_bytes) as file:
        row = await asyncio.to_thread(
            register_dataset, hub.store, hub.datasets, name=name, file=file, now_s=time.time()
        )
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


def _out(row: DatasetRow) -> DatasetOut:
    return DatasetOut(**msgspec.to_builtins(row))
