"""The store protocols: everything that the hub remembers, behind narrow interfaces.

Services depend on these protocols only. `hub.store.sqlite` implements them; another database is a second
implementation that passes the same contract suite (``tests/contract/test_store_*.py``). Methods are
synchronous and each is one transaction: what it says happens whole or not at all, also when the process
is killed. Callers in asyncio code run them in a thread.

Times are Unix seconds. Pages are keyset pages: pass the last key seen as ``after``.
"""

from __future__ import annotations

from typing import Protocol

from hub.store.protocols.alerts import AlertStore
from hub.store.protocols.claims import ClaimStore
from hub.store.protocols.devices import DeviceStore, DiagnosticsStore, WishStore
from hub.store.protocols.drift import DriftStore
from hub.store.protocols.noised import NoisedStore
from hub.store.protocols.quality import QualityStore
from hub.store.protocols.quarantines import QuarantineStore
from hub.store.protocols.records import DeadLetterStore, MeasurementStore, RecordStore, ShadowStore
from hub.store.protocols.registry import RegistryStore
from hub.store.protocols.rollouts import RolloutStore
from hub.store.protocols.rollups import RollupStore
from hub.store.protocols.samples import SampleStore
from hub.store.protocols.states import StateStore
from hub.store.protocols.tags import TagStore
from hub.store.protocols.telemetry import TelemetryStore
from hub.store.protocols.tokens import TokenStore

__all__ = [
    "AlertStore",
    "ClaimStore",
    "DeadLetterStore",
    "DeviceStore",
    "DiagnosticsStore",
    "DriftStore",
    "MeasurementStore",
    "NoisedStore",
    "QualityStore",
    "QuarantineStore",
    "RecordStore",
    "RegistryStore",
    "RolloutStore",
    "RollupStore",
    "SampleStore",
    "ShadowStore",
    "StateStore",
    "Store",
    "TagStore",
    "TelemetryStore",
    "TokenStore",
    "WishStore",
]


class Store(
    TokenStore,
    AlertStore,
    RegistryStore,
    DeviceStore,
    WishStore,
    RecordStore,
    DeadLetterStore,
    QuarantineStore,
    DiagnosticsStore,
    MeasurementStore,
    ShadowStore,
    StateStore,
    RolloutStore,
    ClaimStore,
    RollupStore,
    DriftStore,
    TelemetryStore,
    NoisedStore,
    QualityStore,
    TagStore,
    SampleStore,
    Protocol,
):
    """All of it, as the hub opens it."""

    def size_bytes(self) -> int:
        """Return how much disk space it takes now."""
        ...

    def close(self) -> None:
        """Finish what is under way and close."""
        ...
