"""What `benchmarks.agent` found, as tables and as aims."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from benchmarks.aims import Aim
from benchmarks.serving.processes import Memory
from benchmarks.serving.servers import MLSERVER, MUSTER, PEERS
from benchmarks.table import table

RAW = "raw"
JOINED = (1, 16)
"""How many samples a run may join: in one agent none, in the other what is its default."""
LITERT = "muster, LiteRT"
_MB = 1e6


class Load(NamedTuple):
    """What came of asking one way, once.

    Attributes:
        per_s: Requests per second.
        p50_us: Median latency.
        p99_us: Latency that one of a hundred exceeds.
        cpu_us: Processor time of the server for a request.
    """

    per_s: float
    p50_us: float
    p99_us: float
    cpu_us: float


def median_load(loads: Sequence[Load]) -> Load:
    """Return the medians of each figure."""
    return Load(*(statistics.median(figures) for figures in zip(*loads, strict=True)))


@dataclass
class Found:
    """Everything that was measured.

    Attributes:
        loads: By model, connections and way; that of `RAW` has one connection only.
        joined: By model, way and how many samples a run may join, over many connections.
        memory: By server, with the smallest model, after it was asked.
        parts: Resident bytes of the agent by part.
        first_answer_s: By server, from the start of its process, with the smallest model.
        failures: By server, why it is not measured.
        lost: By model and way, why that is not measured.
    """

    loads: dict[tuple[str, int], dict[str, Load]] = field(default_factory=dict)
    joined: dict[tuple[str, str, int], Load] = field(default_factory=dict)
    memory: dict[str, Memory] = field(default_factory=dict)
    parts: dict[str, int] = field(default_factory=dict)
    first_answer_s: dict[str, float] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    lost: dict[tuple[str, str], str] = field(default_factory=dict)


def tables(found: Found) -> Iterator[str]:
    """Return all tables."""
    for (model, connections), by_route in found.loads.items():
        raw = found.loads[model, 1][RAW]
        theirs = by_route.get(MLSERVER)
        yield table(
            f"{model}, {connections} connection(s)",
            [
                "way",
                "p50 µs",
                "added",
                "p99 µs",
                "added",
                "requests/s",
                "to mlserver",
                "CPU s/1,000",
                "to raw",
            ],
            [_row(route, load, raw, theirs) for route, load in by_route.items()],
            [
                *(f"{name}: {why}" for name, why in found.failures.items()),
                *(f"{way}: {why}" for (of, way), why in found.lost.items() if of == model),
            ],
        )
    yield table(
        f"Requests that wait joined into one run, {MANY} connections",
        ["model", "way", "alone/s", "joined/s", "to alone", "p50 µs", "joined", "CPU µs", "joined"],
        [
            _joined_row(model, way, load, found.joined[model, way, max(JOINED)])
            for (model, way, limit), load in found.joined.items()
            if limit == min(JOINED)
        ],
    )
    yield table(
        "Resident memory with mlp, and the time to the first answer",
        ["server", "PSS MB", "RSS MB", "first answer s"],
        [
            [name, f"{size.pss_bytes / _MB:.1f}", f"{size.rss_bytes / _MB:.1f}", _seconds(found, name)]
            for name, size in found.memory.items()
        ],
    )
    yield table(
        "Resident memory of the agent by part",
        ["part", "RSS MB"],
        [[part, f"{size_bytes / _MB:.1f}"] for part, size_bytes in found.parts.items()],
    )


def _row(route: str, load: Load, raw: Load, theirs: Load | None) -> list[str]:
    return [
        route,
        f"{load.p50_us:.1f}",
        f"{load.p50_us - raw.p50_us:.1f}",
        f"{load.p99_us:.1f}",
        f"{load.p99_us - raw.p99_us:.1f}",
        f"{load.per_s:.0f}",
        "-" if theirs is None else f"{load.per_s / theirs.per_s:.2f}",
        f"{load.cpu_us / 1000:.4f}",
        f"{load.cpu_us / raw.cpu_us:.2f}",
    ]


def _joined_row(model: str, way: str, alone: Load, joined: Load) -> list[str]:
    return [
        model,
        way,
        f"{alone.per_s:.0f}",
        f"{joined.per_s:.0f}",
        f"{joined.per_s / alone.per_s:.2f}",
        f"{alone.p50_us:.0f}",
        f"{joined.p50_us:.0f}",
        f"{alone.cpu_us:.0f}",
        f"{joined.cpu_us:.0f}",
    ]


def _seconds(found: Found, name: str) -> str:
    seconds = found.first_answer_s.get(name)
    return "-" if seconds is None else f"{seconds:.2f}"


class _Limits(NamedTuple):
    """Least throughput of a way to ask the agent, to MLServer's."""

    form: str
    mlp: float
    cnn: float


_THROUGHPUT = (_Limits("binary", 15.0, 12.0), _Limits("JSON", 12.0, 2.5))
MANY = 16


def aims(found: Found) -> Iterator[Aim]:
    """Return all aims: those of issue 4, and how the peers do beside them."""
    yield from _fast(found)
    yield from _throughput(found)
    for name, limit_mb in ((MUSTER, 70.0), (LITERT, 55.0)):
        size = found.memory.get(name)
        runtime = "ort" if name == MUSTER else "litert"
        measured = None if size is None else size.rss_bytes / _MB
        yield Aim(f"resident-mb-{runtime}", measured, "<=", limit_mb, _why(found, name, measured))
    seconds = found.first_answer_s.get(MUSTER)
    yield Aim("first-answer-s", seconds, "<=", 0.5, _why(found, MUSTER, seconds))
    yield from _lighter_than_peers(found)


def _throughput(found: Found) -> Iterator[Aim]:
    for limits in _THROUGHPUT:
        for model, limit in (("mlp", limits.mlp), ("cnn", limits.cnn)):
            loads = found.loads.get((model, MANY), {})
            name = f"rest-{limits.form.lower()}-to-mlserver-{model}"
            yield _ratio(found, name, loads, ours=f"{MUSTER} TCP {limits.form}", theirs=MLSERVER, limit=limit)


def _fast(found: Found) -> Iterator[Aim]:
    """What the fast path adds to the model, in time and in the server's processor time."""
    ways = {"fast": f"{MUSTER} fast", "shared": f"{MUSTER} fast, shared"}
    mlp, raw = found.loads.get(("mlp", 1), {}).get(ways["fast"]), found.loads.get(("mlp", 1), {}).get(RAW)
    added = None if mlp is None or raw is None else mlp.p50_us - raw.p50_us
    yield Aim("fast-added-p50-us-mlp", added, "<=", 15.0, _why(found, MUSTER, added))
    cpu_us = None if mlp is None else mlp.cpu_us
    yield Aim("fast-cpu-us-mlp", cpu_us, "<=", 12.0, _why(found, MUSTER, cpu_us))
    for way, limit in (("fast", 1.30), ("shared", 1.20)):
        loads = found.loads.get(("cnn", 1), {})
        measured = loads[ways[way]].p50_us / loads[RAW].p50_us if ways[way] in loads else None
        yield Aim(f"{way}-p50-to-raw-cnn", measured, "<=", limit, _why(found, MUSTER, measured))
    for name, way in (("fast", ways["fast"]), ("rest-binary", f"{MUSTER} Unix binary")):
        loads = found.loads.get(("heavy", 1), {})
        measured = loads[way].cpu_us / loads[RAW].cpu_us if way in loads else None
        yield Aim(f"{name}-cpu-to-raw-heavy", measured, "<=", 1.05, _why(found, MUSTER, measured))


def _lighter_than_peers(found: Found) -> Iterator[Aim]:
    """Against each peer: less memory, a quicker start, more requests a second by the same JSON over TCP."""
    loads = found.loads.get(("mlp", MANY), {})
    for peer in PEERS:
        if peer != MLSERVER:  # it has an aim of its own
            yield _ratio(
                found, f"rest-json-to-{peer}-mlp", loads, ours=f"{MUSTER} TCP JSON", theirs=peer, limit=1.0
            )
        ours, theirs = found.memory.get(MUSTER), found.memory.get(peer)
        share = None if ours is None or theirs is None else ours.pss_bytes / theirs.pss_bytes
        yield Aim(f"resident-to-{peer}", share, "<=", 1.0, _why(found, peer, share))


def _ratio(
    found: Found,
    name: str,
    loads: Mapping[str, Load],
    *,
    ours: str,
    theirs: str,
    limit: float,
) -> Aim:
    measured = loads[ours].per_s / loads[theirs].per_s if ours in loads and theirs in loads else None
    return Aim(name, measured, ">=", limit, _why(found, theirs, measured))


def _why(found: Found, server: str, measured: float | None) -> str:
    if measured is not None:
        return ""
    lost = "; ".join(found.lost.values())
    return found.failures.get(server, found.failures.get(MUSTER, lost or "not in this run"))
