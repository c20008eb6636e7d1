"""What people are told of a forecast, each in one sentence.

Such as: "40 devices cannot prove a margin of 0.5 points of inference errors within 2 h, because devices
differ (0.1% to 3.0%, correlation 0.025): about 200 are needed."
"""

from __future__ import annotations

from fleet.rollout.forecast.habits import Habits
from fleet.rollout.gates.comparison import Basis
from fleet.rollout.gates.dispersion import LEAST_CORRELATION
from fleet.rollout.gates.sentences import MIB
from fleet.rollout.plans.plan import Metric, MetricGate
from fleet.sentences import devices, rough_duration

_QUANTILES = (Metric.LATENCY, Metric.MEMORY)


def title(gate: MetricGate) -> str:
    """Return what a metric is called."""
    return gate.metric.value.replace("_", " ") + (f" of {gate.feature}" if gate.feature else "")


def unknown(gate: MetricGate) -> str:
    """Return that nothing is known of a metric."""
    if gate.metric is Metric.SHADOW_DISAGREEMENT:
        return "what the shadow will find cannot be forecast."
    return (
        f"nothing can be forecast of {title(gate)}: fewer than two devices of a class, "
        "of the versions that run now, have told of it in the last day."
    )


def too_silent(heard_share: float, needed: float) -> str:
    """Return that most devices say nothing."""
    return (
        f"only {heard_share:.0%} of the devices told anything in the last day, "
        f"and a PASS needs telemetry of {needed:.0%} of those that a stage adds."
    )


def likely(gate: MetricGate, passes_after_s: float | None, harm: float | None, bake_s: float) -> str:
    """Return when a metric passes, and what harm would be found.

    Args:
        gate: Of the metric.
        passes_after_s: After how long a bake; None if unknown.
        harm: The least that would be found; None if none would.
        bake_s: The longest bake.
    """
    when = "" if passes_after_s is None else f" after about {rough_duration(passes_after_s)}"
    return f"a harmless version passes {title(gate)}{when}; {_found(gate, harm, bake_s)}."


def short_of(
    gate: MetricGate,
    basis: Basis,
    cause: str,
    *,
    canaries: int,
    bake_s: float,
    is_open: bool,
    devices_needed: int | None,
    later_s: float | None,
) -> str:
    """Return that, and why, a harmless version may not pass.

    Args:
        gate: Of the metric.
        basis: What the canaries are compared with.
        cause: Why, one of those below.
        canaries: How many there are.
        bake_s: The longest bake.
        is_open: Whether it may pass all the same.
        devices_needed: How many canaries would be enough; None if unknown or if no number is.
        later_s: After how long a bake it passes; None if it does not.
    """
    can, bake = "may not" if is_open else "cannot", rough_duration(bake_s)
    text = f"{devices(canaries)} {can} prove {_bound(gate, basis)} within {bake}"
    ways = []
    if devices_needed is not None:
        ways.append(f"about {devices_needed:,} are needed")
    if later_s is not None:
        ways.append(f"{'or ' if ways else ''}about {rough_duration(later_s)}")
    if not ways and basis is Basis.CONCURRENT:
        ways.append("no stage of this fleet could, a wider margin might")
    return f"{text}, because {cause}" + (f": {', '.join(ways)}." if ways else ".")


def devices_differ(habits: Habits) -> str:
    """Return that a device's many answers are worth few, as a cause."""
    rho = habits.correlation or 0.0
    if rho <= LEAST_CORRELATION:
        return f"the answers of one device count for {1.0 / LEAST_CORRELATION:,.0f} at most"
    shares = "" if habits.low is None else f"{habits.low:.1%} to {habits.high:.1%}, "
    return f"devices differ ({shares}correlation {rho:.2g})"


def few_readings() -> str:
    """Return that readings of memory are worth one a device, as a cause."""
    return "all that one device tells of its memory counts once"


def few_answers(habits: Habits) -> str:
    """Return that devices say little, as a cause."""
    per_minute = 60.0 * habits.whole.per_s
    return f"a device tells of {per_minute:,.{0 if per_minute >= 10.0 else 1}f} answers a minute"


def beyond(gate: MetricGate, habits: Habits) -> str:
    """Return that the versions that run now are beyond the limit, as a cause."""
    now = "" if habits.whole.cells else f": {habits.whole.mean:.1%}"
    return f"{title(gate)} of the versions that run now are at the limit or beyond it{now}"


def _found(gate: MetricGate, harm: float | None, bake_s: float) -> str:
    if harm is None:
        return f"no harm would be found within {rough_duration(bake_s)}"
    size = f"×{harm:.2g}" if gate.metric in _QUANTILES else f"{100 * harm:.1f} points"
    return f"harm of {size} or more would be found within {rough_duration(bake_s)}"


def _bound(gate: MetricGate, basis: Basis) -> str:
    if basis is Basis.LIMIT and gate.metric is Metric.LATENCY:
        return f"a limit of {gate.budget_us:,.0f} µs of {title(gate)}"
    if basis is Basis.LIMIT and gate.metric is Metric.MEMORY:
        return f"a limit of {(gate.budget_bytes or 0.0) / MIB:,.1f} MiB of {title(gate)}"
    if gate.metric in _QUANTILES:
        return f"a margin of ×{gate.ratio:g} of {title(gate)}"
    if basis is Basis.LIMIT:
        return f"a limit of {gate.limit:.1%} of {title(gate)}"
    return f"a margin of {100 * gate.margin:.1f} points of {title(gate)}"
