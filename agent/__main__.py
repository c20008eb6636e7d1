"""``python -m agent``: the same command as ``muster-agent``."""

from agent.cli import main

raise SystemExit(main())
