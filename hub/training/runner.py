"""Run a training in a process of its own."""

from __future__ import annotations

from collections.abc import Callable

from hub.jobs.lines import Progress
from hub.jobs.runner import run_job
from hub.training.job import TrainingJob, TrainingResult

WORKER = "hub.training.worker"


async def run_training(
    job: TrainingJob, on_progress: Callable[[Progress], None] = lambda _: None
) -> TrainingResult:
    """Train in a process of its own. Cancelling kills that process.

    Args:
        job: What to train.
        on_progress: Called in the event loop when a step begins.

    Raises:
        MusterError: What `hub.training.train.train` and `hub.jobs.runner.run_job` raise.
    """
    return await run_job(WORKER, job, TrainingResult, on_progress)
