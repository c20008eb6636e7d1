"""What is computed of images, sequences and tables, and when."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from fleet.drift.alarms import AlarmState, judge_drift
from fleet.drift.features import build_reference, count_block, extract
from fleet.drift.inputs import (
    INPUT_ENERGY,
    INPUT_MEAN,
    INPUT_SHARPNESS,
    MAX_COLUMNS,
    Given,
    column_feature,
    column_of,
    layout_of,
)
from fleet.drift.profile import ReferenceProfile

RANDOM = np.random.default_rng(7)


def probabilities(count: int) -> NDArray[np.float64]:
    return np.random.default_rng(1).dirichlet(np.ones(3), count)


def names(reference: ReferenceProfile) -> set[str]:
    return {feature.name for feature in reference.features}


@pytest.mark.parametrize(
    ("declared", "shape", "layout"),
    [
        ("", (4,), "NK"),
        ("", (MAX_COLUMNS,), "NK"),
        ("", (MAX_COLUMNS + 1,), ""),
        ("", (8, 8), ""),  # an image, or steps of several values: not guessed
        ("", (32, 32, 3), "NHWC"),
        ("", (1, 28, 28), "NCHW"),
        ("", (3, 8, 3), ""),
        ("", (8, 8, 8), ""),
        ("NHW", (8, 8), "NHW"),
        ("NTC", (8, 8), "NTC"),
        ("NT", (12,), "NT"),
        ("NHW", (8,), ""),
        ("XYZ", (8, 8), ""),
    ],
)
def test_the_layout_is_declared_or_follows_from_the_shape(
    declared: str, shape: tuple[int, ...], layout: str
) -> None:
    assert layout_of(declared, shape) == layout


@pytest.mark.parametrize(("layout", "axis"), [("NHWC", 3), ("NCHW", 1)])
def test_sharpness_of_an_image_is_its_mean_absolute_laplacian(layout: str, axis: int) -> None:
    image = np.zeros((1, 5, 5))
    image[0, 2, 2] = 1.0  # seen with 4 by itself and with 1 by its four neighbours, of 9 inner pixels
    axes = (1, 2) if layout == "NHWC" else (2, 3)
    given = Given(np.expand_dims(image, axis), axes)
    assert given.sharpness.tolist() == [pytest.approx(8 / 9)]
    assert given.energy.tolist() == [pytest.approx(1 / 25)]


def test_sharpness_of_a_sequence_is_how_much_it_changes_from_step_to_step() -> None:
    steps = np.array([[0.0, 1.0, -1.0, 0.0], [5.0, 5.0, np.nan, 5.0]])
    assert Given(steps, (1,)).sharpness.tolist() == [pytest.approx(4 / 3), 0.0]


def test_images_too_small_to_be_sharp_have_no_sharpness() -> None:
    reference = build_reference("classification", RANDOM.random((50, 2, 9)), probabilities(50), layout="NHW")
    assert INPUT_SHARPNESS not in names(reference)
    assert INPUT_ENERGY in names(reference)


@pytest.mark.parametrize("bad", [np.inf, -np.inf, 1e308])
def test_what_is_not_finite_does_no_harm(bad: float) -> None:
    images = RANDOM.random((60, 6, 6))
    reference = build_reference("classification", images, probabilities(60), layout="NHW")
    images[0, 2, 2] = bad
    images[1] = np.nan
    counted = count_block(reference, images, probabilities(60))
    sharpness = counted[INPUT_SHARPNESS]
    assert sharpness.total + sharpness.missing == 60
    assert sharpness.missing >= 1


def test_a_blurred_image_is_told_by_its_sharpness_where_its_mean_is_the_same() -> None:
    images = RANDOM.random((600, 8, 8))
    reference = build_reference("classification", images, probabilities(600), layout="NHW")
    seen = RANDOM.random((300, 8, 8))
    blurred = (seen + np.roll(seen, 1, axis=1)) / 2  # its mean is what it was
    counts = count_block(reference, blurred, probabilities(300))
    found = {each.feature: each.look_evidence for each in judge_drift(reference, counts, AlarmState())}
    assert found[INPUT_SHARPNESS] > 10
    assert found[INPUT_MEAN] < 1


def test_the_column_that_drifts_is_named() -> None:
    table = RANDOM.normal(size=(800, 4))
    columns = ("pressure", "temperature", "flow", "on")
    table[:, 3] = RANDOM.random(800) < 0.3
    reference = build_reference("classification", table, probabilities(800), columns=columns)
    now = RANDOM.normal(size=(400, 4))
    now[:, 3] = RANDOM.random(400) < 0.6  # a switch that is on twice as often
    now[::4, 1] = np.nan  # a sensor that falls silent now and then
    judged = judge_drift(reference, count_block(reference, now, probabilities(400)), AlarmState())
    found = {each.feature for each in judged if each.drifted and each.feature.split(".")[1][0].isdigit()}
    assert found == {"input.1 (temperature)", "input.3 (on)"}
    missing = {each.feature: each.missing for each in judged}
    assert missing["input.1 (temperature)"] == 0.25
    assert missing["input.0 (pressure)"] == 0.0


def test_columns_without_names_have_their_numbers() -> None:
    reference = build_reference("regression", RANDOM.random((50, 2)), RANDOM.random((50, 1)))
    assert names(reference) == {"output.value", "input.mean", "input.contrast", "input.0", "input.1"}


def test_names_of_columns_are_bounded_and_read_back() -> None:
    assert column_of(column_feature(12, "x" * 500)) == 12
    assert len(column_feature(12, "x" * 500)) < 100
    assert column_of("input.3 (a (b)\n)") == 3
    for other in ("input.mean", "input.", "input.01", "input.-1", "input.99999", "output.1", "input.1 x"):
        assert column_of(other) is None


def test_a_device_whose_inputs_have_fewer_columns_finds_them_missing() -> None:
    values = extract(["input.2"], np.zeros((3, 2)), probabilities(3))
    assert np.isnan(values["input.2"].astype(float)).all()


def test_counting_the_reference_sample_gives_the_reference() -> None:
    for inputs, layout in ((RANDOM.random((300, 5)), ""), (RANDOM.random((300, 9, 9, 3)), "")):
        inputs[::7, 0] = np.nan
        reference = build_reference("classification", inputs, probabilities(300), layout=layout)
        counted = count_block(reference, inputs, probabilities(300))
        assert {f.name: (list(f.cells), f.missing) for f in reference.features} == {
            name: (counts.cells, counts.missing) for name, counts in counted.items()
        }
