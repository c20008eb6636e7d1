"""What a rollout's devices reported of its version in the shadow of their active one."""

from __future__ import annotations

from fleet.protocol.records import ShadowReport
from fleet.protocol.shadow import ShadowSums, sum_shadows
from fleet.rollout.state.rollout import Rollout
from hub.store.protocols import ShadowStore


def rollout_shadow(store: ShadowStore, rollout: Rollout) -> ShadowSums:
    """Return what was reported under the deployments of a rollout, added up.

    Args:
        store: Knows the reports.
        rollout: The rollout.
    """
    reports: dict[str, list[ShadowReport]] = {}
    for row in store.shadows(rollout.model, rollout.version):
        report = row.report
        part = rollout.deployments.of_device(row.device_id)
        is_ours = part is not None and part.attempt.deployment_id == report.deployment_id
        if is_ours and report.manifest_sha256 == rollout.manifest_sha256:
            reports.setdefault(row.device_id, []).append(report)
    return sum_shadows(reports)
