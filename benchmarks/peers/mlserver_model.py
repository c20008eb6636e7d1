"""The model in MLServer, for `benchmarks.agent`: MLServer speaks the Open Inference Protocol itself.

Its worker processes are switched off: for models this small they cost more than they bring.
"""

from __future__ import annotations

from mlserver import MLModel  # it is in an environment of its own only
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

from benchmarks.peers.onnx_session import Session


class OnnxModel(MLModel):  # type: ignore[misc] # of a package without types here
    """What MLServer asks of a model."""

    async def load(self) -> bool:
        """Load it."""
        self.session = Session()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer one request."""
        given = NumpyCodec.decode_input(payload.inputs[0])
        output = NumpyCodec.encode_output("output", self.session.run(given))
        return InferenceResponse(model_name=self.name, outputs=[output])
