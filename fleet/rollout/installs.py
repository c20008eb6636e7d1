"""Install outcomes, judged: more failures than the plan allows, or proof that there will be more.

There is no control: who was not sent the version installs nothing. So failures are held against
``maximum_failed_share`` of the stage's whole cohort. Once it is exceeded no later success can mend it; in a
stage of 100,000 devices that would take thousands of failures. While orders still go out evidence that it
will be exceeded is enough: an e-value (`fleet.rollout.gates.eprocess`) of the devices that were sent the
version, in the order in which they were, against the share.

Who was sent it and has not ended counts as a success. Failures may well be quicker than successes, and the
deployments that have ended would not be a fair sample; counted so, the evidence is never more than that of
the same devices when all have ended, which keeps it valid at every look.
"""

from __future__ import annotations

import math

import numpy as np

from fleet.rollout.gates import sentences
from fleet.rollout.gates.eprocess import Counts, against_limit
from fleet.rollout.gates.gate import parts
from fleet.rollout.plans.plan import Plan
from fleet.rollout.state.columns import WAITING, Mask, Rows
from fleet.rollout.state.draft import Draft
from fleet.rollout.state.masks import waits


def installs_fail(plan: Plan, failed: int, ordered: int, size: int) -> str | None:
    """Return why a stage's installs fail the gate; None if they do not.

    Args:
        plan: Of the rollout.
        failed: Deployments of the stage that ended without the device running the version.
        ordered: Devices of the stage that were sent the version.
        size: Devices of the stage.
    """
    share = plan.gate.maximum_failed_share
    if failed > share * size:
        return (
            f"FAIL: {failed:,} of {size:,} deployments of the stage failed ({failed / size:.1%}); "
            f"{share:.1%} may"
        )
    if failed <= share * ordered:
        return None
    needed = parts(plan) / plan.gate.error_budget
    found = against_limit([Counts(failed, ordered)], share)[0].harm
    if found < math.log(needed):
        return None
    return (
        f"FAIL: {failed:,} of the {ordered:,} devices of the stage that were sent the version failed; "
        f"{sentences.of_installs(share, found, needed)}"
    )


def stage_fails(draft: Draft, number: int) -> str | None:
    """Return why the installs of a stage that has begun fail the gate; None if they do not."""
    stage, plan = draft.rollout.stages[number], draft.rollout.plan
    waiting = draft.editing.tally[number][WAITING]
    why = installs_fail(plan, stage.failed, stage.size - waiting, stage.size)
    if why is None or waiting == 0 or plan.retries.attempts == 0:
        return why

    def is_tried_again(rows: Rows) -> Mask:
        return np.asarray(waits(rows) & (rows["tries"] > 0) & (rows["stage"] == number))

    again = len(draft.editing.where(is_tried_again))  # they were sent it, and may yet succeed
    return installs_fail(plan, stage.failed, stage.size - waiting + again, stage.size)
