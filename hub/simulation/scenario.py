"""What a simulated fleet is like and what happens to it, as a person writes it in YAML or JSON.

::

    about: Harm in one class of hardware.
    fleet:
      attributes: { hardware: {pi4: 0.6, pi5: 0.3, jetson: 0.1}, site: {lyon: 0.5, oslo: 0.5} }
      offline: {share: 0.02}
    harm: [ {where: 'hardware == "jetson"', errors: 0.03} ]
    operators: [ {at_s: 3600, action: pause, reason: lunch} ]

Every field has a default, and all that a scenario does not say is a calm fleet. Shares are of devices where a
device is or is not so, and of events where each is drawn anew. ``where`` is a target of `fleet.targets` over
the attributes of the scenario. Times are seconds since the start of the rollout.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from fleet.protocol.deployment import DeploymentState

START_S = 1_767_571_200.0
"""Hub time of the start: a Monday, 2026-01-05 00:00 UTC."""
MAX_DEVICES = 10**7
MAX_DURATION_S = 366 * 86400.0

Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Shift = Annotated[float, msgspec.Meta(ge=-1.0, le=1.0)]
Positive = Annotated[float, msgspec.Meta(gt=0.0, le=1e12)]
Seconds = Annotated[float, msgspec.Meta(ge=0.0, le=MAX_DURATION_S)]
Interval = Annotated[float, msgspec.Meta(ge=1.0, le=MAX_DURATION_S)]
Text = Annotated[str, msgspec.Meta(max_length=500)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=80)]


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A part of a scenario: what it does not know is refused rather than ignored."""


class Offline(_Part, frozen=True):
    """Devices that are never there."""

    share: Share = 0.0


class Pattern(_Part, frozen=True):
    """Devices that come and go, each at its own hour.

    Attributes:
        share: How many of the devices.
        period_s: After which it is the same again: a day, or minutes for a link that flaps.
        up_share: Which part of it they are there.
    """

    share: Share = 0.0
    period_s: Interval = 86400.0
    up_share: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 0.4


class Links(_Part, frozen=True):
    """How fast devices download: a lognormal distribution.

    Attributes:
        bytes_per_s: The median.
        spread: Standard deviation of the logarithm; 0 for all alike.
    """

    bytes_per_s: Positive = 500_000.0
    spread: Annotated[float, msgspec.Meta(ge=0.0, le=5.0)] = 0.5


class Clocks(_Part, frozen=True):
    """Clocks of devices that are wrong.

    Attributes:
        share: How many of the devices.
        off_s: By how much at most, forwards or backwards, evenly.
    """

    share: Share = 0.0
    off_s: Seconds = 3600.0


class Joining(_Part, frozen=True):
    """Devices that are enrolled after the start.

    Attributes:
        share: How many of the devices.
        over_s: In which time, evenly.
    """

    share: Share = 0.0
    over_s: Seconds = 3600.0


class Fleet(_Part, frozen=True):
    """The devices.

    Attributes:
        devices: How many.
        attributes: The shares of the values of each attribute; ``hardware`` and ``architecture`` are what
            devices say of themselves.
        fresh_share: How many run no version before.
        silent_share: How many send no telemetry.
        offline: See there, like the next six.
        days: Those that are there for a part of the day.
        flapping: Those whose link comes and goes.
        links: Of all devices.
        clocks: Likewise.
        joining: Likewise.
        utc_offset_hours: The zones of their clocks, evenly, for maintenance windows.
    """

    devices: Annotated[int, msgspec.Meta(ge=1, le=MAX_DEVICES)] = 1000
    attributes: dict[Name, dict[Name, Positive]] = msgspec.field(
        default_factory=lambda: {
            "hardware": {"pi4": 0.6, "pi5": 0.3, "jetson": 0.1},
            "site": {"lyon": 0.5, "oslo": 0.5},
        }
    )
    fresh_share: Share = 0.0
    silent_share: Share = 0.0
    offline: Offline = Offline()
    days: Pattern = Pattern()
    flapping: Pattern = Pattern(period_s=600.0, up_share=0.5)
    links: Links = Links()
    clocks: Clocks = Clocks()
    joining: Joining = Joining()
    utc_offset_hours: tuple[Annotated[float, msgspec.Meta(ge=-14.0, le=14.0)], ...] = (0.0,)


class At(StrEnum):
    """Where on its way an install fails."""

    DOWNLOAD = "download"
    TEST = "test"
    TRIAL = "trial"


class Outcome(StrEnum):
    """How an install ends that fails."""

    FAILED = "FAILED"
    REJECTED = "REJECTED"
    ROLLED_BACK = "ROLLED_BACK"

    @property
    def state(self) -> DeploymentState:
        """What the device reports."""
        return DeploymentState(self.value)


class Failure(_Part, frozen=True):
    """Installs that fail.

    Attributes:
        share: How many of those that get so far; drawn anew at each try.
        at: Where they fail.
        outcome: What the device reports.
        code: Of the cause that it gives. ``unavailable`` and its kin are the transport's fault, and retried.
        where: Of which devices; None for all.
    """

    share: Share
    at: At = At.TRIAL
    outcome: Outcome = Outcome.ROLLED_BACK
    code: Name = "trial_failed"
    where: Text | None = None


class Version(_Part, frozen=True):
    """The version that is rolled out.

    Attributes:
        size_bytes: What a device downloads.
        install_s: Median time from the download's end to readiness; lognormal, by a factor of 1.5.
        trial_s: How long the trial takes.
        failures: What can go wrong, tried in this order.
    """

    size_bytes: Annotated[int, msgspec.Meta(ge=0, le=10**12)] = 5_000_000
    install_s: Seconds = 20.0
    trial_s: Seconds = 60.0
    failures: tuple[Failure, ...] = (
        Failure(share=0.002),
        Failure(share=0.001, at=At.TEST, outcome=Outcome.REJECTED, code="self_test_failed"),
    )


class Telemetry(_Part, frozen=True):
    """What devices tell of the version that answers, before any harm.

    Attributes:
        window_s: How often each device tells.
        requests: Mean number of requests in a window, of the middle device.
        errors: Share of them that the runtime fails.
        unsure: Share of answers of low confidence.
        labelled: Share of answers that get a label.
        wrong: Share of labelled answers that are wrong.
        latency_us: Median duration of the runtime's work.
        differing: How much devices differ, the standard deviation of their logarithm, in requests and shares.
    """

    window_s: Interval = 900.0
    requests: Annotated[float, msgspec.Meta(ge=1.0, le=1e6)] = 100.0
    errors: Share = 0.003
    unsure: Share = 0.05
    labelled: Share = 0.1
    wrong: Share = 0.05
    latency_us: Annotated[float, msgspec.Meta(ge=1.0, le=3.6e9)] = 20_000.0
    differing: Annotated[float, msgspec.Meta(ge=0.0, le=2.0)] = 0.2


class Harm(_Part, frozen=True):
    """What the version does worse.

    Attributes:
        where: On which devices; None for all.
        errors: Added to the share of failed requests.
        unsure: Added to the share of answers of low confidence.
        wrong: Added to the share of wrong answers.
        latency: How many times slower it is.
    """

    where: Text | None = None
    errors: Shift = 0.0
    unsure: Shift = 0.0
    wrong: Shift = 0.0
    latency: Annotated[float, msgspec.Meta(gt=0.0, le=1000.0)] = 1.0


class Reports(_Part, frozen=True):
    """What happens to what devices send.

    Attributes:
        lost: Share that never arrives; agents repeat until they are acknowledged, so this is worse than life.
        doubled: Share that arrives twice.
        late: Share that arrives late, and so in another order.
        late_s: How late at most, evenly.
    """

    lost: Share = 0.0
    doubled: Share = 0.0
    late: Share = 0.0
    late_s: Seconds = 600.0


class Absence(_Part, frozen=True):
    """The hub is away; what is sent meanwhile waits at the broker."""

    at_s: Seconds
    duration_s: Seconds


class Action(StrEnum):
    """What an operator can do."""

    PAUSE = "pause"
    RESUME = "resume"
    PROMOTE = "promote"
    APPROVE = "approve"
    ABORT = "abort"
    ROLL_BACK = "roll_back"


class Deed(_Part, frozen=True):
    """An operator does something; if the rollout's status does not allow it, nothing happens but a note."""

    at_s: Seconds
    action: Action
    by: Name = "operator"
    reason: Text = "as the scenario says"


class Scenario(_Part, frozen=True):
    """A fleet and what happens to it.

    Attributes:
        about: One sentence.
        is_harmful: Whether the rollout ought to be stopped; None if that follows from ``harm``.
        fleet: The devices.
        version: What is rolled out.
        telemetry: What devices tell.
        harm: What is wrong with the version.
        reports: What happens on the way to the hub.
        hub_away: When the hub is away.
        operators: What people do, in ascending order of time.
        tick_s: How often the hub looks, if nothing arrives.
        waits_s: How long a rollout that is paused, or waits for approval, does so before the simulation ends.
        lasts_s: How long the simulation lasts at most.
    """

    about: Text = ""
    is_harmful: bool | None = None
    fleet: Fleet = Fleet()
    version: Version = Version()
    telemetry: Telemetry = Telemetry()
    harm: tuple[Harm, ...] = ()
    reports: Reports = Reports()
    hub_away: tuple[Absence, ...] = ()
    operators: tuple[Deed, ...] = ()
    tick_s: Annotated[float, msgspec.Meta(ge=1.0, le=3600.0)] = 1.0
    waits_s: Seconds = 3600.0
    lasts_s: Seconds = 30 * 86400.0

    @property
    def ought_to_stop(self) -> bool:
        """Whether a good gate stops the rollout."""
        return bool(self.harm) if self.is_harmful is None else self.is_harmful
