"""A server of LitServe, for `benchmarks.agent`: ``python -m benchmarks.peers.litserve_server PORT``.

It reads annotations while it runs, so they are not put off here.
"""

import sys
from typing import Any

import litserve  # it is installed in an environment of its own only
from numpy.typing import NDArray

from benchmarks.peers.onnx_session import Session


class Api(litserve.LitAPI):  # type: ignore[misc] # of a package without types here
    """What LitServe asks of a model."""

    def setup(self, device: str) -> None:
        """Load it."""
        del device
        self.session = Session()

    def decode_request(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return the input of a request."""
        [tensor] = request["inputs"]
        return dict(tensor)

    def predict(self, x: dict[str, Any]) -> NDArray[Any]:
        """Answer it."""
        return self.session.answer(x["data"], x["shape"])

    def encode_response(self, output: NDArray[Any]) -> dict[str, Any]:
        """Return an answer as it is sent."""
        return {"outputs": [{"name": "output", "shape": output.shape, "data": output.ravel().tolist()}]}


if __name__ == "__main__":
    server = litserve.LitServer(Api(), accelerator="cpu", workers_per_device=1)
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        num_api_servers=1,
        generate_client_file=False,
        log_level="warning",
        access_log=False,
    )
