"""A model that hangs until it is let go."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from agent.hosting.hosted import Hosted
from agent.runtimes.protocol import Tensors


def hold_up(hosted: Hosted, at_least: float, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Let a model hang with inputs of such values, until the event is set."""
    let_go, model = threading.Event(), hosted._execution._model
    infer = model.infer

    def infer_when_let(inputs: Tensors) -> dict[str, Any]:
        if inputs["pixels"].min() >= at_least:
            assert let_go.wait(60.0)
        return infer(inputs)

    monkeypatch.setattr(model, "infer", infer_when_let)
    return let_go
