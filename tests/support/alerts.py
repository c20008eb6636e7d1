"""What the tests of alerts share: findings, alerts and silences that are valid, and short to write."""

from __future__ import annotations

from collections.abc import Collection

from fleet.alerts.alert import Alert, Finding, Severity, State, finding
from fleet.alerts.matching import Match, Silence


def found(
    *devices: str,
    model: str = "digits",
    feature: str = "input.mean",
    severity: Severity = Severity.WARNING,
    hold_s: float = 0.0,
) -> Finding:
    """Return a finding of drift."""
    return finding(
        "drift",
        model,
        feature,
        severity=severity,
        title=f"drift of {model} in {feature}",
        sentence=f"{len(devices)} of 40 devices drift in {feature} of {model} version 4.",
        evidence=["most of all cam-03, input.mean: 71.0% of 300 values below 0.2, in the reference 4.0%"],
        devices=devices or ("cam-03",),
        hold_s=hold_s,
        command="muster device show cam-03",
        inspect="muster fleet alarms --model digits",
        path=f"/api/v1/drift?model={model}",
        model=model,
        version=4,
    )


def firing(*devices: str, model: str = "digits", started_at_s: float = 1_700_000_000.0) -> Alert:
    """Return an alert that fires."""
    matter = found(*devices, model=model).matter
    return Alert(matter, State.FIRING, started_at_s, fired_at_s=started_at_s)


def silence(
    number: int = 1,
    *,
    kinds: Collection[str] = (),
    device: str | None = None,
    created_at_s: float = 0.0,
    ends_at_s: float = 100.0,
) -> Silence:
    """Return a silence."""
    return Silence(number, Match(kinds=tuple(kinds)), device, created_at_s, ends_at_s, "ana", "a test")
