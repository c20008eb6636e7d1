"""Which variant of a version a device runs: chosen by measurement, and what a fleet learns from it.

A device that is offered several variants tries each and takes one of those that pass the golden inputs:

=============  ==============================================================================================
policy         what is compared
=============  ==============================================================================================
``first``      nothing: the variant that the order names
``fastest``    the median duration of one inference
``smallest``   the size of the model's file
``coolest``    the CPU time of one inference, all threads together: the temperature of a device cannot be
               attributed to one model, and what the processor does not do does not warm it
=============  ==============================================================================================

Two medians of the same variant differ by noise, so what lies within `NOISE` of the best is as good as the
best, and the smallest file of those is taken.

The hub groups devices into classes: the same hardware, architecture and runtimes should measure alike. As
soon as enough devices of a class agree about a version, the others are offered its winner alone and need not
download and measure what will lose.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from statistics import median
from typing import NamedTuple

from fleet.protocol.assignment import MAX_ALTERNATIVES, VariantPolicy
from fleet.protocol.errors import InvalidMessage
from fleet.protocol.manifest import Manifest, choose_variant
from fleet.protocol.messages import Capabilities
from fleet.protocol.records import Candidate, Measurement
from fleet.protocol.requirement import fits

NOISE = 0.03
"""Share by which a measurement may be above the best and still be as good."""
AGREEING_DEVICES = 3
"""So many devices of a class have to have chosen the same variant before the others are offered it alone."""
AGREEING_SHARE = 0.9
"""And so great a share of all those of the class that measured."""

_COSTS: dict[VariantPolicy, Callable[[Candidate], float]] = {
    VariantPolicy.FASTEST: lambda candidate: candidate.median_us,
    VariantPolicy.SMALLEST: lambda candidate: candidate.size_bytes,
    VariantPolicy.COOLEST: lambda candidate: candidate.cpu_us,
}


class DeviceClass(NamedTuple):
    """Devices that should measure alike.

    Attributes:
        hardware: Board or processor.
        architecture: As ``platform.machine()`` names it.
        runtimes: Name and version of each runtime, sorted.
    """

    hardware: str
    architecture: str
    runtimes: tuple[tuple[str, str], ...]


class Offer(NamedTuple):
    """What a device is offered.

    Attributes:
        variant: The variant that is expected to win.
        alternatives: What else it may choose, the most promising first.
        policy: By what; FIRST without alternatives.
    """

    variant: str
    alternatives: tuple[str, ...] = ()
    policy: VariantPolicy = VariantPolicy.FIRST


class VariantSummary(NamedTuple):
    """How one variant does on devices of one class.

    Attributes:
        variant: Its name.
        size_bytes: Size of the model's file.
        devices: How many devices tried it.
        passed: On how many of them it passed the golden inputs.
        median_us: Median over these of the median durations; None without any.
        cpu_us: Likewise of the CPU times.
    """

    variant: str
    size_bytes: int
    devices: int
    passed: int
    median_us: float | None
    cpu_us: float | None


class ClassSummary(NamedTuple):
    """What devices of one class measured of a version.

    Attributes:
        device: The class.
        devices: How many devices of it measured.
        variants: Those that were tried, by name.
        agreed: For each policy that is measured, the variant that is offered alone from now on.
    """

    device: DeviceClass
    devices: int
    variants: tuple[VariantSummary, ...]
    agreed: dict[VariantPolicy, str | None]


def class_of(device: Capabilities | Measurement) -> DeviceClass:
    """Return the class of a device, or of the device that measured."""
    return DeviceClass(device.hardware, device.architecture, tuple(sorted(device.runtimes.items())))


class Peers:
    """What devices measured of a version; a class of devices is added up once, however many ask.

    Args:
        measurements: At most one of each device, of whatever class.
    """

    def __init__(self, measurements: Iterable[Measurement] = ()) -> None:
        self._by_class: dict[DeviceClass, list[Measurement]] = {}
        for measured in measurements:
            self._by_class.setdefault(class_of(measured), []).append(measured)
        self._votes: dict[tuple[DeviceClass, VariantPolicy, frozenset[str]], Counter[str]] = {}

    def votes(self, device: DeviceClass, policy: VariantPolicy, names: frozenset[str]) -> Counter[str]:
        """Return how many devices of a class each of the variants did best on."""
        key = device, policy, names
        if key not in self._votes:
            self._votes[key] = _votes(self._by_class.get(device, ()), policy, names)
        return self._votes[key]


def choose(candidates: Iterable[Candidate], policy: VariantPolicy) -> Candidate | None:
    """Return the best of the candidates that passed, None if none did.

    Args:
        candidates: How each did, in any order.
        policy: What is compared; with FIRST the order counts alone.
    """
    passed = [candidate for candidate in candidates if candidate.cause is None]
    if not passed:
        return None
    if policy is VariantPolicy.FIRST:
        return passed[0]
    cost = _COSTS[policy]
    least = min(map(cost, passed))
    good = [candidate for candidate in passed if cost(candidate) <= least * (1.0 + NOISE)]
    return min(good, key=lambda candidate: (candidate.size_bytes, cost(candidate), candidate.variant))


def check_measurement(measurement: Measurement, manifest_sha256: str) -> None:
    """Check that a measurement is about this bundle and does not contradict itself.

    Args:
        measurement: What a device sent.
        manifest_sha256: Digest of the bundle of the version that the measurement names.

    Raises:
        InvalidMessage: It is not, or it does.
    """
    if measurement.manifest_sha256 != manifest_sha256:
        raise InvalidMessage(
            f"The measurement is of bundle {measurement.manifest_sha256[:12]}…; "
            f"{measurement.model} version {measurement.version} is {manifest_sha256[:12]}…."
        )
    names = [candidate.variant for candidate in measurement.candidates]
    if len(set(names)) != len(names):
        raise InvalidMessage("The measurement has one variant twice.")
    best = choose(measurement.candidates, measurement.policy)
    if measurement.chosen != (best.variant if best else None):
        raise InvalidMessage(f"The measurement chose {measurement.chosen!r:.80}, which is not its best.")


def offer(
    manifest: Manifest,
    device: Capabilities,
    policy: VariantPolicy,
    *,
    own: Measurement | None,
    others: Peers,
) -> Offer:
    """Return what to offer a device of a version.

    One that measured the version gets the whole choice again: it remembers and takes what it chose without
    a download, and if that does not work any more, it can measure anew.

    Args:
        manifest: The version's description.
        device: What the device can run.
        policy: By what to choose.
        own: What this device measured of the version; None if it did not.
        others: What devices measured of it.

    Raises:
        VariantUnsupported: The device can run none of the variants; the message says for each why not.
    """
    first = choose_variant(manifest, device)
    fitting = [variant for variant in manifest.variants if fits(variant.requirement, device)]
    if policy is VariantPolicy.FIRST or not device.hardware or len(fitting) == 1:
        return Offer(first.name)
    if policy is VariantPolicy.SMALLEST:
        ranked = [variant.name for variant in sorted(fitting, key=lambda each: each.model_file.size_bytes)]
        return _offer(ranked, policy)
    names = frozenset(variant.name for variant in fitting)
    if own is not None and class_of(own) == class_of(device):
        votes = _votes([own], policy, names)
    else:
        votes = others.votes(class_of(device), policy, names)
        settled = _settled(votes)
        if settled is not None:
            return Offer(settled)
    ranked = sorted((variant.name for variant in fitting), key=lambda name: -votes[name])
    return _offer(ranked, policy)


def agreed(measurements: Iterable[Measurement], policy: VariantPolicy, names: Collection[str]) -> str | None:
    """Return the variant that the devices of one class agree on, None while they do not.

    Args:
        measurements: Of devices of one class about one version, at most one each.
        policy: By what it is judged, whatever the devices chose by.
        names: The variants that come into question.
    """
    return _settled(_votes(measurements, policy, names))


def summaries(measurements: Iterable[Measurement]) -> list[ClassSummary]:
    """Return what was measured of one version, class by class.

    Args:
        measurements: At most one of each device.
    """
    by_class: dict[DeviceClass, list[Measurement]] = {}
    for measured in measurements:
        by_class.setdefault(class_of(measured), []).append(measured)
    return [_class_summary(device, of_class) for device, of_class in sorted(by_class.items())]


def _class_summary(device: DeviceClass, measurements: list[Measurement]) -> ClassSummary:
    tried: dict[str, list[Candidate]] = {}
    for measured in measurements:
        for candidate in measured.candidates:
            tried.setdefault(candidate.variant, []).append(candidate)
    variants = tuple(_variant_summary(name, candidates) for name, candidates in sorted(tried.items()))
    measured_by = (VariantPolicy.FASTEST, VariantPolicy.COOLEST)
    votes = {policy: agreed(measurements, policy, set(tried)) for policy in measured_by}
    return ClassSummary(device, len(measurements), variants, votes)


def _variant_summary(name: str, candidates: list[Candidate]) -> VariantSummary:
    passed = [candidate for candidate in candidates if candidate.cause is None]
    return VariantSummary(
        variant=name,
        size_bytes=max(candidate.size_bytes for candidate in candidates),
        devices=len(candidates),
        passed=len(passed),
        median_us=median(candidate.median_us for candidate in passed) if passed else None,
        cpu_us=median(candidate.cpu_us for candidate in passed) if passed else None,
    )


def _offer(ranked: Sequence[str], policy: VariantPolicy) -> Offer:
    return Offer(ranked[0], tuple(ranked[1 : 1 + MAX_ALTERNATIVES]), policy)


def _settled(votes: Counter[str]) -> str | None:
    for name, count in votes.most_common(1):
        if count >= AGREEING_DEVICES and count >= AGREEING_SHARE * votes.total():
            return name
    return None


def _votes(
    measurements: Iterable[Measurement], policy: VariantPolicy, names: Collection[str]
) -> Counter[str]:
    winners = (_winner(measured, policy, names) for measured in measurements)
    return Counter(winner for winner in winners if winner is not None)


def _winner(measured: Measurement, policy: VariantPolicy, names: Collection[str]) -> str | None:
    best = choose(measured.candidates, policy)
    return best.variant if best is not None and best.variant in names else None
