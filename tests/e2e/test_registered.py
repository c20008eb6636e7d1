"""A model that the hub did not train, an ONNX file of somebody's, reaches a device and answers there."""

from __future__ import annotations

import json
from pathlib import Path

from converters.data.dataset import write_dataset
from converters.sources.sklearn import open_sklearn
from tests.support.digits import CLASSES, fitted_model, flattened, registered_part
from tests.support.fleet import MODEL, Fleet
from tests.support.hub import HubProcess
from tests.support.waiting import eventually


def test_an_onnx_file_is_converted_registered_released_and_answers_on_a_device(tmp_path: Path) -> None:
    exported = open_sklearn(fitted_model(), name="digits", classes=CLASSES, sample_shape=(64,)).onnx
    assert exported is not None
    (tmp_path / "digits.onnx").write_bytes(exported)
    write_dataset(tmp_path / "digits.npz", flattened(registered_part()))
    with HubProcess(tmp_path / "hub", broker="embedded") as hub:
        source, dataset, out = (str(tmp_path / name) for name in ("digits.onnx", "digits.npz", "out"))
        hub.muster("model", "convert", source, "--calibrate", dataset, "--out", out, "--embedding", "auto:3")
        version = json.loads(hub.muster("model", "register", MODEL, out, "--json"))["version"]
        hub.muster("model", "release", MODEL, str(version))
        fleet = Fleet(hub, tmp_path, 1)
        try:
            fleet.start()
            fleet.wait_for_status(fleet.roll_out(version, "all"), "SUCCEEDED")
            fleet.wait_for_version(version)
            camera = fleet.cameras["cam-0"]
            eventually(lambda: camera.answers_by_version.get(str(version), 0) > 20, "the camera got answers")

            names = {"output.class", "embedding.0", "embedding.1", "embedding.2"}

            def counted() -> list[int]:
                told = hub.client.get("/fleet/drift/histograms", model=MODEL, version=version)["items"]
                return [sum(each["current"]) for each in told if each["feature"] in names]

            eventually(lambda: len(counted()) == len(names), "its embedding was counted")
            assert len(set(counted())) == 1
        finally:
            fleet.close()
