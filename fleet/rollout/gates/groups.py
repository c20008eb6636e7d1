"""Groups of devices, any one of which may lie: a verdict stands whichever of them is left out.

A device counts what it sees itself. One that is compromised can claim what it likes, in as many windows as
it likes, and a single window of 100,000 answers was enough to be the whole of a stage of forty canaries.
How much the others differ says nothing of it, and no bound on what one device may claim keeps a difference
that is near the margin on its side of it.

So the devices are `GROUPS` by their places in the rollout's order, which is drawn by lot, and evidence is
kept of each group as well. With E the e-value that the verdict rests on, and E_g the same e-value of
everything but what group g said,

    least over g of E_g    is at most    E_l,  l the group of the device that lies,

and E_l rests on honest devices alone: by Ville's inequality it ever reaches what is needed with a
probability of its part of the error budget at most (`eprocess`). The same holds of the mean share of the
others, of their correlation (`dispersion`) and of their classes, for all of it is worked out anew without
the group. Nothing is assumed of what a device claims, nor of how much, and devices that lie together are one
if they are of one group.

It costs an eighth of the evidence, so harm and safety are found about so much later. Nobody can be left out
of a few, so of a side of fewer than `LEAST_DEVICES` devices none is: there, one device can be the verdict.
A device that lies can still keep a gate from deciding: INCONCLUSIVE, which pauses and never promotes.
"""

from __future__ import annotations

GROUPS = 8
LEAST_DEVICES = 10
"""Of a side of the comparison that is to have fewer nobody is left out."""


def group_of(place: int) -> int:
    """Return the group of the device at a place of the rollout's order; neighbours are of different ones."""
    return place % GROUPS
