"""Accuracy without labels, with few and with late ones, beside others': ``make bench-quality``.

::

    train ─► answer inputs that get harder ─► estimate from cells, and from raw answers by NannyML ─► errors
          ─► draw labels ─► intervals ─► labelled errors that become more ─► alarms, here and by River ─► aims
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks import quality_simulation as simulation
from benchmarks.aims import Aim
from benchmarks.drift import asked_peer
from benchmarks.parts import Part, show_parts
from benchmarks.quality_cases import GRADES, Case, Floats, cases
from benchmarks.table import table
from fleet.drift.features import OUTPUT_CONFIDENCE, build_reference, count_block
from fleet.quality.atc import atc
from fleet.quality.calibration import calibration_of, confidence_of, folded, with_correct
from fleet.quality.cbpe import cbpe

SEED = 6
NOMINAL = 0.95
ASSUMPTION_HOLDS = "Gaussians"
LABELS = (20, 50, 200)
MORE_ERRORS = (0.05, 0.10, 0.20)
METHODS = ("held-out", "muster CBPE", "NannyML CBPE", "muster ATC", "ATC of raw answers")


class Estimated(NamedTuple):
    """Estimates of one case at one grade.

    Attributes:
        truth: The accuracy.
        values: What each of `METHODS` says; None for a peer that could not be asked.
        held: Whether our interval holds the truth.
    """

    truth: float
    values: tuple[float | None, ...]
    held: bool


def main() -> None:
    """Run the benchmark as the command line says."""
    parser = argparse.ArgumentParser(prog="benchmarks.quality", description="Compare estimates of quality.")
    parser.add_argument("--seeds", type=int, default=10, help="seeds of each case, by default 10")
    parser.add_argument("--trials", type=int, default=400, help="simulated fleets, by default 400")
    parser.add_argument("--streams", type=int, default=100, help="streams of labels, by default 100")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-quality-") as temporary:
        parts: tuple[Callable[[], Part], ...] = (
            lambda: _without_labels(Path(temporary), arguments.seeds),
            lambda: _few_labels(arguments.trials),
            lambda: _late_labels(Path(temporary), arguments.streams),
        )
        show_parts(part() for part in parts)


def _without_labels(folder: Path, seeds: int) -> Part:
    drawn = {f"{case.task}, {case.model}/{number}": case for number, case in enumerate(cases(seeds))}
    tables = {
        f"{name}/{what}": values
        for name, case in drawn.items()
        for what, values in (
            ("answers", case.answers),
            ("labels", case.labels),
            ("current", np.stack([answers for answers, _ in case.current])),
        )
    }
    np.savez(folder / "answers.npz", **tables)  # type: ignore[arg-type]
    nannyml = asked_peer("quality_judge.py", "nannyml", folder / "answers.npz") or {}
    found: dict[tuple[str, float], list[Estimated]] = {}
    for name, case in drawn.items():
        for place, grade in enumerate(GRADES):
            theirs = nannyml[name][place] if name in nannyml else None
            found.setdefault((name.split("/")[0], grade), []).append(_estimated(case, place, theirs))
    lines = [
        [
            task,
            f"{grade:g}",
            f"{np.mean([one.truth for one in ones]):.3f}",
            *_errors(ones),
            f"{_held(ones):.2f}",
        ]
        for (task, grade), ones in found.items()
    ]
    columns = ["task", "shift", "accuracy", *METHODS, "interval holds"]
    every = [one for ones in found.values() for one in ones]
    return [table(f"Mean errors of estimated accuracies, {seeds} seeds", columns, lines)], _estimate_aims(
        every, [one for (task, _), ones in found.items() for one in ones if task.startswith(ASSUMPTION_HOLDS)]
    )


def _estimated(case: Case, place: int, nannyml: float | None) -> Estimated:
    """Return all estimates of a case at a grade."""
    profile = build_reference("classification", case.inputs, case.answers)
    reference = with_correct(profile, case.answers, case.labels)
    calibration, confidence = calibration_of(reference), confidence_of(reference)
    assert calibration is not None and confidence is not None
    answers, labels = case.current[place]
    counts = count_block(reference, np.zeros((len(answers), 1)), answers)[OUTPUT_CONFIDENCE]
    ours, truth = cbpe(calibration, folded(counts.cells)), float((answers.argmax(axis=1) == labels).mean())
    values = (
        calibration.accuracy,
        ours.value,
        nannyml,
        atc(calibration, confidence, counts),
        _raw_atc(case.answers, calibration.accuracy, answers),
    )
    return Estimated(truth, values, ours.lower <= truth <= ours.upper)


def _raw_atc(held_out: Floats, accuracy: float, current: Floats) -> float:
    """Return average thresholded confidence as its authors define it."""
    threshold = np.quantile(held_out.max(axis=1), 1.0 - accuracy)
    return float((current.max(axis=1) > threshold).mean())


def _errors(ones: list[Estimated]) -> list[str]:
    errors = (_mean_error(ones, place) for place in range(len(METHODS)))
    return ["-" if error is None else f"{error:.3f}" for error in errors]


def _mean_error(ones: list[Estimated], place: int) -> float | None:
    values = [(one.values[place], one.truth) for one in ones]
    known = [abs(value - truth) for value, truth in values if value is not None]
    return float(np.mean(known)) if len(known) == len(ones) else None


def _held(ones: list[Estimated]) -> float:
    return float(np.mean([one.held for one in ones]))


def _estimate_aims(every: list[Estimated], assumption_holds: list[Estimated]) -> list[Aim]:
    unaided, ours, nannyml, cells, raw = (_mean_error(assumption_holds, n) for n in range(len(METHODS)))
    everywhere, theirs = _mean_error(every, 1), _mean_error(every, 2)
    assert unaided is not None and ours is not None and cells is not None and raw is not None
    missing = "NannyML could not be run"
    return [
        Aim(
            "cbpe-interval-coverage", _held(assumption_holds), ">=", 0.9, "where confidence keeps its meaning"
        ),
        Aim("cbpe-error-to-held-out", ours / unaided, "<=", 0.5, "likewise"),
        Aim(
            "cbpe-error-to-nannyml",
            ours / nannyml if nannyml else None,
            "<=",
            1.1,
            "likewise" if nannyml else missing,
        ),
        Aim(
            "cbpe-error-to-nannyml-everywhere",
            everywhere / theirs if everywhere is not None and theirs else None,
            "<=",
            1.1,
            "" if theirs else missing,
        ),
        Aim("atc-of-cells-less-atc-of-raw-answers", cells - raw, "<=", 0.005, "mean errors"),
    ]


def _few_labels(trials: int) -> Part:
    rng, lines = np.random.default_rng(SEED), []
    coverage, narrower = 1.0, 1.0
    for telling in simulation.TELLING:
        for labels in LABELS:
            found = simulation.intervals(rng, telling, labels, trials)
            cells = [f"{found.held[name]:.3f} {found.width[name]:.3f}" for name in found.held]
            lines.append([telling, str(labels), *cells])
            coverage = min(coverage, found.held["with confidences"])
            if labels == LABELS[-1]:
                narrower = min(narrower, found.width["with confidences"] / found.width["labels alone"])
    columns = ["confidence", "labels", *found.held]
    title = f"Intervals of {NOMINAL:.0%}: how many hold the accuracy of {simulation.ANSWERS:,} answers; width"
    return [table(title, columns, lines)], [
        Aim("powered-coverage", coverage, ">=", 0.93, "the lowest of all rows"),
        Aim(
            "powered-width-to-labels-alone", narrower, "<=", 0.9, "at 200 labels, where confidence tells much"
        ),
    ]


def _late_labels(folder: Path, streams: int) -> Part:
    rng = np.random.default_rng(SEED)
    drawn = {f"+ {more:.0%}": simulation.error_streams(rng, more, streams) for more in (0.0, *MORE_ERRORS)}
    np.savez(folder / "errors.npz", **drawn)  # type: ignore[arg-type]
    river = asked_peer("quality_judge.py", "river", folder / "errors.npz")
    lines, false, missed = [], 0.0, 0.0
    for name, errors in drawn.items():
        ours = [simulation.labels_until_alarm(rng, stream) for stream in errors]
        lines.append(
            [name, *_alarms(ours, name), *(_alarms(river[name], name) if river else ["-", "-", "-"])]
        )
        false = max(false, _false_share(ours, name))
        if name == f"+ {MORE_ERRORS[-1]:.0%}":
            missed = sum(alarm is None for alarm in ours) / streams
    title = (
        f"Labelled errors that become more after {simulation.LABELS_BEFORE:,} labels, {streams} streams:"
        " share of false alarms, of true ones, median delay in labels"
    )
    columns = ["errors", "muster false", "true", "delay", "ADWIN false", "true", "delay"]
    return [table(title, columns, lines)], [
        Aim("concept-false-alarms", false, "<=", 0.05),
        Aim("concept-drift-missed", missed, "<=", 0.0, "of 20 points"),
    ]


def _false_share(alarms: list[int | None], name: str) -> float:
    limit = simulation.LABELS_BEFORE if name != "+ 0%" else sys.maxsize
    return sum(alarm is not None and alarm <= limit for alarm in alarms) / len(alarms)


def _alarms(alarms: list[int | None], name: str) -> list[str]:
    """Return the cells of a row."""
    false = f"{_false_share(alarms, name):.2f}"
    if name == "+ 0%":
        return [false, "-", "-"]
    after = [
        alarm - simulation.LABELS_BEFORE for alarm in alarms if alarm and alarm > simulation.LABELS_BEFORE
    ]
    return [false, f"{len(after) / len(alarms):.2f}", f"{np.median(after):.0f}" if after else "-"]


if __name__ == "__main__":
    main()
