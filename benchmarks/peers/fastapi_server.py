"""A plain server of FastAPI and uvicorn, for `benchmarks.agent`.

``python -m benchmarks.peers.fastapi_server PORT``. As people write it, with uvloop and httptools; the handler
is a coroutine, which is the faster of the two kinds.
"""

from __future__ import annotations

import sys
from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from benchmarks.peers.onnx_session import Session

app = FastAPI()
session = Session()


class Tensor(BaseModel):
    """An input."""

    name: str
    shape: list[int]
    datatype: str
    data: list[float]


class Question(BaseModel):
    """A request."""

    inputs: list[Tensor]


@app.post("/infer")
async def infer(question: Question) -> dict[str, Any]:
    """Answer one request."""
    [tensor] = question.inputs
    output = session.answer(tensor.data, tensor.shape)
    return {"outputs": [{"name": "output", "shape": output.shape, "data": output.ravel().tolist()}]}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", access_log=False)
