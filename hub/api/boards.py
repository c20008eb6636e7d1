"""Routes: what a device's board says of itself."""

from __future__ import annotations

from fastapi import APIRouter

from fleet.protocol.board import BoardWindow, Gauge
from hub.api.auth import Viewer
from hub.api.board_schemas import BoardOut, GaugeOut
from hub.api.services import Hub

router = APIRouter(tags=["devices"])


@router.get("/devices/{device_id}/board")
def board(device_id: str, hub: Hub, _: Viewer) -> BoardOut | None:
    """Return temperature, throttling, power and free memory of a board as told last; null if it did not."""
    reported = hub.store.device(device_id).reported
    return _out(reported.board) if reported and isinstance(reported.board, BoardWindow) else None


def _out(window: BoardWindow) -> BoardOut:
    return BoardOut(
        started_at_s=window.started_at_s,
        ended_at_s=window.ended_at_s,
        throttled_share=None if window.throttled is None else window.throttled / max(1, window.readings),
        temperature_celsius=_gauge(window.temperature_millidegrees, 1e-3),
        power_watts=_gauge(window.power_milliwatts, 1e-3),
        free_memory_bytes=_gauge(window.free_memory_bytes, 1.0),
        cpu_pressure=_gauge(window.cpu_pressure_ppm, 1e-6),
        memory_pressure=_gauge(window.memory_pressure_ppm, 1e-6),
    )


def _gauge(gauge: Gauge | None, unit: float) -> GaugeOut | None:
    if gauge is None:
        return None
    return GaugeOut(least=gauge.least * unit, mean=gauge.mean * unit, greatest=gauge.greatest * unit)
