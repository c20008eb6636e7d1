"""The Mermaid diagram of the update machine, drawn from its table.

A row about all resting or all updating phases is one edge from that group; a row that stays in its phase is
left to the page's text.
"""

from __future__ import annotations

from agent.life.machine import TABLE, Row
from agent.life.terms import RESTING, UPDATING, Phase

_GROUPS = {"Resting": RESTING, "Updating": UPDATING}


def mermaid() -> str:
    """Return the diagram's text."""
    lines = ["stateDiagram-v2", "    [*] --> Resting"]
    for name, phases in _GROUPS.items():
        lines += [f"    state {name} {{", *(f"        {phase}" for phase in phases), "    }"]
    for row in TABLE:
        if row.target is not None:
            lines += [f"    {source} --> {row.target}: {row.label}" for source in _sources(row)]
    return "\n".join(lines) + "\n"


def _sources(row: Row) -> list[str]:
    """Return the groups that a row is about, and single phases where it is not about a whole group."""
    whole = {name: phases for name, phases in _GROUPS.items() if set(phases) <= set(row.sources)}
    covered: set[Phase] = {phase for phases in whole.values() for phase in phases}
    return [*whole, *(phase.value for phase in row.sources if phase not in covered)]


if __name__ == "__main__":
    print(mermaid(), end="")  # noqa: T201 - this is what running it is for
