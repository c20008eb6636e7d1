"""Registering datasets: checked whole before anything is kept, and named by digest for ever."""

from __future__ import annotations

from pathlib import Path

from converters.data.dataset import read_dataset
from hub.store.blobs import BlobFolder
from hub.store.protocols import RegistryStore
from hub.store.rows import DatasetRow


def register_dataset(
    store: RegistryStore, blobs: BlobFolder, *, name: str, file: Path, now_s: float
) -> DatasetRow:
    """Check a dataset file and register it.

    Args:
        store: Keeps what is known of it.
        blobs: Keeps its bytes.
        name: Its name, checked.
        file: Where its bytes are now.
        now_s: Unix time.

    Raises:
        InvalidDataset: The file is not a usable dataset.
        Conflict: The name stands for other bytes.
    """
    dataset = read_dataset(file)
    row = DatasetRow(
        name=name,
        sha256=blobs.put(file.read_bytes()),
        size_bytes=file.stat().st_size,
        samples=len(dataset),
        feature_shape=dataset.sample_shape,
        classes=dataset.classes,
        created_at_s=now_s,
    )
    store.add_dataset(row)
    return store.dataset(name)
