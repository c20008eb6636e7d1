"""Which versions are proven, and where devices go back to: by what rollouts came to."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet.protocol.deployment import DeploymentState
from fleet.rollout.events import Abort, Promote, Start, Supersede
from fleet.rollout.gates.gate import Outcome, Verdict
from fleet.rollout.proven import Standing, doubt, standings, way_back
from fleet.rollout.state.rollout import Kind, Rollout, Status
from tests.support.rollouts import Campaign, plan

ENDS = ("succeeded", "taken back", "kept", "superseded", "under way", "never begun")


def rollout(number: int, version: int, end: str, kind: Kind = Kind.UPDATE) -> Rollout:
    """Return a rollout that came to an end."""
    return msgspec.structs.replace(ended(end, kind), number=number, version=version)


@cache
def ended(end: str, kind: Kind) -> Rollout:
    """Return a rollout of two devices that the engine brought to an end."""
    update = kind is Kind.UPDATE
    wanted = plan("all") if update else plan("all", metrics=())
    campaign = Campaign(wanted, kind=kind, devices={"cam-1": 1, "cam-2": 1}, started=False)
    if end != "never begun":
        campaign.do(Start("ann"))
    if end in {"succeeded", "taken back", "kept"}:
        for part in campaign.cohort(0):
            campaign.report(part, DeploymentState.SUCCEEDED)
    if end == "succeeded" and update:
        campaign.do(Promote("ann", "enough"))
    if end in {"taken back", "kept"}:
        campaign.do(Abort("ann", "", roll_back=end == "taken back"))
        campaign.restore_all()
    if end == "superseded":
        campaign.do(Supersede("ann", ""))
    return campaign.rollout


def known(*rollouts: Rollout) -> dict[int, Standing]:
    """Return what rollouts, oldest first, say."""
    return standings(reversed(rollouts))


@pytest.mark.parametrize(
    ("end", "status", "is_proven", "is_rejected"),
    [
        ("succeeded", Status.SUCCEEDED, True, False),
        ("taken back", Status.ROLLED_BACK, False, True),
        ("kept", Status.ABORTED, False, False),
        ("superseded", Status.ABORTED, False, False),
        ("under way", Status.RUNNING, False, False),
        ("never begun", Status.CREATED, False, False),
    ],
)
def test_what_a_rollout_came_to_tells(end: str, status: Status, is_proven: bool, is_rejected: bool) -> None:
    one = rollout(1, 5, end)
    assert one.status is status
    standing = known(one).get(5, Standing())
    assert (standing.is_proven, bool(standing.rejected)) == (is_proven, is_rejected)
    assert standing.brought_by == ((1,) if end != "never begun" else ())


def test_the_last_rollout_that_began_decides_and_earlier_successes_stay_proof() -> None:
    assert not known(rollout(1, 5, "succeeded"), rollout(2, 5, "taken back"))[5].is_proven
    assert known(rollout(1, 5, "taken back"), rollout(2, 5, "succeeded"))[5].is_proven
    assert known(rollout(1, 5, "succeeded"), rollout(2, 5, "kept"))[5].is_proven
    assert known(rollout(1, 5, "succeeded"), rollout(2, 5, "never begun"))[5].is_proven
    for without_a_word in ("never begun", "under way", "kept", "superseded"):
        rejected = known(rollout(1, 5, "taken back"), rollout(2, 5, without_a_word))[5].rejected
        assert rejected == "its last rollout, 1, was ROLLED_BACK"


def test_who_is_told_fail_and_keeps_the_version_does_not_prove_it() -> None:
    said = Verdict(Outcome.FAIL, 0, "FAIL: too many errors.", ())
    kept = msgspec.structs.replace(rollout(1, 5, "kept"), verdict=said)
    assert known(kept)[5].rejected == "the gate of its last rollout, 1, said FAIL"


def test_a_rollback_by_command_rejects_what_it_leaves_until_that_is_brought_again() -> None:
    back = rollout(3, 4, "under way", Kind.ROLLBACK)
    found = known(rollout(1, 4, "succeeded"), rollout(2, 5, "succeeded"), back)
    assert (found[4].is_proven, found[4].brought_by) == (True, (3, 1))
    assert found[5].rejected == "rollback 3 led back to version 4 since"
    again = known(rollout(1, 5, "succeeded"), back, rollout(4, 5, "succeeded"))
    assert again[5].is_proven
    assert not again[4].is_proven


HISTORIES = st.lists(
    st.tuples(st.integers(1, 6), st.sampled_from(ENDS), st.sampled_from([Kind.UPDATE] * 3 + [Kind.ROLLBACK])),
    max_size=8,
)


@given(
    history=HISTORIES,
    running=st.dictionaries(st.sampled_from(["a", "b", "c"]), st.integers(1, 7)),
    released=st.sets(st.integers(1, 6)),
    ran=st.dictionaries(st.integers(1, 8), st.sets(st.sampled_from(["a", "b", "c"]))),
)
def test_nobody_is_led_to_what_is_rejected_unreleased_or_unproven(
    history: list[tuple[int, str, Kind]],
    running: dict[str, int],
    released: set[int],
    ran: dict[int, set[str]],
) -> None:
    found = known(*(rollout(number, *each) for number, each in enumerate(history, start=1)))

    def who(rollouts: Collection[int], devices: Collection[str]) -> set[str]:
        return {d for d in devices if any(d in ran.get(number, ()) for number in rollouts)}

    candidates = [v for v in sorted(released, reverse=True) if v < max(running.values(), default=0)]
    version = way_back(running, candidates, found, who)
    good = [v for v in candidates if v in found and found[v].is_proven]
    if version is None:
        assert not good
        return
    moving = [device for device, runs in running.items() if runs > version]
    standing = found[version]
    assert version in candidates
    assert moving
    assert not standing.rejected
    assert standing.is_proven or len(who(standing.brought_by, moving)) == len(moving)
    assert doubt(version, moving, found, who) == ""
