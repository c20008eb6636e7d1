"""The contract of every store: tests for concept drift."""

from __future__ import annotations

from fleet.quality.concept import ConceptState
from hub.store.concept_rows import EVERY_DEVICE, ConceptKey, ConceptRow
from hub.store.protocols import Store

STATE = ConceptState(labelled=3, wrong=1, looks=4, evidence=2.5, raised=True, last_labelled=40, last_wrong=9)


def test_tests_and_the_position_that_they_include_are_stored_together(store: Store) -> None:
    assert store.quality_position() == 0
    row = ConceptRow("cam-1", "digits", 2, STATE)
    pooled = ConceptRow(EVERY_DEVICE, "digits", 2)
    store.save_concepts(17, [row, pooled])
    assert store.quality_position() == 17
    keys = [row.key, ConceptKey("cam-2", "digits", 2), pooled.key]
    assert store.concepts(keys) == {row.key: row, pooled.key: pooled}
    later = ConceptRow("cam-1", "digits", 2, ConceptState(looks=5, evidence=-1.0))
    store.save_concepts(18, [later])
    assert store.concepts([row.key]) == {row.key: later}
    assert store.quality_position() == 18


def test_tests_are_found_by_model_device_and_alarm(store: Store) -> None:
    rows = [
        ConceptRow(EVERY_DEVICE, "digits", 1),
        ConceptRow("cam-1", "digits", 1, STATE),
        ConceptRow("cam-2", "digits", 1, ConceptState(evidence=1.0)),
        ConceptRow("cam-1", "faces", 1, STATE),
    ]
    store.save_concepts(1, rows)
    assert store.concepts_of("digits") == rows[:3]
    assert store.concepts_of("digits", device_id=EVERY_DEVICE) == rows[:1]
    assert store.concepts_of("digits", raised=True) == rows[1:2]
    assert {row.key for row in store.strong_concepts(1.0)} == {row.key for row in rows[1:]}
    assert store.concepts_of("voices") == []
    assert store.raised_concepts() == [rows[1], rows[3]]
