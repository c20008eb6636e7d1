"""The process that checks uploads: ``python -m hub.registry.check_worker``, see `hub.jobs.worker`."""

from __future__ import annotations

import resource
import sys

from hub.jobs.worker import Work, serve

MAX_MEMORY_BYTES = 8 * 1024**3
"""A model of a few bytes can ask for any amount of memory: more than this it does not get."""


def _checking() -> tuple[type[object], Work]:
    from hub.registry.check import CheckJob, check

    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    limit = MAX_MEMORY_BYTES if most == resource.RLIM_INFINITY else min(MAX_MEMORY_BYTES, most)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, most))
    return CheckJob, check


if __name__ == "__main__":
    sys.exit(serve(_checking))
