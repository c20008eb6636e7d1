"""A C compiler, for tests that load a library built for them."""

from __future__ import annotations

import os
import shutil

import pytest

COMPILER_IS_MISSING = "A C compiler is missing, and these tests need one: apt-get install gcc libc6-dev"


def need_compiler() -> str:
    """Return the compiler's path. Fail in CI without one; on a person's machine leave the test out."""
    compiler = shutil.which("cc")
    if compiler is not None:
        return compiler
    if os.environ.get("CI"):
        pytest.fail(COMPILER_IS_MISSING, pytrace=False)
    pytest.skip(COMPILER_IS_MISSING)
