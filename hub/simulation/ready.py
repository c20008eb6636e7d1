"""Scenarios that are at hand by name."""

from __future__ import annotations

from hub.simulation.scenario import (
    Absence,
    Action,
    At,
    Clocks,
    Deed,
    Failure,
    Fleet,
    Harm,
    Joining,
    Links,
    Offline,
    Outcome,
    Pattern,
    Reports,
    Scenario,
    Version,
)

_TRANSPORT = "broker_unavailable"

READY: dict[str, Scenario] = {
    "harmless": Scenario(about="A good version on a calm fleet."),
    "failing-installs": Scenario(
        about="One install in five is rolled back by its device.",
        is_harmful=True,
        version=Version(failures=(Failure(share=0.2),)),
    ),
    "errors": Scenario(
        about="The version fails three points more of all requests, everywhere.", harm=(Harm(errors=0.03),)
    ),
    "hidden-harm": Scenario(
        about="The version fails ten points more of all requests on one class of hardware, a tenth of all.",
        harm=(Harm(where='hardware == "jetson"', errors=0.1),),
    ),
    "slow": Scenario(about="The version takes twice as long.", harm=(Harm(latency=2.0),)),
    "offline": Scenario(
        about="Devices that are away: some for good, many for most of the day.",
        fleet=Fleet(offline=Offline(share=0.01), days=Pattern(share=0.4, up_share=0.35)),
    ),
    "slow-links": Scenario(
        about="Downloads take from seconds to hours.",
        fleet=Fleet(links=Links(bytes_per_s=20_000.0, spread=1.2)),
    ),
    "flapping": Scenario(
        about="Links come and go, and one download in twenty is given up.",
        fleet=Fleet(flapping=Pattern(share=0.3, period_s=600.0, up_share=0.5)),
        version=Version(
            failures=(Failure(share=0.05, at=At.DOWNLOAD, outcome=Outcome.FAILED, code=_TRANSPORT),)
        ),
    ),
    "clock-skew": Scenario(
        about="The clocks of a third of the devices are wrong, by a day at most.",
        fleet=Fleet(clocks=Clocks(share=0.3, off_s=86400.0)),
    ),
    "late-joiners": Scenario(
        about="A fifth of the devices is enrolled while the rollout is under way.",
        fleet=Fleet(joining=Joining(share=0.2, over_s=2 * 3600.0)),
    ),
    "bad-network": Scenario(
        about="Reports are lost, doubled and late.",
        reports=Reports(lost=0.001, doubled=0.05, late=0.1, late_s=600.0),
    ),
    "hub-away": Scenario(
        about="The hub is away twice, once for longer than a deployment may take.",
        hub_away=(Absence(at_s=120.0, duration_s=900.0), Absence(at_s=3600.0, duration_s=7200.0)),
    ),
    "operators": Scenario(
        about="People pause the rollout, let it go on, and promote its first stage.",
        operators=(
            Deed(at_s=60.0, action=Action.PAUSE, by="ana", reason="a look at the canaries"),
            Deed(at_s=600.0, action=Action.RESUME, by="ana"),
            Deed(at_s=900.0, action=Action.PROMOTE, by="bo", reason="the canaries are well"),
        ),
    ),
}
"""By name, in the order in which they are listed."""
