"""Labels of metrics stay few, however many models and versions there are; nothing is left out of a sum."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hub.api.metrics import OTHER, bounded

NAMES = st.text("abc", min_size=1, max_size=3)
VALUES = st.dictionaries(st.tuples(NAMES, NAMES), st.integers(0, 1000).map(float), max_size=60)


@given(VALUES, st.integers(0, 20))
def test_series_are_bounded_and_their_sum_is_the_sum(values: dict[tuple[str, str], float], most: int) -> None:
    kept = bounded(values, most)
    assert len(kept) <= 2 * most + 1
    assert sum(kept.values()) == sum(values.values())


@given(VALUES, st.integers(1, 20))
def test_the_greatest_keep_series_of_their_own(values: dict[tuple[str, str], float], most: int) -> None:
    kept = bounded(values, most)
    own = {key: value for key, value in kept.items() if key[1] != OTHER}
    assert own.items() <= values.items()
    left_out = [value for key, value in values.items() if key not in own]
    assert len(own) == min(most, len(values))
    assert max(left_out, default=0.0) <= min(own.values(), default=0.0)
