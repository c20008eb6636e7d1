"""Faults are tried on the same fleets as the end-to-end tests."""

from tests.e2e.conftest import fleet

__all__ = ["fleet"]
