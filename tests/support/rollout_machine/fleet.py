"""The fleet and the versions that the machine plays with."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import msgspec

from hub.store.rows import Action
from tests.support.agent_bundles import build
from tests.support.rollout_world import Release, World
from tests.support.stores import CAPABILITIES, new_device

MODELS = ("digits", "faces")
VERSIONS = (1, 2, 3)
DEVICES = [f"cam-{number}" for number in range(6)]
MOST_DEVICES = 9
UNABLE = "cam-5"
"""Has no runtime that runs any variant: what it is ordered is refused before it is sent."""
OLD_AGENT = "cam-4"
"""Keeps to no maintenance window: what it is ordered in one is refused before it is sent."""


@cache
def releases() -> dict[tuple[str, int], Release]:
    """Return what may be rolled out."""
    built = {(model, version): build(version, model=model) for model in MODELS for version in VERSIONS}
    return {key: (bundle.sha256, bundle.manifest) for key, bundle in built.items()}


def make_template(folder: Path) -> Path:
    """Make a store with devices of two sites, one of which has a tag, and return its file.

    Args:
        folder: Empty.
    """
    (folder / "none.db").touch()
    world = World(folder, folder / "none.db", releases())
    for number, device_id in enumerate(DEVICES):
        enrol(world, device_id, "oslo" if number % 3 == 2 else "lyon")
    tag(world, DEVICES[0], on=True)
    world.close()
    return folder / "0.db"


def enrol(world: World, device_id: str, site: str) -> None:
    """Let a device join the fleet."""
    capabilities = msgspec.structs.replace(CAPABILITIES, keeps_windows=device_id != OLD_AGENT)
    if device_id == UNABLE:
        capabilities = msgspec.structs.replace(capabilities, runtimes={})
    world.store.add_enrolment_token(device_id, created_at_s=0.0, expires_at_s=1e12)
    device = msgspec.structs.replace(
        new_device(device_id), attributes={"site": site}, capabilities=capabilities
    )
    world.store.enrol(device, token_sha256=device_id, now_s=world.now_s)


def tag(world: World, device_id: str, *, on: bool) -> None:
    """Give a device the tag that a target asks for, or take it away."""
    names = (["lab"], []) if on else ([], ["lab"])
    action = Action(world.now_s, "ann", "Tagged.")
    world.store.tag(device_id, add=names[0], remove=names[1], action=action)
