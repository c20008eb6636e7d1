"""Tests of Muster."""

import os

# The terminal that tests are started from is nothing to them; pytest-xdist tells its workers how wide it is.
# The console of ``muster`` reads that when it is made, so it is forgotten before anything else is imported.
os.environ.pop("COLUMNS", None)
