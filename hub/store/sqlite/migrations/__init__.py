"""The numbered migrations, a file for each. One that was released is never changed; a new one is appended.

Structured values that are never searched are JSON text or MessagePack blobs in one column.
"""

from __future__ import annotations

from hub.store.sqlite.migrations import (
    m001_initial,
    m002_versions_of_datasets_elsewhere,
    m003_wishes_and_diagnostics,
    m004_choice_of_variants,
    m005_shadows,
    m006_packed_records,
    m007_telemetry,
    m008_states,
    m009_tags,
    m010_alerts,
    m011_concepts,
    m012_samples,
    m013_rollout_devices,
    m014_order_windows,
    m015_rollout_claims,
    m016_revocation,
    m017_noised_sums,
    m018_cohort_values,
    m019_ways_back_counted,
    m020_evidence_apart,
    m021_device_changes,
)
from hub.store.sqlite.migrations.registry import migrations, table

__all__ = [
    "m001_initial",
    "m002_versions_of_datasets_elsewhere",
    "m003_wishes_and_diagnostics",
    "m004_choice_of_variants",
    "m005_shadows",
    "m006_packed_records",
    "m007_telemetry",
    "m008_states",
    "m009_tags",
    "m010_alerts",
    "m011_concepts",
    "m012_samples",
    "m013_rollout_devices",
    "m014_order_windows",
    "m015_rollout_claims",
    "m016_revocation",
    "m017_noised_sums",
    "m018_cohort_values",
    "m019_ways_back_counted",
    "m020_evidence_apart",
    "m021_device_changes",
    "migrations",
    "table",
]
