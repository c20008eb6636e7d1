"""The demo's cameras: applications on the devices that use the agent's local inference API.

Each camera has its own endless stream of field images, drawn by its own seed. It sends them to its agent over
the Unix socket, a few at a time, and returns the true digits as labels, as meter readings confirmed later
would be. An answer that is late or refused while an agent has no model yet is not asked for again.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from converters.data.dataset import Dataset
from fleet.protocol.errors import InferenceFailed
from hub.demo.images import through_dirty_lens

IMAGES_PER_SHOT = 16
SHOT_INTERVAL_S = 0.125
TIMEOUT_S = 5.0


class Camera:
    """One camera.

    Args:
        socket: Where its agent listens.
        model: The model that reads its images.
        field: What it looks at.
        seed: Fixes its stream.
    """

    def __init__(self, socket: Path, model: str, field: Dataset, seed: int) -> None:
        self._socket = socket
        self._model = model
        self._field = field
        self._random = np.random.default_rng(seed)
        self.is_dirty = False
        self.is_stopped = False
        self.answers_by_version: dict[str, int] = {}

    async def run(self) -> None:
        """Shoot until stopped: what was asked for until then is answered."""
        transport = httpx.AsyncHTTPTransport(uds=str(self._socket))
        async with httpx.AsyncClient(transport=transport, base_url="http://agent", timeout=TIMEOUT_S) as http:
            while not self.is_stopped:
                with contextlib.suppress(httpx.HTTPError):
                    await self._shoot(http)
                await asyncio.sleep(SHOT_INTERVAL_S)

    async def _shoot(self, http: httpx.AsyncClient) -> None:
        chosen = self._random.integers(len(self._field), size=IMAGES_PER_SHOT)
        images, labels = self._field.features[chosen], self._field.labels[chosen]
        if self.is_dirty:
            images = through_dirty_lens(images)
        response = await http.post(f"/v2/models/{self._model}/infer", json=_request(images))
        if response.status_code in {httpx.codes.NOT_FOUND, httpx.codes.SERVICE_UNAVAILABLE}:
            return  # no model yet
        if response.status_code != httpx.codes.OK:
            raise InferenceFailed(f"The agent at {self._socket} answered {response.text:.200}")
        answer = response.json()
        version = str(answer["model_version"])
        self.answers_by_version[version] = self.answers_by_version.get(version, 0) + len(labels)
        feedback = {"id": answer["parameters"]["prediction_id"], "labels": labels.tolist()}
        await http.post(f"/v2/models/{self._model}/feedback", json=feedback)


def _request(images: np.ndarray[Any, np.dtype[np.float32]]) -> dict[str, Any]:
    tensor = {
        "name": "input",
        "datatype": "FP32",
        "shape": list(images.shape),
        "data": images.ravel().tolist(),
    }
    return {"inputs": [tensor]}
