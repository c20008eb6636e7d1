"""What the client of the fast path refuses before it asks anybody."""

from __future__ import annotations

from pathlib import Path

import pytest

import agent.client
from fleet.protocol.errors import InvalidInput, Unavailable


@pytest.mark.parametrize("prediction_id", ["5f0c1d7a9b3e2468", None, -1, 1 << 64, 1.0])
def test_what_is_no_prediction_is_refused_before_anything_is_asked(
    tmp_path: Path, prediction_id: object
) -> None:
    with (
        agent.client.connect(tmp_path / "nobody.sock") as client,
        pytest.raises(InvalidInput, match="is no prediction's id"),
    ):
        client.feedback(prediction_id, [1])  # type: ignore[arg-type]
    with agent.client.connect(tmp_path / "nobody.sock") as client, pytest.raises(Unavailable):
        client.feedback(1, [1])
