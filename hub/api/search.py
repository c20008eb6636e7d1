"""Searching devices for a route: what the target asks of health and drift is brought up to date first."""

from __future__ import annotations

from hub.api.services import HubServices
from hub.query.devices import Search, Searches


def search_of(hub: HubServices, where: str | None) -> Search:
    """Return the search for the devices that a target means.

    Args:
        hub: Its services.
        where: The target; None for every device.

    Raises:
        InvalidTarget: It cannot be understood, or asks for an attribute or model that nobody has.
    """
    return Searches(hub.store, hub.states.before_answer)(where)
