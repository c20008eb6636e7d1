"""The sentences of verdicts: the numbers compared, the evidence in them, and how much of it is needed.

    inference errors 3.1% of 12,400 on 40 canaries against 0.2% of 3,000 on 400 controls; e-value 1,900 ≥ 800

An e-value of 1,900: who had bet on it from the start would have 1,900 times the stake, and where it is not so
that happens once in 1,900 times at most, see `fleet.rollout.gates.eprocess`.
"""

from __future__ import annotations

from collections.abc import Callable

from fleet.drift.features import CONFIDENCE_EDGES
from fleet.protocol.latency import quantile_us
from fleet.protocol.memory import quantile_bytes
from fleet.rollout.gates.comparison import Basis, Compared
from fleet.rollout.gates.counts import WHOLE, Part
from fleet.rollout.gates.eprocess import e_value
from fleet.rollout.gates.evidence import Evidence
from fleet.rollout.plans.plan import Metric, MetricGate

MIB = 1024.0**2

_MOST_SHOWN = 1e6


def comparison(gate: MetricGate, basis: Basis, compared: Compared, count: int = 1) -> str:
    """Return what was compared with what.

    Args:
        gate: Of the metric.
        basis: What the canaries were compared with.
        compared: The class, or the whole.
        count: How many classes the sentence stands for; this one is shown.
    """
    text = f"{_title(gate)} {_share(gate, compared.canary, compared.control, 'canary', 'canaries')}"
    if gate.metric is Metric.SHADOW_DISAGREEMENT:
        text += " in the shadow of the active version"
    elif basis is Basis.LIMIT:
        text += ", no control to compare with"
    else:
        text += f" against {_share(gate, compared.control, compared.canary, 'control', 'controls')}"
        text += " during the earlier stages" if basis is Basis.EARLIER else ""
    if compared.name != WHOLE:
        text += f", {compared.name}" + (f" and {count - 1:,} more classes" if count > 1 else "")
    return text


def harm(gate: MetricGate, basis: Basis, log_e: float, needed: float) -> str:
    """Return that the evidence of harm is enough."""
    also = f", also beyond the {_bound(gate, Basis.LIMIT)}" if basis is Basis.EARLIER else ""
    if gate.metric is Metric.INPUT_DRIFT:
        also = "; the two sides do not see the same inputs, so nothing can be said of the version"
    return f"e-value {_number(log_e)} ≥ {needed:,.0f}{also}"


def safety(gate: MetricGate, basis: Basis, log_e: float, needed: float) -> str:
    """Return that the evidence of safety is enough."""
    return f"{_bound(gate, basis)}, e-value {_number(log_e)} ≥ {needed:,.0f}"


def undecided(gate: MetricGate, basis: Basis, harm_log_e: float, safety_log_e: float, needed: float) -> str:
    """Return how far the evidence is from either."""
    return (
        f"{_bound(gate, basis)}, e-values {_number(harm_log_e)} for more and {_number(safety_log_e)} "
        f"for less; {needed:,.0f} is needed"
    )


def leaning(compared: Compared) -> str:
    """Return that a class keeps the whole from passing."""
    return (
        f"the class leans to harm, e-values {_number(compared.evidences.harm)} for more "
        f"and {_number(compared.evidences.safety)} for less"
    )


def of_installs(share: float, log_e: float, needed: float) -> str:
    """Return that the evidence of too many failed installs is enough."""
    return f"limit {share:.1%}, e-value {_number(log_e)} ≥ {needed:,.0f}"


def shortage(gate: MetricGate) -> str:
    """Return that there are too few samples."""
    if gate.metric is Metric.SHADOW_DISAGREEMENT:
        return f"{gate.minimum_samples:,} are needed"
    return f"each side needs {gate.minimum_samples:,}"


def noised(evidence: Evidence) -> str:
    """Return that windows have noise on their counts, and so are no evidence; nothing if none have."""
    sides = (("canaries", evidence.canary.noised), ("controls", evidence.control.noised))
    told = " and ".join(f"{number:,} of the {side}" for side, number in sides if number)
    return f"; telemetry windows with noise on their counts are no evidence: {told}" if told else ""


def _title(gate: MetricGate) -> str:
    match gate.metric:
        case Metric.SLOW:
            return f"slower than {gate.budget_us:g} µs"
        case Metric.UNSURE:
            return f"confidence below {gate.threshold:g}"
        case Metric.LATENCY:
            return f"latency of {gate.quantile or 0:.4g} of requests"
        case Metric.MEMORY:
            return f"memory at {gate.quantile or 0:.4g} of readings"
        case Metric.CONFIDENCE_DRIFT:
            return "confidence"
        case Metric.INPUT_DRIFT:
            return gate.feature
        case _:
            return gate.metric.value.replace("_", " ")


def _bound(gate: MetricGate, basis: Basis) -> str:
    if gate.metric is Metric.LATENCY:
        return f"limit {gate.budget_us:,.0f} µs" if basis is Basis.LIMIT else f"margin ×{gate.ratio:g}"
    if gate.metric is Metric.MEMORY:
        limit = f"limit {(gate.budget_bytes or 0.0) / MIB:,.1f} MiB"
        return limit if basis is Basis.LIMIT else f"margin ×{gate.ratio:g}"
    if basis is Basis.LIMIT:
        return f"limit {gate.limit:.1%}"
    return f"margin {100 * gate.margin:.1f} points"


def _share(gate: MetricGate, part: Part, other: Part, one: str, many: str) -> str:
    text = f"{_value(gate, part, other)} of {part.tally.total:,}"
    if gate.metric is Metric.SHADOW_DISAGREEMENT:  # of devices that need not be canaries yet
        return text
    return f"{text} on {part.devices:,} {one if part.devices == 1 else many}"


def _value(gate: MetricGate, part: Part, other: Part) -> str:
    tally = part.tally
    if not tally.total:
        return "none"
    match gate.metric:
        case Metric.LATENCY:
            return f"{quantile_us(tally.cells, gate.quantile or 0.0) or 0.0:,.0f} µs"
        case Metric.MEMORY:
            return f"{(quantile_bytes(tally.cells, gate.quantile or 0.0) or 0.0) / MIB:,.1f} MiB"
        case Metric.OUTPUT_DRIFT:
            cell = _most_moved(part, other, _in_cell)
            return f"class {cell} {_in_cell(part, cell):.1%}"
        case Metric.CONFIDENCE_DRIFT | Metric.INPUT_DRIFT:
            cell = _most_moved(part, other, _up_to_cell)
            return f"{_place(gate, cell)} {_up_to_cell(part, cell):.1%}"
        case _:
            return f"{tally.bad / tally.total:.1%}"


def _in_cell(of: Part, cell: int) -> float:
    """Return the share of one cell."""
    return of.tally.cells.get(cell, 0) / max(1, of.tally.total)


def _up_to_cell(of: Part, cell: int) -> float:
    """Return the share up to one cell, it included."""
    return sum(n for c, n in of.tally.cells.items() if c <= cell) / max(1, of.tally.total)


def _most_moved(part: Part, other: Part, share: Callable[[Part, int], float]) -> int:
    """Return the cell whose shares differ most."""
    cells = sorted(part.tally.cells.keys() | other.tally.cells.keys())
    more = {cell: round(abs(share(part, cell) - share(other, cell)), 9) for cell in cells}
    return max(cells, key=lambda cell: (more[cell], cell))


def _place(gate: MetricGate, cell: int) -> str:
    """Return what the values up to a cell are, see `evidence`: the first are those missing."""
    if cell == 0:
        return "missing"
    if gate.metric is Metric.CONFIDENCE_DRIFT and cell <= len(CONFIDENCE_EDGES):
        return f"below {CONFIDENCE_EDGES[cell - 1]:g}"
    return f"below edge {cell} of its reference"


def _number(log_e: float) -> str:
    """Return an e-value in few digits."""
    value = e_value(log_e)
    if value >= _MOST_SHOWN:
        return "over a million"
    return f"{value:,.0f}" if value >= 100.0 else f"{value:.2g}"
