"""The drift alarm on the demo's real images: over 20 seeds the two dirty cameras alarm, and no other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from converters.data.dataset import split_stratified
from fleet.drift.alarms import AlarmState, advance_alarm, judge_drift
from fleet.drift.features import build_reference, count_block
from fleet.drift.profile import ReferenceProfile
from hub.demo.images import Images, load_digits, through_dirty_lens
from hub.demo.story import LOOKS_AFTER_DIRT
from hub.training.estimators import check_hyperparameters, fitted_pipeline
from tests.support.thoroughness import ALL

pytestmark = pytest.mark.thorough

CAMERAS, CLEAN_LOOKS, IMAGES = 8, 4, 304


class Camera:
    """A camera's stream, the model's answers to it, and what the hub makes of the counts."""

    def __init__(self, seed: int, number: int, field: Images) -> None:
        self.random = np.random.default_rng(seed * 1000 + number)
        self.field = field
        self.state = AlarmState()
        self.is_dirty = False

    def look(self, pipeline: Any, reference: ReferenceProfile, others: list[Camera]) -> None:
        images = self.field[self.random.integers(len(self.field), size=IMAGES)]
        images = through_dirty_lens(images) if self.is_dirty else images
        counts = count_block(reference, images, pipeline.predict_proba(images))
        evidence = [value for each in others if each is not self for value in each.state.evidence.values()]
        watched = CAMERAS * len(reference.features)
        judged = judge_drift(reference, counts, self.state, others=evidence, watched=watched)
        self.state, _ = advance_alarm(self.state, judged)


@pytest.mark.parametrize("seed", range(20) if ALL else range(2))
def test_only_the_cameras_with_dirty_lenses_alarm(seed: int) -> None:
    digits = load_digits(seed)
    held_out, rest = split_stratified(digits.registered, share=0.25, seed=seed)
    pipeline = fitted_pipeline("mlp", check_hyperparameters("mlp", {"hidden": 64}), rest, seed)
    reference = build_reference(
        "classification", held_out.features, pipeline.predict_proba(held_out.features)
    )
    cameras = [Camera(seed, number, digits.field.features) for number in range(CAMERAS)]
    for _ in range(CLEAN_LOOKS):
        for camera in cameras:
            camera.look(pipeline, reference, cameras)
    assert not any(camera.state.raised for camera in cameras)
    dirty = {(seed + step) % CAMERAS for step in (1, 1 + CAMERAS // 2)}
    for number in dirty:
        cameras[number].is_dirty = True
    for _ in range(LOOKS_AFTER_DIRT):
        for camera in cameras:
            camera.look(pipeline, reference, cameras)
    alarmed = {number for number, camera in enumerate(cameras) if camera.state.raised}
    assert alarmed == dirty
    assert all("input.contrast" in cameras[number].state.raised for number in dirty)
