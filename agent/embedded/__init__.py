"""A model of this device, answering inside another program's process.

::

    import agent

    with agent.open_model("meter-digits") as model:
        answer = model(pixels)               # an array, or a dict of arrays by name
        model.feedback(answer.prediction_id, [3])

No request leaves the process. The version is the one that the device has committed: a version on trial is
judged by what it does in the agent. When another one is committed, it is loaded in the background while the
one before answers, and takes its place between two calls. What the model does is counted as in the agent, and
handed over to it (`agent.embedded.reporter`).

A process that embeds a model reads the agent's state folder, and pays for a runtime and the model's memory
of its own; `agent.client` needs neither.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from numpy.typing import ArrayLike

from agent.client import Answer, Labelled
from agent.client.inputs import named_arrays
from agent.embedded.reporter import Reporter
from agent.embedded.source import Opened, Source
from agent.hosting.host import Host
from agent.serving.checks import check_inputs
from agent.serving.feedback import Feedback
from agent.system.install import STATE_PATH
from fleet.protocol.errors import InvalidInput, MusterError, StorageError, Unavailable
from fleet.protocol.manifest import Signature

__all__ = ["EmbeddedModel", "open_model"]

log = logging.getLogger(__name__)

STATE_VARIABLE = "MUSTER_AGENT_STATE"
LOOK_INTERVAL_S = 1.0
"""How often a call looks whether another version was committed."""
RETRY_S = 30.0
"""When a version is tried again that could not be loaded."""


def open_model(
    name: str, *, state: str | os.PathLike[str] | None = None, version: int | None = None
) -> EmbeddedModel:
    """Bring a model that is installed on this device into this process.

    Args:
        name: Of the model.
        state: The agent's state folder; else what ``MUSTER_AGENT_STATE`` says, else the service's.
        version: The version to stay with, one that is installed; None for the committed one, always.

    Raises:
        InvalidConfiguration: That is not the state folder of an enrolled device, or it cannot be read.
        NotFound: The device does not have the model, or not that version.
        Unavailable: No version of it is committed yet.
        MemoryBudgetExceeded: It does not fit into the memory that models may have.
        MusterError: It cannot be loaded.
    """
    folder = Path(state or os.environ.get(STATE_VARIABLE) or Path("/") / STATE_PATH)
    source = Source(folder, name)
    reporter = Reporter(source.settings.fast_socket(folder))
    return EmbeddedModel(source, source.open(version), reporter, follows=version is None)


class EmbeddedModel:
    """A model in this process. Any thread may use it; one inference computes at a time.

    Args:
        source: Where versions come from.
        opened: The one that answers first.
        reporter: Takes to the agent what was counted.
        follows: Whether it goes with the version that is committed.
    """

    def __init__(self, source: Source, opened: Opened, reporter: Reporter, *, follows: bool) -> None:
        self.name = source.model
        self._source = source
        self._reporter = reporter
        self._host = Host()
        self._host.put(self.name, opened.hosted)
        self._feedback = Feedback(self._host)
        self._lock = threading.Lock()  # of the host's changes and the labels; answers need none
        self._stamp = opened.stamp
        self._retry_s = float("inf")  # when a version is tried again that could not be loaded
        self._look_s = time.monotonic() + LOOK_INTERVAL_S if follows else float("inf")
        self._wake = threading.Event()
        self._is_closed = False
        self._keeper = threading.Thread(target=self._keep, name=f"keeper-{self.name}", daemon=True)
        self._keeper.start()

    def __enter__(self) -> Self:
        """Return the model."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the model."""
        self.close()

    @property
    def version(self) -> int:
        """The version that answers now.

        Raises:
            NotFound: The device has the model no more.
        """
        return self._host.answering(self.name).release.version

    @property
    def signature(self) -> Signature:
        """What the version that answers now takes and gives.

        Raises:
            NotFound: The device has the model no more.
        """
        return self._host.answering(self.name).manifest.signature

    def __call__(self, inputs: ArrayLike | Mapping[str, ArrayLike]) -> Answer:
        """Return the model's answer.

        Args:
            inputs: Arrays by name, or one for a model of one input. Lists become arrays of its type.

        Raises:
            InvalidInput: The model does not take these inputs.
            InferenceFailed: The model failed.
            NotFound: The device has the model no more.
            Unavailable: It was closed.
        """
        if self._is_closed:
            raise Unavailable(f"Model {self.name} was closed.")
        if time.monotonic() >= self._look_s:
            self._look()
        hosted = self._host.answering(self.name)
        signature = hosted.manifest.signature
        arrays = named_arrays(inputs, {each.name: each.dtype for each in signature.inputs}, self.name)
        check_inputs(arrays, signature)
        answer = hosted.infer_now(arrays)
        number = self._feedback.remember(self.name, answer, signature.classes)
        return Answer(answer.outputs, answer.version, number)

    def feedback(self, prediction_id: int | None, labels: int | str | Sequence[int | str]) -> Labelled:
        """Tell what was true, once for each prediction of this process.

        Args:
            prediction_id: Of the answer.
            labels: For each sample the number or the name of its class.

        Raises:
            NotFound: There is no such prediction, or it was labelled before.
            InvalidInput: The labels are not classes of the model, or its predictions cannot be labelled.
        """
        if prediction_id is None:
            raise InvalidInput("A prediction without an id cannot be labelled.")
        given = [labels] if isinstance(labels, int | str) else list(labels)
        with self._lock:
            counted = self._feedback.label(self.name, prediction_id, given)
        return Labelled(counted.labelled, counted.correct)

    def close(self) -> None:
        """Answer no more, and hand over what was counted; what no agent takes now is lost, with a warning."""
        if self._is_closed:
            return
        self._is_closed = True
        self._wake.set()
        self._keeper.join()
        if not self._report():
            lost = sum(window.predictions for window in self._reporter.waiting)
            told = "What %s did for %d prediction(s) is not reported: no agent took it."
            log.warning(told, self.name, lost)
        with self._lock:
            self._host.put(self.name, None)

    def _look(self) -> None:
        """Look whether the device's state was written, and have it read if so."""
        self._look_s = time.monotonic() + LOOK_INTERVAL_S
        try:
            if self._source.stamp() == self._stamp and time.monotonic() < self._retry_s:
                return
        except StorageError:
            pass  # whoever reads it will tell
        self._wake.set()

    def _keep(self) -> None:
        """Be the thread that loads versions and hands over windows."""
        interval_s = self._source.settings.telemetry_interval_s
        report_s = time.monotonic() + interval_s
        while not self._is_closed:
            if self._wake.wait(max(0.0, report_s - time.monotonic())):
                self._wake.clear()
                if not self._is_closed:
                    self._follow()
            if time.monotonic() >= report_s:
                self._report()
                report_s = time.monotonic() + interval_s

    def _follow(self) -> None:
        """Let the version answer that is committed now, once it is in memory."""
        self._retry_s = float("inf")
        try:
            self._stamp = self._source.stamp()
            release = self._source.committed()
            hosted = self._host.get(self.name)
            if release != (hosted and hosted.release):
                following = None if release is None else self._source.load(release)
                with self._lock:
                    self._host.put(self.name, following)
                self._report()  # while the version before is still installed: the agent takes no others
        except Exception as error:
            log.warning(
                "The version of %s that is committed now cannot be used: %s",
                *(self.name, error),
                exc_info=not isinstance(error, MusterError),  # a fault of ours: the version before goes on
            )
            self._retry_s = time.monotonic() + RETRY_S

    def _report(self) -> bool:
        """Hand over what was counted; return whether the agent has all of it."""
        with self._lock:
            windows = self._host.close_windows(time.time())
        try:
            self._reporter.add(windows)
            return self._reporter.deliver()
        except Exception:
            log.exception("What %s did could not be reported.", self.name)
            return False
