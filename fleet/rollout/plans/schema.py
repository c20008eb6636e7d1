"""The JSON Schema of plans, made from the types: editors complete and check plans by it.

A field is described by its line in the docstring of its type, so that one place says what it means. What only
fields together can be wrong about no schema can say: `fleet.rollout.plans.checks` does.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

import msgspec

from fleet.protocol.maintenance import Maintenance
from fleet.rollout.plans.plan import Gate, MetricGate, Plan, Retries, Stage

ID = "https://muster.invalid/schemas/plan.json"
_TYPES: tuple[type[msgspec.Struct], ...] = (Plan, Stage, Gate, MetricGate, Retries, Maintenance)
_ENTRY = re.compile(r"^    (\w+?)_?: (.*(?:\n        .*)*)", re.MULTILINE)


def plan_schema() -> dict[str, Any]:
    """Return the schema, JSON Schema 2020-12."""
    _, components = msgspec.json.schema_components([Plan], ref_template="#/$defs/{name}")
    for kind in _TYPES:
        described, properties = _attributes(kind), components[kind.__name__]["properties"]
        for name, schema in properties.items():
            properties[name] = {"description": described[name], **schema}
    for schema in components.values():
        about, _, _ = inspect.cleandoc(schema.get("description", "")).partition("Attributes:")
        schema["description"] = " ".join(about.split())
    plan = components.pop("Plan")
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": ID,
        **plan,
        "title": "A plan of a rollout",
        "$defs": dict(sorted(components.items())),
    }
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(schema))  # lists where types have tuples
    return plain


def _attributes(kind: type[msgspec.Struct]) -> dict[str, str]:
    """Return what a type's docstring says of each attribute, on one line."""
    _, _, section = inspect.cleandoc(kind.__doc__ or "").partition("Attributes:\n")
    return {name: " ".join(text.split()) for name, text in _ENTRY.findall(section)}
