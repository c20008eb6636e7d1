"""How the rest of the hub asks for a version's bundle: by a function, so that it need not know the registry.

`hub.registry.models.Models` has both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from fleet.protocol.manifest import Manifest

Known: TypeAlias = Callable[[str, int], tuple[str, Manifest]]
"""Takes a model's name and a version that has a bundle, a revoked one too; returns its digest and manifest.

Raises `NotFound`.
"""

Released: TypeAlias = Callable[[str, int], tuple[str, Manifest]]
"""Likewise for a version that may be rolled out. Raises `NotFound`, or `Conflict` for one that may not be."""
