"""The dry run: what a rollout would do, worked out before anything moves.

The cohorts are the engine's own: the preview reads them from the rollout that `fleet.rollout.engine.create`
made, so that it cannot differ from what then happens. What it adds are estimates: the times of
`fleet.rollout.durations`, and in bytes::

    broadcast     a stage's variants, each blob once: the broker fans it out
    at most       the broadcast, and every blob of every device's own variants asked for again

Devices that another rollout keeps do not move: they are told as `Obstacle.CLAIMED`, and counted nowhere else.
Of a rollout that cannot begin without such devices nothing is said of gates and classes: there is nothing to
judge.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from fleet.protocol.assignment import VariantPolicy
from fleet.protocol.errors import VariantUnsupported
from fleet.protocol.manifest import File, Manifest
from fleet.protocol.messages import Capabilities
from fleet.rollout.durations import passing_s, stage_times
from fleet.rollout.forecast.forecast import StageForecast, warnings
from fleet.rollout.obstacles import Candidate, Obstacle, Refusal, claimed, obstacles
from fleet.rollout.plans.plan import Plan
from fleet.rollout.state.rollout import Rollout
from fleet.rollout.unseen import unseen
from fleet.rollout.waits import told_waits
from fleet.variants import Offer

MAX_NAMED = 20
"""Most devices that a stage or an obstacle names, unless all are asked for."""


class VariantPreview(msgspec.Struct, frozen=True):
    """What devices of one variant would fetch.

    Attributes:
        variant: Its name, or several where a device measures which is best, joined by ``+``.
        devices: How many devices.
        size_bytes: What one of them fetches at most.
    """

    variant: str
    devices: int
    size_bytes: int


class StagePreview(msgspec.Struct, frozen=True):
    """What one stage would do.

    Attributes:
        name: As in the plan.
        devices: How many it adds.
        strata: How many of them have each value of each attribute, such as ``{"site": {"lyon": 3}}``.
        named: The devices, `MAX_NAMED` at most unless all were asked for.
        broadcast_bytes: See the head of this file.
        most_bytes: Likewise.
        expected_s: See `fleet.rollout.durations`; install time is 0 where none is known. 0 without devices.
        longest_s: Likewise.
    """

    name: str
    devices: int
    strata: dict[str, dict[str, int]]
    named: tuple[str, ...]
    broadcast_bytes: int
    most_bytes: int
    expected_s: float
    longest_s: float


class Preview(msgspec.Struct, frozen=True):
    """What a rollout would do.

    Attributes:
        model: Name of the model.
        version: The version that it would bring.
        devices: How many devices it would reach.
        left_out: How many devices run the version already.
        stages: In order.
        variants: What would be fetched, by variant.
        broadcast_bytes: Sum over the stages.
        most_bytes: Likewise.
        expected_s: Likewise.
        longest_s: Likewise.
        typical_install_s: The median of past installs of the model; None if there was none.
        obstacles: How many devices meet each obstacle.
        refusals: These devices, `MAX_NAMED` of each obstacle unless all were asked for.
        forecast: What is to be expected of each stage that the gate judges.
        warnings: What of it an operator should know first, and which classes early stages leave out.
        waits: What is to be known of waits that are no work, sentences.
        misfit: Why it could not start though it would be created, a sentence: the plan does not fit the
            devices that others leave. Empty if it could.
        refused: Why the rollout would not be created now, a sentence; empty if it would be.
        remedy: What helps against that; empty if it would be.
    """

    model: str
    version: int
    devices: int
    left_out: int
    stages: tuple[StagePreview, ...]
    variants: tuple[VariantPreview, ...]
    broadcast_bytes: int
    most_bytes: int
    expected_s: float
    longest_s: float
    typical_install_s: float | None
    obstacles: dict[Obstacle, int]
    refusals: tuple[Refusal, ...]
    forecast: tuple[StageForecast, ...] = ()
    warnings: tuple[str, ...] = ()
    waits: tuple[str, ...] = ()
    misfit: str = ""
    refused: str = ""
    remedy: str = ""


class _Fetch(msgspec.Struct, frozen=True):
    """What a device would fetch."""

    variant: str
    files: tuple[File, ...] = ()

    @property
    def size_bytes(self) -> int:
        return sum({file.sha256: file.size_bytes for file in self.files}.values())


def preview(
    rollout: Rollout,
    candidates: Mapping[str, Candidate],
    manifest: Manifest,
    *,
    offer: Callable[[str, Capabilities], Offer],
    typical_install_s: float | None,
    forecast: tuple[StageForecast, ...] = (),
    all_named: bool = False,
) -> Preview:
    """Return what a rollout would do.

    Args:
        rollout: As the engine created it; it was not started.
        candidates: Every device of the rollout; others are counted as left out, or as claimed.
        manifest: Of the version.
        offer: Gives the variants that a device is offered; raises `VariantUnsupported`.
        typical_install_s: Of past installs of the model; None if there was none.
        forecast: Of `fleet.rollout.forecast.forecast`.
        all_named: Whether to name every device.
    """
    reached = _reached(rollout, candidates, manifest, offer)
    bound = None if all_named else MAX_NAMED
    stages = _stages(
        rollout.plan, reached, candidates, forecast, install_s=typical_install_s or 0.0, bound=bound
    )
    devices = sum(stage.devices for stage in stages)
    left_for_later = () if reached.others_keep_some else unseen(rollout)
    return Preview(
        model=rollout.model,
        version=rollout.version,
        devices=devices,
        left_out=len(candidates) - len(reached.claimed) - devices,
        stages=stages,
        variants=_variants(reached.fetches.values()),
        broadcast_bytes=sum(stage.broadcast_bytes for stage in stages),
        most_bytes=sum(stage.most_bytes for stage in stages),
        expected_s=sum(stage.expected_s for stage in stages),
        longest_s=sum(stage.longest_s for stage in stages),
        typical_install_s=typical_install_s,
        obstacles=dict(Counter(refusal.obstacle for refusal in reached.refusals)),
        refusals=_bounded(reached.refusals, bound),
        forecast=forecast,
        warnings=tuple(warned.text for warned in (*warnings(rollout.plan, forecast), *left_for_later)),
        waits=told_waits(rollout.plan),
    )


class _Reached(NamedTuple):
    """Whom the rollout would reach.

    Attributes:
        cohorts: The devices that move, by stage.
        fetches: What each of them would fetch; those that can run no variant are missing.
        claimed: Devices that other rollouts keep.
        others_keep_some: Whether some of these are among the rollout's own.
        refusals: Who would not follow, or not at once.
    """

    cohorts: list[list[str]]
    fetches: dict[str, _Fetch]
    claimed: set[str]
    others_keep_some: bool
    refusals: list[Refusal]


def _reached(
    rollout: Rollout,
    candidates: Mapping[str, Candidate],
    manifest: Manifest,
    offer: Callable[[str, Capabilities], Offer],
) -> _Reached:
    claims = {device_id: one.claim for device_id, one in candidates.items() if one.claim is not None}
    refusals = [Refusal(device_id, *claimed(claims[device_id])) for device_id in sorted(claims)]
    cohorts: list[list[str]] = [[] for _ in rollout.plan.stages]
    fetches: dict[str, _Fetch] = {}
    others_keep_some = False
    for part in rollout.deployments:
        if part.device_id in claims:
            others_keep_some = True
            continue
        cohorts[part.stage].append(part.device_id)
        candidate = candidates[part.device_id]
        fetch, found = _fetch(part.device_id, candidate, manifest, rollout.plan, offer)
        if fetch is not None:
            fetches[part.device_id] = fetch
        refusals += [Refusal(part.device_id, obstacle, detail) for obstacle, detail in found]
    return _Reached(cohorts, fetches, set(claims), others_keep_some, refusals)


def _stages(
    plan: Plan,
    reached: _Reached,
    candidates: Mapping[str, Candidate],
    forecast: Iterable[StageForecast],
    *,
    install_s: float,
    bound: int | None,
) -> tuple[StagePreview, ...]:
    passes_s = passing_s(forecast)
    stages: list[StagePreview] = []
    for index, cohort in enumerate(reached.cohorts):
        times = stage_times(plan, index, len(cohort), install_s, passes_after_s=passes_s.get(index, 0.0))
        fetches = [reached.fetches[device_id] for device_id in cohort if device_id in reached.fetches]
        broadcast_bytes, most_bytes = _bytes(fetches)
        stages.append(
            StagePreview(
                name=plan.stages[index].name,
                devices=len(cohort),
                strata=_strata(candidates[device_id].cohorts for device_id in cohort),
                named=tuple(cohort[:bound]),
                broadcast_bytes=broadcast_bytes,
                most_bytes=most_bytes,
                expected_s=times.expected_s if cohort else 0.0,
                longest_s=times.longest_s if cohort else 0.0,
            )
        )
    return tuple(stages)


def _fetch(
    device_id: str,
    candidate: Candidate,
    manifest: Manifest,
    plan: Plan,
    offer: Callable[[str, Capabilities], Offer],
) -> tuple[_Fetch | None, list[tuple[Obstacle, str]]]:
    try:
        offered = offer(device_id, candidate.capabilities)
    except VariantUnsupported as error:
        return None, [(Obstacle.UNSUPPORTED, str(error)), *obstacles(candidate, plan, 0)]
    names = (offered.variant, *offered.alternatives)
    if offered.policy is VariantPolicy.SMALLEST:
        names = names[:1]
    files = tuple(file for name in names for file in manifest.files(manifest.variant(name)))
    fetch = _Fetch("+".join(names), files)
    return fetch, obstacles(candidate, plan, fetch.size_bytes)


def _bytes(fetches: Sequence[_Fetch]) -> tuple[int, int]:
    """Return the bytes of a stage: broadcast, and at most."""
    counts = Counter(fetches)
    broadcast = {file.sha256: file.size_bytes for fetch in counts for file in fetch.files}
    broadcast_bytes = sum(broadcast.values())
    return broadcast_bytes, broadcast_bytes + sum(n * fetch.size_bytes for fetch, n in counts.items())


def _strata(cohorts: Iterable[Mapping[str, str]]) -> dict[str, dict[str, int]]:
    strata: dict[str, Counter[str]] = {}
    for values in cohorts:
        for attribute, value in values.items():
            strata.setdefault(attribute, Counter())[value] += 1
    return {attribute: dict(sorted(counts.items())) for attribute, counts in sorted(strata.items())}


def _variants(fetches: Iterable[_Fetch]) -> tuple[VariantPreview, ...]:
    counts = Counter(fetches)
    return tuple(
        VariantPreview(fetch.variant, number, fetch.size_bytes) for fetch, number in counts.most_common()
    )


def _bounded(refusals: Sequence[Refusal], bound: int | None) -> tuple[Refusal, ...]:
    named: Counter[Obstacle] = Counter()
    kept: list[Refusal] = []
    for refusal in refusals:
        named[refusal.obstacle] += 1
        if bound is None or named[refusal.obstacle] <= bound:
            kept.append(refusal)
    return tuple(kept)
