"""The training process: ``python -m hub.training.worker``, see `hub.jobs.worker`."""

from __future__ import annotations

import sys

from hub.jobs.worker import Work, serve


def _training() -> tuple[type[object], Work]:
    from hub.training.job import TrainingJob
    from hub.training.train import train

    return TrainingJob, train


if __name__ == "__main__":
    sys.exit(serve(_training))
