"""A C compiler, for tests that load a library built for them."""

from __future__ import annotations

from tests.support.needed import need_program

COMPILER_IS_MISSING = "A C compiler is missing, and these tests need one: apt-get install gcc libc6-dev"


def need_compiler() -> str:
    """Return the compiler's path. Fail in CI without one; on a person's machine leave the test out."""
    return need_program("cc", missing=COMPILER_IS_MISSING)
