"""Converters side by side: ``make bench-converters``; docs/benchmarks.md says what is measured and how.

::

    train the models ─► convert each by every route ─► judge all files here ─► tables ─► aims
    (a process)         (a process each, in turns)     (this process, in turns)
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.aims import Aim
from benchmarks.converters_tables import conversions_table, environments_table, files_table
from benchmarks.judging import Figures, Key, judged
from benchmarks.measure import Installation, installation, run_program
from benchmarks.models import MODELS, Model
from benchmarks.routes import (
    ENVIRONMENTS,
    MUSTER_TFLITE,
    ONNX2TF,
    ONNX2TF_TENSORFLOW,
    OURS,
    ROUTES,
    Conversion,
    Route,
    converted,
)

MOST_POINTS_LOST = 0.5
GREATEST_SIZE_RATIO = 0.36
LEAST_SPEEDUP = 20.0
GREATEST_INSTALL_SHARE = 0.2
PEERS = (ONNX2TF, ONNX2TF_TENSORFLOW)
TRAINING_TIMEOUT_S = 1800.0


def main() -> None:
    """Run the benchmark as the command line says."""
    arguments = _arguments()
    chosen = [model for model in MODELS if model.name in arguments.models]
    with tempfile.TemporaryDirectory(prefix="bench-converters-") as temporary:
        folder = arguments.keep or Path(temporary)
        _train(folder)
        conversions = {
            model: converted(model, ROUTES, folder / model.name, rounds=arguments.rounds) for model in chosen
        }
        files = {model: judged(model, folder / model.name, conversions[model]) for model in chosen}
    names = dict.fromkeys(route.environment for route in ROUTES)
    environments = {name: installation(ENVIRONMENTS / name) for name in names}
    texts = [
        environments_table(environments),
        *(conversions_table(model, conversions[model]) for model in chosen),
        *(files_table(model, files[model]) for model in chosen),
    ]
    aims = [*_quality(files), *_speed(conversions), *_size(environments)]
    sys.stdout.write("\n\n".join([*texts, "\n".join(str(aim) for aim in aims)]) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.converters", description="Compare converters to int8.")
    names = [model.name for model in MODELS]
    parser.add_argument("--models", nargs="+", choices=names, default=names, help="by default all")
    parser.add_argument("--rounds", type=int, default=3, help="cold conversions by each route, by default 3")
    parser.add_argument("--keep", type=Path, help="a new folder to leave models and files in")
    return parser.parse_args()


def _train(folder: Path) -> None:
    """Train in another process: this one has to stay small, see `run_program`."""
    sys.stderr.write("  training\n")
    log = folder.with_suffix(".training.log")
    run = run_program(
        [sys.executable, "-m", "benchmarks.models", str(folder)], log, timeout_s=TRAINING_TIMEOUT_S
    )
    if run.failure:
        raise SystemExit(f"The models could not be trained: {run.failure}")
    log.unlink()


def _quality(files: Mapping[Model, Mapping[Key, Figures | str]]) -> Iterator[Aim]:
    for model, figures in files.items():
        ours = figures[MUSTER_TFLITE.name, "tflite-int8"]
        lost, ratio, reason = (
            (None, None, ours) if isinstance(ours, str) else (ours.points_lost, ours.size_ratio, "")
        )
        yield Aim(f"tflite-int8-points-lost-{model.name}", lost, "<=", MOST_POINTS_LOST, reason)
        if model.dense:
            yield Aim(f"tflite-int8-size-ratio-{model.name}", ratio, "<=", GREATEST_SIZE_RATIO, reason)


def _speed(conversions: Mapping[Model, Mapping[Route, Conversion]]) -> Iterator[Aim]:
    for peer in PEERS:
        for model, by_route in conversions.items():
            ours, theirs = by_route[MUSTER_TFLITE], by_route[peer]
            failures = {MUSTER_TFLITE.name: ours.cold.failure, peer.name: theirs.cold.failure}
            reason = "; ".join(f"{name}: {failure}" for name, failure in failures.items() if failure)
            against = f"speedup-over-{peer.name}-{model.name}"
            cold = None if reason else theirs.cold.wall_s / ours.cold.wall_s
            yield Aim(f"command-{against}", cold, ">=", LEAST_SPEEDUP, reason)
            warm = None if reason else theirs.warm_s / ours.warm_s
            yield Aim(f"conversion-{against}", warm, ">=", LEAST_SPEEDUP, reason)


def _size(environments: Mapping[str, Installation | None]) -> Iterator[Aim]:
    ours = environments[OURS]
    for peer in PEERS:
        theirs = environments[peer.environment]
        measured = None if ours is None or theirs is None else ours.size_bytes / theirs.size_bytes
        reason = "" if measured is not None else "could not be installed"
        yield Aim(f"install-share-of-{peer.name}", measured, "<=", GREATEST_INSTALL_SHARE, reason)


if __name__ == "__main__":
    main()
