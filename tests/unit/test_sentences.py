"""Pieces of sentences: numbers as people write them."""

from __future__ import annotations

import pytest

from fleet.sentences import number


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (0, "0"),
        (31622400.0, "31,622,400"),
        (10**7, "10,000,000"),
        (2.0**40, "1,099,511,627,776"),
        (1e-9, "0.000000001"),
        (1 / 60, "0.0166667"),
        (-1234.5, "-1,234.5"),
        (1e300, "1e+300"),
        (float("nan"), "nan"),
        (10**400, "10^308 and more"),
        (-(10**400), "-10^308 and more"),
    ],
)
def test_numbers_are_told_as_people_write_them(value: float, told: str) -> None:
    assert number(value) == told
