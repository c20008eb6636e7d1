"""What the protocol's statistics extension tells of a version: requests and where their time went.

=================  =====================================================================================
``queue``          from handing a request to the version's thread until the thread takes it
``compute_input``  reading the tensors from the request
``compute_infer``  the runtime
``compute_output`` writing the answer
``success``        all of the above, for requests that were answered with predictions
``fail``           the same for requests that were refused or that the model failed on
=================  =====================================================================================

Several requests may be answered by one run (`agent.execution`). Each counts what the run took; the run itself
is counted once, with the request in whose turn it was made, under the number of samples that it had.

Counted since the version was loaded, for people and dashboards on the device. What the hub judges by is
counted in `agent.telemetry.window`.
"""

from __future__ import annotations

from typing import Any

import msgspec

_PARTS = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")
_RUN_PARTS = ("compute_input", "compute_infer", "compute_output")
_NONE = {"count": 0, "ns": 0}
MOST_SIZES = 64


class Run(msgspec.Struct):
    """Runs with one number of samples.

    Attributes:
        count: How many.
        durations_ns: What each part of `_RUN_PARTS` took in sum.
    """

    count: int = 0
    durations_ns: list[int] = msgspec.field(default_factory=lambda: [0] * len(_RUN_PARTS))


class Statistics(msgspec.Struct):
    """Sums of one version.

    Attributes:
        samples: Samples that were answered for.
        executions: Runs of the runtime that gave answers.
        last_ms: Unix time of the last request, in milliseconds; 0 before the first.
        counts: How often each part was measured.
        durations_ns: How long each part took, in sum.
    """

    samples: int = 0
    executions: int = 0
    last_ms: int = 0
    counts: dict[str, int] = msgspec.field(default_factory=lambda: dict.fromkeys(_PARTS, 0))
    durations_ns: dict[str, int] = msgspec.field(default_factory=lambda: dict.fromkeys(_PARTS, 0))
    runs: dict[int, Run] = msgspec.field(default_factory=dict)
    """What runs took, by how many samples they had; of numbers above `MOST_SIZES` different ones, none."""

    def ran(self, samples: int, *durations_ns: int) -> None:
        """Count a run of the runtime.

        Args:
            samples: How many it had.
            durations_ns: What each part of `_RUN_PARTS` took.
        """
        self.executions += 1
        if samples in self.runs or len(self.runs) < MOST_SIZES:
            run = self.runs.setdefault(samples, Run())
            run.count += 1
            run.durations_ns = [a + b for a, b in zip(run.durations_ns, durations_ns, strict=True)]

    def succeeded(self, now_s: float, samples: int, **durations_ns: int) -> None:
        """Count a request that was answered.

        Args:
            now_s: Unix time.
            samples: How many it had.
            durations_ns: What each part took.
        """
        self.last_ms = int(now_s * 1000)
        self.samples += samples
        for part, duration_ns in durations_ns.items():
            self._add(part, duration_ns)

    def failed(self, now_s: float, duration_ns: int) -> None:
        """Count a request that was answered with an error.

        Args:
            now_s: Unix time.
            duration_ns: What it took.
        """
        self.last_ms = int(now_s * 1000)
        self._add("fail", duration_ns)

    def document(self, model: str, version: int) -> dict[str, Any]:
        """Return the sums in the protocol's form."""
        parts = {
            part: {"count": self.counts[part], "ns": self.durations_ns[part]} for part in _PARTS
        } | dict.fromkeys(("cache_hit", "cache_miss"), _NONE)
        return {
            "name": model,
            "version": str(version),
            "last_inference": self.last_ms,
            "inference_count": self.samples,
            "execution_count": self.executions,
            "inference_stats": parts,
            "batch_stats": [
                {"batch_size": size}
                | {
                    part: {"count": run.count, "ns": duration_ns}
                    for part, duration_ns in zip(_RUN_PARTS, run.durations_ns, strict=True)
                }
                for size, run in sorted(self.runs.items())
            ],
        }

    def _add(self, part: str, duration_ns: int) -> None:
        self.counts[part] += 1
        self.durations_ns[part] += duration_ns
