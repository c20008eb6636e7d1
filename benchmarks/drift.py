"""Drift profiles and alarms side by side with others': ``make bench-drift``; docs/benchmarks.md says how.

::

    draw data ─► profile it here and in peers' environments ─► distances against scipy
              ─► watch simulated fleets ─► the same cases judged here and by peers ─► tables ─► aims
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import drift_profiles as profiles
from benchmarks import drift_simulation as simulation
from benchmarks.aims import Aim
from benchmarks.drift_cases import DRIFTS, current_table, reference_table
from benchmarks.measure import ROOT
from benchmarks.parts import Part, show_parts
from benchmarks.table import table

ENVIRONMENTS = ROOT / ".venv" / "peers"
PEERS = ROOT / "benchmarks" / "peers"
FEATURES, WHYLOGS_ROWS = 16, 100_000
SIZES = (100, 300, 1000, 3000)
NOMINAL = 0.05
PEER_TIMEOUT_S = 1800.0
SEED = 5


def main() -> None:
    """Run the benchmark as the command line says."""
    parser = argparse.ArgumentParser(prog="benchmarks.drift", description="Compare drift detection.")
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the table that is profiled")
    parser.add_argument("--columns", type=int, default=40, help="repetitions of each case, by default 40")
    parser.add_argument("--fleets", type=int, default=40, help="simulated fleets, by default 40")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-drift-") as temporary:
        parts: tuple[Callable[[], Part], ...] = (
            lambda: _profiles(Path(temporary), arguments.rows),
            _accuracy,
            lambda: _false_alarms(arguments.fleets),
            lambda: _verdicts(Path(temporary), arguments.columns),
            _delays,
        )
        show_parts(part() for part in parts)


def asked_peer(program: str, peer: str, file: Path) -> dict[str, Any] | None:
    """Run a peer's program in its environment; None if it is not installed or fails.

    Args:
        program: In `PEERS`.
        peer: Who is asked; the program's first argument.
        file: What of; its second.
    """
    python = ENVIRONMENTS / f"drift-{peer}" / "bin" / "python"
    if not python.exists():
        return None
    run = subprocess.run(
        [python, PEERS / program, peer, file],
        capture_output=True,
        text=True,
        timeout=PEER_TIMEOUT_S,
        check=False,
    )
    if run.returncode != 0:
        sys.stderr.write(f"  {peer} failed: {run.stderr.strip().splitlines()[-1:]}\n")
        return None
    answer: dict[str, Any] = json.loads(run.stdout.strip().splitlines()[-1])
    return answer


def _profiles(folder: Path, rows: int) -> Part:
    rng = np.random.default_rng(SEED)
    features = profiles.references(rng.normal(size=(profiles.REFERENCE_ROWS, FEATURES)))
    values = rng.normal(size=(rows, FEATURES))
    np.save(folder / "all.npy", values)
    np.save(folder / "some.npy", values[:WHYLOGS_ROWS])
    ours = profiles.profile_cost(features, values)
    kll = asked_peer("drift_profiler.py", "datasketches", folder / "all.npy")
    whylogs = asked_peer("drift_profiler.py", "whylogs", folder / "some.npy")
    lines = [["muster", f"{ours.ns_per_value:.1f}", f"{ours.sent_bytes:.0f}"]]
    for name, peer in (("datasketches KLL", kll), ("whylogs", whylogs)):
        lines.append([name, *((f"{peer['ns_per_value']:.1f}", f"{peer['bytes']:.0f}") if peer else "--")])
    column = values[:, 0].copy()
    ways = {n: profiles.counting_ns(features[0], column, n) for n in profiles.SEVERAL_ROWS}
    windows = [
        [f"{n:,}", *(f"{getattr(cost, name):.0f}" for name in ("raw_bytes", "sent_bytes", "counts_bytes"))]
        for n in (300, 10_000, rows)
        for cost in [profiles.profile_cost(features, values[:n])]
    ]
    levels = profiles.level_bytes(features, values[:10_000])
    texts = [
        table(f"Profile of {rows:,} rows × {FEATURES}", ["by", "CPU ns a value", "bytes a feature"], lines),
        table(
            "Ways of counting, CPU ns a value",
            ["rows at once", *ways[profiles.SEVERAL_ROWS[0]]],
            [[f"{n:,}", *(f"{ns:.1f}" for ns in by.values())] for n, by in ways.items()],
        ),
        table("Bytes a feature", ["rows", "raw", "sent", "sent, counts only"], windows)
        + "\n"
        + ", ".join(f"level {level}: {size:,} bytes for all" for level, size in levels.items()),
    ]
    return texts, _profile_aims(ours, kll, whylogs)


def _profile_aims(
    ours: profiles.Cost, kll: Mapping[str, float] | None, whylogs: Mapping[str, float] | None
) -> list[Aim]:
    per_second = 1e9 / ours.ns_per_value

    def ratio(peer: Mapping[str, float] | None, what: str, own: float) -> float | None:
        return None if peer is None else peer[what] / own

    missing = "could not be run"
    return [
        Aim("profile-million-values-per-cpu-second", per_second / 1e6, ">=", 10.0, "values of one feature"),
        Aim(
            "profile-million-rows-per-cpu-second",
            per_second / 1e6 / FEATURES,
            ">=",
            10.0,
            "rows of 16 features",
        ),
        Aim(
            "profile-speed-to-kll",
            ratio(kll, "ns_per_value", ours.ns_per_value),
            ">=",
            4.0,
            "" if kll else missing,
        ),
        Aim(
            "profile-speed-to-whylogs",
            ratio(whylogs, "ns_per_value", ours.ns_per_value),
            ">=",
            100.0,
            "" if whylogs else missing,
        ),
        Aim("bytes-raw", ours.raw_bytes, "<=", 350.0),
        Aim("bytes-compressed-counts-only", ours.counts_bytes, "<=", 150.0),
        Aim("bytes-kll-to-ours", ratio(kll, "bytes", ours.sent_bytes), ">=", 7.0, "" if kll else missing),
        Aim(
            "bytes-whylogs-to-ours",
            ratio(whylogs, "bytes", ours.sent_bytes),
            ">=",
            70.0,
            "" if whylogs else missing,
        ),
    ]


def _accuracy() -> Part:
    found = profiles.accuracy(np.random.default_rng(SEED))
    lines = [[a.shape, f"{a.mean_moved:.4f}", f"{a.largest_moved:.4f}", f"{a.largest_ks:.4f}"] for a in found]
    columns = ["shape", "Wasserstein mean", "largest", "Kolmogorov-Smirnov largest"]
    mean = float(np.mean([each.mean_moved for each in found]))
    return [table("Errors of distances from counts, Wasserstein in σ", columns, lines)], [
        Aim("wasserstein-mean-error", mean, "<=", 0.002),
        Aim("ks-largest-error", max(each.largest_ks for each in found), "<=", 1 / 64),
    ]


def _false_alarms(fleets: int) -> Part:
    rng, lines, worst = np.random.default_rng(SEED), [], 0.0
    for rows in (30, 100, 300, 1000):
        found = [
            simulation.watched_fleet(rng, devices=4, drifted=0, rows=rows, looks=10) for _ in range(fleets)
        ]
        at_once, alarmed = (
            float(np.mean([getattr(f, n) > 0 for f in found])) for n in ("first_looks", "false")
        )
        worst = max(worst, at_once, alarmed)
        lines.append([f"{rows:,}", f"{at_once:.3f}", f"{alarmed:.3f}"])
    mixed = [simulation.watched_fleet(rng, devices=20, drifted=4, rows=300, looks=4) for _ in range(fleets)]
    false = float(np.mean([fleet.false_share for fleet in mixed]))
    power = sum(fleet.true for fleet in mixed) / sum(fleet.drifted for fleet in mixed)
    title = f"Fleets of 4 devices × 4 features without drift, {fleets} each, nominal rate {NOMINAL}"
    columns = ["values a look", "a discovery at the first look", "an alarm within 10 looks"]
    notes = [
        f"20 devices, 4 with a shift of 1 σ: {false:.3f} of the alarms false, {power:.3f} of the drift found"
    ]
    return [table(title, columns, lines, notes)], [
        Aim("false-alarms-to-nominal", worst / NOMINAL, "<=", 2.0),
        Aim("false-discovery-rate", false, "<=", NOMINAL),
    ]


def _verdicts(folder: Path, columns: int) -> Part:
    rng = np.random.default_rng(SEED)
    tables: dict[str, np.ndarray] = {}
    for drift in DRIFTS:
        reference = reference_table(rng, drift, columns)
        for rows in SIZES:
            tables[f"{drift}/{rows}/reference"] = reference
            tables[f"{drift}/{rows}/current"] = current_table(rng, drift, rows, columns)
    file = folder / "cases.npz"
    np.savez(file, **tables)  # type: ignore[arg-type]
    evidently, nannyml = (asked_peer("drift_judge.py", peer, file) for peer in ("evidently", "nannyml"))
    ours, like_evidently = _own_verdicts(tables)
    peers = {"muster": ours, "Evidently": evidently, "NannyML": nannyml}
    lines = [
        [
            drift,
            f"{rows:,}",
            *(f"{np.mean(by[f'{drift}/{rows}']):.2f}" if by else "-" for by in peers.values()),
        ]
        for drift in DRIFTS
        for rows in SIZES
    ]
    text = table(
        f"Share found at one look, of {columns}; one feature watched", ["drift", "values", *peers], lines
    )
    return [text, _peers_delays({"Evidently": evidently, "NannyML": nannyml})], _verdict_aims(
        ours, like_evidently, evidently
    )


def _peers_delays(peers: Mapping[str, Any]) -> str:
    """Return how soon peers find drift if every window is judged for itself, as they do."""
    lines = [
        [
            drift,
            *(
                simulation.median_looks(float(np.mean(by[f"{drift}/{rows}"]))) if by else "-"
                for by in peers.values()
                for rows in SIZES
            ),
        ]
        for drift in DRIFTS
    ]
    title = "Looks until a peer first finds drift, median by the shares above, without drift too"
    return table(title, ["drift", *(f"{peer} {rows:,}" for peer in peers for rows in SIZES)], lines)


def _own_verdicts(tables: Mapping[str, np.ndarray]) -> tuple[dict[str, list[bool]], dict[str, list[bool]]]:
    """Return our verdicts, and Evidently's as counts give them, by case."""
    ours: dict[str, list[bool]] = {}
    like_evidently: dict[str, list[bool]] = {}
    for drift in DRIFTS:
        reference = tables[f"{drift}/{SIZES[0]}/reference"]
        made = [simulation.profile_of(column, drift) for column in reference.T]
        for rows in SIZES:
            pairs = list(zip(made, tables[f"{drift}/{rows}/current"].T, strict=True))
            ours[f"{drift}/{rows}"] = [simulation.found_at_once(p, column) for p, column in pairs]
            like_evidently[f"{drift}/{rows}"] = [
                bool(simulation.by_evidently(p.features[0], column)) for p, column in pairs
            ]
    return ours, like_evidently


def _verdict_aims(
    ours: Mapping[str, list[bool]],
    like_evidently: Mapping[str, list[bool]],
    evidently: Mapping[str, Any] | None,
) -> list[Aim]:
    large = [
        f"{drift}/{rows}" for drift in DRIFTS if "missing" not in drift for rows in SIZES if rows >= 1000
    ]

    def agreement(by: Mapping[str, list[bool]]) -> float | None:
        if evidently is None:
            return None
        return float(
            np.mean([a == b for case in large for a, b in zip(by[case], evidently[case], strict=True)])
        )

    missing = "" if evidently else "Evidently could not be run"
    caught = float(np.mean([ours[f"30 % missing/{rows}"] for rows in SIZES]))
    return [
        Aim("evidently-agreement-same-distance", agreement(like_evidently), ">=", 0.97, missing),
        Aim(
            "evidently-agreement-alarm", agreement(ours), ">=", 0.97, missing or "other criteria, on purpose"
        ),
        Aim("missing-30-percent-caught", caught, ">=", 1.0),
    ]


def _delays() -> Part:
    rng, lines = np.random.default_rng(SEED), []
    for drift in DRIFTS:
        (profile,) = [simulation.profile_of(reference_table(rng, drift, 1)[:, 0], drift)]
        cells = []
        for rows in SIZES:
            looks = [simulation.looks_until_alarm(rng, profile, drift, rows) for _ in range(10)]
            found = sorted(each for each in looks if each is not None)
            cells.append(f"{found[len(found) // 2]} ({len(found)})" if found else "never")
        lines.append([drift, *cells])
    title = f"Looks until the alarm (found of 10 within {simulation.MOST_LOOKS} looks), 32 features watched"
    return [table(title, ["drift", *(f"{rows:,} values" for rows in SIZES)], lines)], []


if __name__ == "__main__":
    main()
