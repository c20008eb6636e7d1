"""What is remembered of a simulated rollout while it runs, and what it came to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from fleet.rollout.durations import stage_times
from fleet.rollout.gates.gate import Outcome as GateOutcome
from fleet.rollout.installs import stage_fails
from fleet.rollout.plans.plan import Plan
from fleet.rollout.state.columns import SUCCEEDED
from fleet.rollout.state.deployments import scan
from fleet.rollout.state.draft import Draft
from fleet.rollout.state.masks import is_not_back
from fleet.rollout.state.rollout import PAUSED_BY, CauseCode, Happening, HistoryEntry, Rollout, Status
from hub.simulation.devices import Bools
from hub.simulation.installs import Installs
from hub.simulation.outcome import Judgement, Outcome, StageOutcome, judged
from hub.simulation.scenario import START_S, Scenario
from hub.simulation.telemetry import Telemetry

_BY_GATE = frozenset({CauseCode.GATE_FAILED.value, CauseCode.INSTALLS_FAILED.value})
_NOT_ENDED = frozenset({Status.RUNNING, Status.PAUSED, Status.SUCCEEDED})
"""Of what people did, they ended none of these: they let it go on."""


class Exposed(NamedTuple):
    """How many devices ran the version until some time, and how many of them it did harm to."""

    got_it: int
    harmed: int


class Account:
    """The account of one rollout: its decisions, and how many devices ran the version when it was stopped.

    Args:
        plan: Of the rollout.
        scenario: The fleet, and what happens.
        installs: Which devices run the version.
        telemetry: Which of them it does harm to.
        reached: Which devices the plan means.
    """

    def __init__(
        self, plan: Plan, scenario: Scenario, installs: Installs, telemetry: Telemetry, reached: Bools
    ) -> None:
        self._plan, self._scenario = plan, scenario
        self._ought_to_stop = scenario.ought_to_stop and (
            scenario.is_harmful is not None or bool((telemetry.is_harmed & reached).any())
        )
        self._installs, self._telemetry = installs, telemetry
        self._history: list[HistoryEntry] = []
        self._stopped_s: float | None = None
        self._before_stop: Exposed | None = None
        self._gate_failed = False
        self._waits_s: float | None = None

    def note(self, before: Rollout, after: Rollout, now_s: float) -> None:
        """Remember decisions, and what had happened when progress was stopped."""
        new = min(after.decisions - before.decisions, len(after.history))
        for entry in after.history[len(after.history) - new :]:
            self._history.append(HistoryEntry(entry.at_s - START_S, entry.kind, entry.text))
        is_stopped = after.status is Status.ROLLING_BACK or (
            after.status is Status.PAUSED and not after.pause_reason.startswith(PAUSED_BY)
        )
        if is_stopped and self._stopped_s is None:
            self._stopped_s, self._before_stop = now_s, self._exposed(now_s)
        if not waits_for_people(after):
            self._waits_s = None
        elif self._waits_s is None or before.status is not after.status:
            self._waits_s = now_s
        if after.cause is not None and after.cause.code in _BY_GATE:
            self._gate_failed = True
        if after.status is Status.PAUSED and is_stopped and not self._gate_failed:
            self._gate_failed = _is_failed(after, now_s)

    def _exposed(self, now_s: float) -> Exposed:
        installs = self._installs
        ran = (installs.runs_from_s <= now_s) & (installs.runs_from_s < installs.runs_until_s)
        return Exposed(int(ran.sum()), int((ran & self._telemetry.is_harmed).sum()))

    def outcome(
        self,
        rollout: Rollout,
        now_s: float,
        *,
        seed: int,
        refused: Sequence[str],
        counted: Mapping[str, int],
    ) -> Outcome:
        """Return what it came to.

        Args:
            rollout: As it ended.
            now_s: Simulated time.
            seed: Of the simulation.
            refused: Deeds of operators that were refused, each a sentence.
            counted: Number of orders, reports, windows and steps.
        """
        ended_s = now_s if self._waits_s is None else self._waits_s
        if rollout.ended_s is not None:
            ended_s = rollout.ended_s - START_S
        exposed = self._exposed(now_s)
        before_stop = exposed if self._before_stop is None else self._before_stop
        counts = {state.value: number for state, number in rollout.counts.items()}
        unaccounted = sum(n for state, n in rollout.counts.items() if not state.is_terminal)
        return Outcome(
            seed=seed,
            judgement=self._judgement(rollout),
            ought_to_stop=self._ought_to_stop,
            status=rollout.status,
            reason=rollout.cause.detail if rollout.cause is not None else rollout.pause_reason,
            duration_s=ended_s,
            devices=len(rollout.deployments),
            counts=counts,
            not_back=len(scan(rollout.deployments.pages, is_not_back)),
            unaccounted=unaccounted if rollout.status.is_final else 0,
            stages=tuple(self._stage(rollout, place, ended_s) for place in range(len(rollout.stages))),
            got_it=exposed.got_it,
            harmed=exposed.harmed,
            stopped_s=self._stopped_s,
            got_it_before_stop=before_stop.got_it,
            harmed_before_stop=before_stop.harmed,
            received_bytes=self._installs.received_bytes,
            history=tuple(self._history),
            refused=tuple(refused),
            **counted,
        )

    def _judgement(self, rollout: Rollout) -> Judgement:
        promoted = any(entry.kind is Happening.OVERRIDDEN for entry in self._history)
        aborted = rollout.cause is not None and rollout.cause.code == CauseCode.ABORTED.value
        return judged(
            rollout.status,
            ought_to_stop=self._ought_to_stop,
            gate_failed=self._gate_failed,
            by_people=(promoted or aborted) and rollout.status not in _NOT_ENDED,
        )

    def _stage(self, rollout: Rollout, place: int, ended_s: float) -> StageOutcome:
        stage = rollout.stages[place]
        end_s = START_S + ended_s if stage.ended_s is None else stage.ended_s
        version = self._scenario.version
        install_s = version.size_bytes / self._scenario.fleet.links.bytes_per_s
        install_s += version.install_s + version.trial_s
        return StageOutcome(
            name=self._plan.stages[place].name,
            devices=stage.size,
            succeeded=rollout.tally[place][1 + SUCCEEDED],
            failed=stage.failed,
            took_s=end_s - stage.started_s,
            expected_s=stage_times(self._plan, place, stage.size, install_s).expected_s,
            promoted=stage.overridden,
        )


def _is_failed(rollout: Rollout, now_s: float) -> bool:
    """Whether gate or installs say FAIL of a rollout."""
    if rollout.verdict is not None and rollout.verdict.outcome is GateOutcome.FAIL:
        return True
    draft = Draft(rollout, now_s)
    return any(stage_fails(draft, number) for number in range(len(rollout.stages)))


def waits_for_people(rollout: Rollout) -> bool:
    """Whether a rollout waits for a person."""
    return rollout.status is Status.PAUSED or rollout.awaits_since_s is not None
