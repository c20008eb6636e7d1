"""Windows with noise on their counts are no evidence, and a verdict that lacks evidence says they came."""

from __future__ import annotations

import hashlib

from fleet.privacy.windows import noised
from fleet.protocol.noised import NoisedWindow
from fleet.rollout.events import EvidenceObserved
from fleet.rollout.state.rollout import Status
from tests.support.rollouts import NEW, OLD, Campaign, window


def _noised(manifest_sha256: str, started_s: float) -> NoisedWindow:
    return noised(window(manifest_sha256, started_s), 1.0, lambda size: hashlib.shake_256(b"7").digest(size))


def test_a_gate_without_other_evidence_is_inconclusive_and_says_why() -> None:
    campaign = Campaign()
    campaign.succeed(0)
    canaries = [(part.device_id, _noised(NEW, campaign.now_s)) for part in campaign.cohort(0)]
    controls = [(part.device_id, _noised(OLD, campaign.now_s)) for part in campaign.cohort(1)]
    campaign.do(EvidenceObserved(noised=(*canaries, *controls, ("stranger", controls[0][1]))))
    evidence = campaign.rollout.stages[0].evidence
    assert (evidence.canary.windows, evidence.control.windows) == (0, 0)
    assert (evidence.canary.noised, evidence.control.noised) == (len(canaries), len(controls))
    campaign.wait(7 * 86400.0)
    assert campaign.status() is Status.PAUSED
    verdict = campaign.verdict()
    told = f"no evidence: {len(canaries):,} of the canaries and {len(controls):,} of the controls"
    assert verdict.sentence.startswith("INCONCLUSIVE: ")
    assert verdict.sentence.endswith(told)
