"""Which version answers for a model's name now, and the windows in which what it does is counted.

`Host.put` swaps in one assignment: a request that came before is answered by the version it met, one that
comes after by the new one, and none is dropped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from agent.hosting.hosted import Hosted
from agent.telemetry.window import Counter
from fleet.protocol.errors import NotFound
from fleet.protocol.records import TelemetryWindow


class Host:
    """The models that answer now, by name. Lives in the event loop; any thread may `get`."""

    def __init__(self) -> None:
        self._hosted: dict[str, Hosted] = {}
        self.on_put: Callable[[str, Hosted], None] | None = None
        """Told of each version that is to answer from now on, and of which model."""
        self._former: set[Counter] = set()  # of versions that answer no more, not told of since
        self._labelled: set[Counter] = set()  # of any version, in which labels were counted since
        self._is_noised = False

    def count_labels(
        self, counter: Counter, are_correct: Sequence[bool], confidences: Sequence[float]
    ) -> None:
        """Count labels for the version that gave the answers, also if another answers by now.

        Args:
            counter: Of that version.
            are_correct: Whether each labelled answer was right.
            confidences: How sure each was.
        """
        counter.count_labels(are_correct, confidences)
        self._labelled.add(counter)

    def count_unknown_label(self, counter: Counter) -> None:
        """Count that labels came for a prediction that nobody knows, for a version that may have given it."""
        counter.count_unknown_label()
        self._labelled.add(counter)

    @property
    def is_noised(self) -> bool:
        """Whether what is counted gets noise before it leaves the device."""
        return self._is_noised

    @is_noised.setter
    def is_noised(self, is_noised: bool) -> None:
        self._is_noised = is_noised
        for counter in {hosted.counter for hosted in self._hosted.values()} | self._former | self._labelled:
            counter.is_noised = is_noised

    def forget_counts(self) -> None:
        """Begin the windows of all versions anew."""
        self._labelled |= self._former
        self.close_windows(time.time())

    def close_windows(self, now_s: float) -> list[TelemetryWindow]:
        """End the current windows of all versions and return those in which anything was counted.

        With noise on them all are returned, but for those in which nothing but late labels can have been
        counted: that there is one must not depend on what was counted.

        Args:
            now_s: Unix time.
        """
        counters = {hosted.counter for hosted in self._hosted.values()} | self._former
        late, self._labelled, self._former = self._labelled - counters, set(), set()
        if self._is_noised:
            for counter in late:
                counter.close(now_s)
        else:
            counters |= late
        windows = [counter.close(now_s) for counter in counters]
        return [window for window in windows if window is not None]

    def get(self, model: str) -> Hosted | None:
        """Return what answers for a model, or None."""
        return self._hosted.get(model)

    def answering(self, model: str) -> Hosted:
        """Return what answers for a model.

        Raises:
            NotFound: Nothing does.
        """
        hosted = self._hosted.get(model)
        if hosted is None:
            raise NotFound(f"No version of model {model!r:.80} answers on this device.")
        return hosted

    def all(self) -> dict[str, Hosted]:
        """Return everything that answers, by model."""
        return dict(sorted(self._hosted.items()))

    def put(self, model: str, hosted: Hosted | None) -> Hosted | None:
        """Let another version answer, or none; return the one that answered before."""
        before = self._hosted.get(model)
        if hosted is None:
            self._hosted.pop(model, None)
        else:
            if self.on_put is not None:
                self.on_put(model, hosted)
            hosted.counter.is_noised = self._is_noised
            self._hosted[model] = hosted
        if before is not None:
            self._former.add(before.counter)
        return before
