"""Where ``muster`` starts: what it needs may not be installed, and then it says how to install it."""

from __future__ import annotations

import sys


def main() -> None:
    """Run ``muster``; the exit code is 0, 1 for an error, 2 for a wrong use of the command."""
    try:
        import typer  # noqa: F401 - only asks whether the hub's packages are there
    except ModuleNotFoundError:
        sys.exit("error: The hub's packages are not installed. Install them with: pip install 'muster[hub]'")
    from hub.cli.app import run

    sys.exit(run())
