"""Real bundles for the agent's tests: small ONNX models, their manifests and blobs.

A model is ``softmax(pixels @ weights)`` over four pixels and three classes: a test knows every answer.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from fleet.drift.features import build_reference
from fleet.protocol.manifest import (
    Evaluation,
    File,
    Manifest,
    Provenance,
    Requirement,
    Signature,
    Tensor,
    Variant,
    encode_manifest,
    manifest_sha256,
)

MODEL = "digits"
VARIANT = "onnx-fp32"
PIXELS, CLASSES, GOLDEN = 4, 3, 8


class Bundle(NamedTuple):
    """A version as the hub would have released it.

    Attributes:
        manifest: The description.
        data: The manifest's bytes.
        blobs: The files by digest.
    """

    manifest: Manifest
    data: bytes
    blobs: dict[str, bytes]

    @property
    def sha256(self) -> str:
        """The bundle's identity."""
        return manifest_sha256(self.data)

    @property
    def model_blob(self) -> str:
        """Digest of the model's file."""
        return self.manifest.variants[0].model_file.sha256


def build(
    version: int,
    *,
    model: str = MODEL,
    padding_bytes: int = 0,
    negative_gives_nan: bool = False,
    golden_error: float = 0.0,
    runtime_version: str = "1.16",
) -> Bundle:
    """Build a version.

    Args:
        version: Its number; also the seed of its weights.
        model: Name of the model.
        padding_bytes: Unused weights, to make a blob of several chunks.
        negative_gives_nan: Answer NaN to inputs with negative sum, which no golden input has.
        golden_error: Added to the golden outputs, so that the self-test fails.
        runtime_version: Lowest version of ONNX Runtime that the manifest asks for.
    """
    rng = np.random.default_rng(version)
    weights = rng.normal(size=(PIXELS, CLASSES)).astype(np.float32)
    model_bytes = _onnx(weights, rng.bytes(padding_bytes), negative_gives_nan)
    inputs = np.random.default_rng(7).random((GOLDEN, PIXELS)).astype(np.float32)  # shared by all versions
    session = onnxruntime.InferenceSession(model_bytes, providers=["CPUExecutionProvider"])
    outputs: NDArray[np.float32] = session.run(["probabilities"], {"pixels": inputs})[0]
    files = {
        "model.onnx": model_bytes,
        "golden_outputs.f32": (outputs + np.float32(golden_error)).astype("<f4").tobytes(),
        "golden_inputs.f32": inputs.astype("<f4").tobytes(),
    }
    described = {
        name: File(name, hashlib.sha256(data).hexdigest(), len(data)) for name, data in files.items()
    }
    manifest = Manifest(
        format=1,
        model=model,
        version=version,
        signature=Signature(
            inputs=(Tensor("pixels", "float32", (-1, PIXELS)),),
            outputs=(Tensor("probabilities", "float32", (-1, CLASSES)),),
            classes=tuple("abc"),
        ),
        golden_inputs=described["golden_inputs.f32"],
        golden_count=GOLDEN,
        variants=(
            Variant(
                name=VARIANT,
                precision="fp32",
                requirement=Requirement("onnxruntime", runtime_version),
                model_file=described["model.onnx"],
                golden_outputs=described["golden_outputs.f32"],
                golden_tolerance=1e-4,
                evaluation=Evaluation(1.0, 100),
            ),
        ),
        reference=build_reference(inputs, outputs),
        provenance=Provenance("none", "0" * 64, "none", {}, version, {}),
    )
    blobs = {described[name].sha256: data for name, data in files.items()}
    return Bundle(manifest, encode_manifest(manifest), blobs)


def expected_class(version: int, pixels: list[float]) -> int:
    """Return the class that a version gives for one sample."""
    weights = np.random.default_rng(version).normal(size=(PIXELS, CLASSES)).astype(np.float32)
    return int((np.asarray(pixels, dtype=np.float32) @ weights).argmax())


def _onnx(weights: NDArray[np.float32], padding: bytes, negative_gives_nan: bool) -> bytes:
    nodes = [helper.make_node("MatMul", ["pixels", "weights"], ["logits"])]
    initializers = [numpy_helper.from_array(weights, "weights")]
    last = "logits"
    if negative_gives_nan:  # sqrt of a negative sum is NaN; of a positive one it is multiplied by nothing
        initializers += [
            numpy_helper.from_array(np.array([1], dtype=np.int64), "axis"),
            numpy_helper.from_array(np.array(0, dtype=np.float32), "zero"),
        ]
        nodes += [
            helper.make_node("ReduceSum", ["pixels", "axis"], ["sum"]),
            helper.make_node("Sqrt", ["sum"], ["root"]),
            helper.make_node("Mul", ["root", "zero"], ["nothing"]),
            helper.make_node("Add", ["logits", "nothing"], ["spoiled"]),
        ]
        last = "spoiled"
    if padding:
        initializers.append(numpy_helper.from_array(np.frombuffer(padding, dtype=np.uint8), "padding"))
        nodes.append(helper.make_node("Identity", ["padding"], ["unused"]))
    nodes.append(helper.make_node("Softmax", [last], ["probabilities"], axis=1))
    outputs = [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", CLASSES])]
    if padding:
        outputs.append(helper.make_tensor_value_info("unused", TensorProto.UINT8, [len(padding)]))
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["N", PIXELS])],
        outputs,
        initializers,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made)
    data: bytes = made.SerializeToString()
    return data
