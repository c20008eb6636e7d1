"""Estimates without labels on the demo's real images: right on the field, and doubted where they are not."""

from __future__ import annotations

import pytest

from converters.data.dataset import split_stratified
from fleet.drift.alarms import AlarmState, judge_drift
from fleet.drift.features import OUTPUT_CONFIDENCE, build_reference, count_block
from fleet.quality.calibration import calibration_of, folded, folded_labels, labelled_cells, with_correct
from fleet.quality.cbpe import cbpe
from fleet.quality.doubts import disagreement
from hub.demo.images import load_digits, through_dirty_lens
from hub.training.estimators import check_hyperparameters, fitted_pipeline

SEEDS = range(2)
LABELS = 60


@pytest.mark.parametrize("seed", SEEDS)
def test_the_estimate_holds_on_the_field_and_is_doubted_behind_dirt(seed: int) -> None:
    """Behind dirt the model is surer than ever and nearly always wrong: only labels and drift alarms know."""
    digits = load_digits(seed)
    held_out, rest = split_stratified(digits.registered, share=0.25, seed=seed)
    pipeline = fitted_pipeline("mlp", check_hyperparameters("mlp", {"hidden": 64}), rest, seed)
    answers = pipeline.predict_proba(held_out.features)
    profile = build_reference("classification", held_out.features, answers)
    reference = with_correct(profile, answers, held_out.labels)
    calibration = calibration_of(reference)
    assert calibration is not None
    for is_dirty in (False, True):
        images = through_dirty_lens(digits.field.features) if is_dirty else digits.field.features
        current = pipeline.predict_proba(images)
        right = current.argmax(axis=1) == digits.field.labels
        counts = count_block(reference, images, current)
        estimate = cbpe(calibration, folded(counts[OUTPUT_CONFIDENCE].cells))
        assert (estimate.lower <= right.mean() <= estimate.upper) is not is_dirty
        judged = judge_drift(reference, counts, AlarmState())
        assert any(look.drifted for look in judged if look.feature.startswith("input.")) is is_dirty
        cells = labelled_cells(reference, right[:LABELS].tolist(), current[:LABELS].max(axis=1).tolist())
        labelled, correct = folded_labels(cells, len(calibration.answers))
        assert disagreement(calibration, labelled, correct) == (-1 if is_dirty else 0)
