"""Fixtures that several kinds of tests share."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import hypothesis
import pytest

from hub.broker.kinds import KINDS
from tests.support.alertmanager import ALERTMANAGER_IS_MISSING
from tests.support.brokers import MOSQUITTO_IS_MISSING, RunningBroker, running_broker
from tests.support.browser import CHROMIUM_IS_MISSING
from tests.support.compiler import COMPILER_IS_MISSING
from tests.support.hub import HubProcess
from tests.support.memory_limit import MEMORY_LIMIT_IS_MISSING
from tests.support.old_runtime import TFLITE_RUNTIME_IS_MISSING
from tests.support.promtool import PROMTOOL_IS_MISSING
from tests.support.systemd import SYSTEMD_IS_MISSING
from tests.support.thoroughness import ALL
from tests.support.torch_models import TORCH_IS_MISSING

# It is nothing to tests whether they were started in the background of a shell that keeps interrupts from
# there: programs that tests start would ignore them too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says how busy the machine is.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

MODEL = "digits"
MISSING_PROGRAMS = (
    MOSQUITTO_IS_MISSING,
    CHROMIUM_IS_MISSING,
    TORCH_IS_MISSING,
    TFLITE_RUNTIME_IS_MISSING,
    SYSTEMD_IS_MISSING,
    COMPILER_IS_MISSING,
    MEMORY_LIMIT_IS_MISSING,
    PROMTOOL_IS_MISSING,
    ALERTMANAGER_IS_MISSING,
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave what takes long to `make test-faults`."""
    if ALL:
        return
    left = [item for item in items if item.get_closest_marker("long")]
    items[:] = [item for item in items if not item.get_closest_marker("long")]
    config.hook.pytest_deselected(items=left)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say plainly at the end which tests were left out for want of a program, and how to get it."""
    skipped = [str(report.longrepr) for report in terminalreporter.getreports("skipped")]
    counts = {missing: sum(missing in reason for reason in skipped) for missing in MISSING_PROGRAMS}
    if any(counts.values()):
        terminalreporter.section("not everything was tested")
    for missing, count in counts.items():
        if count:
            terminalreporter.write_line(f"{count} tests were left out. {missing}")


@pytest.fixture(scope="module", params=KINDS)
def broker(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningBroker]:
    """Each kind of broker in turn; the tests of one module share it, and each makes accounts of its own."""
    with running_broker(request.param, tmp_path_factory.mktemp("broker")) as running:
        yield running


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    """A hub on the embedded broker with dataset ``digits`` and released version 1 of model ``digits``.

    All tests share it: each works on models, datasets and devices of its own names, and reads these.
    """
    with HubProcess(tmp_path_factory.mktemp("hub") / "home", broker="embedded") as running:
        running.train_and_release(MODEL, estimator="logistic", seed=1)
        yield running
