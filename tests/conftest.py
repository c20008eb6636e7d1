"""Fixtures that several kinds of tests share."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from converters.dataset import Dataset, write_dataset
from hub.cli.models import wait_for_training
from tests.support.brokers import MOSQUITTO_IS_MISSING
from tests.support.digits import registered_part
from tests.support.hub import HubProcess

MODEL = "digits"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say plainly at the end which tests were left out for want of a broker, and how to get it."""
    left_out = [
        report
        for report in terminalreporter.getreports("skipped")
        if MOSQUITTO_IS_MISSING in str(report.longrepr)
    ]
    if left_out:
        terminalreporter.section("not everything was tested")
        terminalreporter.write_line(f"{len(left_out)} tests were left out. {MOSQUITTO_IS_MISSING}")


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    """A hub on the embedded broker with dataset ``digits`` and released version 1 of model ``digits``.

    All tests share it: each works on models, datasets and devices of its own names, and reads these.
    """
    folder = tmp_path_factory.mktemp("hub")
    with HubProcess(folder / "home", broker="embedded") as running:
        part = registered_part()
        flat = Dataset(np.ascontiguousarray(part.features.reshape(len(part), -1)), part.labels, part.classes)
        write_dataset(folder / "digits.npz", flat)
        client = running.client
        client.upload("/datasets/digits", folder / "digits.npz")
        body = {"dataset": "digits", "estimator": "logistic", "seed": 1}
        version = client.post(f"/models/{MODEL}/versions", body)
        wait_for_training(client, version, show_progress=False)
        client.post(f"/models/{MODEL}/versions/1/release")
        yield running
