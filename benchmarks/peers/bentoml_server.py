"""A server of BentoML, for `benchmarks.agent`: ``bentoml serve benchmarks.peers.bentoml_server:Service``.

The handler is a coroutine, which is the faster of the two kinds.
"""

from __future__ import annotations

from typing import Any

import bentoml  # it is installed in an environment of its own only

from benchmarks.peers.onnx_session import Session


@bentoml.service(workers=1)  # type: ignore[misc,unused-ignore] # of a package without types here
class Service:
    """What BentoML serves."""

    def __init__(self) -> None:
        self.session = Session()

    @bentoml.api  # type: ignore[untyped-decorator]
    async def infer(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Answer one request."""
        [tensor] = inputs
        output = self.session.answer(tensor["data"], tensor["shape"])
        return {"outputs": [{"name": "output", "shape": list(output.shape), "data": output.ravel().tolist()}]}
