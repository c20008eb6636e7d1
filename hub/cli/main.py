"""``muster``: puts the commands together, and turns every error into one clear line.

Only ``hub init``, ``hub serve``, ``hub token``, ``model convert`` and ``demo`` work on this machine's
files; all others speak to the hub's HTTP API and so work from anywhere.
"""

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
