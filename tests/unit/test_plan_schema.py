"""The schema of plans: published as it is generated, and it says of every field what it means."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fleet.rollout.plans.schema import plan_schema

PUBLISHED = Path(__file__).parents[2] / "docs" / "reference" / "plan.schema.json"


def test_the_published_schema_is_the_generated_one() -> None:
    assert json.loads(PUBLISHED.read_text(encoding="utf-8")) == plan_schema()


def _objects(schema: Any) -> list[dict[str, Any]]:
    parts = [schema, *schema["$defs"].values()]
    return [part for part in parts if "properties" in part]


def test_every_field_is_described_and_no_other_is_allowed() -> None:
    found = _objects(plan_schema())
    assert len(found) == 6
    for each in found:
        assert each["additionalProperties"] is False
        for name, schema in each["properties"].items():
            assert schema["description"].endswith("."), name
