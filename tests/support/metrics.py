"""What is said of metrics: on the hub's page, and in the reference."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

REFERENCE = Path(__file__).parents[2] / "docs/reference/metrics.md"


class Described(NamedTuple):
    """A metric as it is described."""

    kind: str
    labels: frozenset[str]


def in_reference() -> dict[str, Described]:
    """Return the metrics of ``docs/reference/metrics.md`` by name."""
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|([^|]*)\|", REFERENCE.read_text(), re.MULTILINE)
    return {name: Described(kind, frozenset(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}


def on_page(text: str) -> dict[str, Described]:
    """Return the metrics of a page in Prometheus' text format; labels are those of the series there are."""
    found: dict[str, Described] = {}
    for family in text_string_to_metric_families(text):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        found[name] = Described(family.type, frozenset(labels))
    return found
