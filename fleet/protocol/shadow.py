"""A shadow: a candidate that computes the active version's inputs beside it, and how often the two disagree.

What counts as disagreement is the same on every device, so that their counts can be added:

==============  =====================================================================================
task            a sample on which the two disagree
==============  =====================================================================================
classification  the most probable classes have different names
any other       an element differs by more than `TOLERANCE` of its scale: the greater of 1 and the
                active version's absolute answer for that element
==============  =====================================================================================

A sample is judged alone, so it does not matter with which others it was asked. Counts merge by addition. Of
the pairs of classes only the `MAX_PAIRS` lowest are kept: whichever way reports are added, the same pairs
stay, each with its full count; up to sixteen classes, that is every pair.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import reduce

import msgspec
import numpy as np
from numpy.typing import NDArray

from fleet.protocol.errors import InvalidMessage
from fleet.protocol.latency import LatencyCounts, merge_latency
from fleet.protocol.manifest import Signature
from fleet.protocol.records import MAX_PAIRS, ClassPairs, ShadowReport
from fleet.protocol.windows import MAX_REQUESTS, impossible

TOLERANCE = 0.05
"""Between versions of a model, not of one model on two runtimes: those differ by far less."""

NO_CLASS = -1


def why_incomparable(active: Signature, candidate: Signature) -> str | None:
    """Return why a candidate cannot compute what the active version is asked; None if it can."""
    if active.task != candidate.task:
        return f"its task is {candidate.task}, not {active.task}"
    if active.inputs != candidate.inputs:
        return "it takes other inputs"
    if active.outputs[0].dtype == "str" or candidate.outputs[0].dtype == "str":
        return "its answers are text"
    return None


def numbers_of_classes(active: Signature, candidate: Signature) -> NDArray[np.int64] | None:
    """Return the active version's number for each class of the candidate, shape (C,).

    Returns:
        `NO_CLASS` for a class that the active version does not have; None where both number alike.
    """
    if active.classes == candidate.classes or not active.classes or not candidate.classes:
        return None
    numbers = {name: number for number, name in enumerate(active.classes)}
    return np.array([numbers.get(name, NO_CLASS) for name in candidate.classes], dtype=np.int64)


def disagreeing_classes(
    active: NDArray[np.int64], candidate: NDArray[np.int64], numbers: NDArray[np.int64] | None
) -> NDArray[np.bool_]:
    """Tell for each sample whether two classifiers disagree.

    Args:
        active: The active version's classes, shape (N,).
        candidate: The candidate's, by its own numbers, shape (N,).
        numbers: See `numbers_of_classes`.

    Returns:
        Shape (N,).
    """
    return np.asarray(active != (candidate if numbers is None else numbers[candidate]))


def disagreeing_values(active: NDArray[np.generic], candidate: NDArray[np.generic]) -> NDArray[np.bool_]:
    """Tell for each sample whether answers that are no classes disagree.

    Args:
        active: The active version's, shape (N, …).
        candidate: The candidate's, shape (N, …).

    Returns:
        Shape (N,); True where the candidate's answer is not a number, or has other than as many elements.
    """
    expected = np.asarray(active, dtype=np.float64).reshape(len(active), -1)
    answers = np.asarray(candidate, dtype=np.float64).reshape(len(candidate), -1)
    if answers.shape != expected.shape:
        return np.ones(len(active), dtype=np.bool_)
    agrees = np.abs(answers - expected) <= TOLERANCE * np.maximum(1.0, np.abs(expected))
    return np.asarray(~agrees.all(axis=1))


def lowest_pairs(pairs: Iterable[tuple[int, int, int]]) -> ClassPairs:
    """Return pairs of classes with their counts, each pair once, the lowest `MAX_PAIRS` of them.

    Args:
        pairs: Class of the active version, class of the candidate, how often; in any order, also repeated.
    """
    counts: Counter[tuple[int, int]] = Counter()
    for active, candidate, number in pairs:
        counts[active, candidate] += number
    return tuple((*pair, counts[pair]) for pair in sorted(counts)[:MAX_PAIRS])


def same_comparison(left: ShadowReport, right: ShadowReport) -> bool:
    """Tell whether two reports are about the same two versions."""
    return (left.deployment_id, left.manifest_sha256, left.active_version) == (
        right.deployment_id,
        right.manifest_sha256,
        right.active_version,
    )


def merge_shadows(left: ShadowReport, right: ShadowReport) -> ShadowReport:
    """Return the report that covers both.

    Raises:
        InvalidMessage: They are not about the same two versions, or the sum is more than any device can have
            done.
    """
    if not same_comparison(left, right):
        raise InvalidMessage("Reports about different shadows cannot be added.")
    if _requests(left) + _requests(right) > MAX_REQUESTS:
        raise InvalidMessage(f"Reports of more than {MAX_REQUESTS} requests cannot be added.")
    return ShadowReport(
        started_at_s=min(left.started_at_s, right.started_at_s),
        ended_at_s=max(left.ended_at_s, right.ended_at_s),
        deployment_id=left.deployment_id,
        model=left.model,
        active_version=left.active_version,
        version=left.version,
        manifest_sha256=left.manifest_sha256,
        compared=left.compared + right.compared,
        disagreed=left.disagreed + right.disagreed,
        errors=left.errors + right.errors,
        not_finite=left.not_finite + right.not_finite,
        left_out=left.left_out + right.left_out,
        active_latency=merge_latency(left.active_latency, right.active_latency),
        candidate_latency=merge_latency(left.candidate_latency, right.candidate_latency),
        pairs=lowest_pairs((*left.pairs, *right.pairs)),
    )


class ShadowSums(msgspec.Struct, frozen=True):
    """What many devices reported of one version in the shadow; see `ShadowReport` for the counts.

    Attributes:
        devices: How many devices compared anything.
    """

    devices: int = 0
    compared: int = 0
    disagreed: int = 0
    errors: int = 0
    not_finite: int = 0
    left_out: int = 0
    active_latency: LatencyCounts = msgspec.field(default_factory=dict)
    candidate_latency: LatencyCounts = msgspec.field(default_factory=dict)
    pairs: ClassPairs = ()


def sum_shadows(reports: Mapping[str, Iterable[ShadowReport]]) -> ShadowSums:
    """Return what devices reported together.

    Args:
        reports: By device; of one version.
    """
    each = [report for of_device in reports.values() for report in of_device]
    return ShadowSums(
        devices=sum(any(report.compared for report in of_device) for of_device in reports.values()),
        compared=sum(report.compared for report in each),
        disagreed=sum(report.disagreed for report in each),
        errors=sum(report.errors for report in each),
        not_finite=sum(report.not_finite for report in each),
        left_out=sum(report.left_out for report in each),
        active_latency=reduce(merge_latency, (report.active_latency for report in each), {}),
        candidate_latency=reduce(merge_latency, (report.candidate_latency for report in each), {}),
        pairs=lowest_pairs(pair for report in each for pair in report.pairs),
    )


def check_report(report: ShadowReport, manifest_sha256: str) -> None:
    """Check that a report is about the bundle of the version that it names.

    Raises:
        InvalidMessage: It is not.
    """
    if report.manifest_sha256 != manifest_sha256:
        raise InvalidMessage(
            f"The report of a shadow is about bundle {report.manifest_sha256[:12]}…; "
            f"{report.model} version {report.version} is {manifest_sha256[:12]}…."
        )


def contradiction(report: ShadowReport) -> str | None:
    """Return why a report cannot be true; None if it can. Such a report counts for nothing."""
    if report.ended_at_s < report.started_at_s:
        return "it ends before it starts"
    why = impossible(_requests(report), report.ended_at_s - report.started_at_s)
    if why is not None:
        return why
    if report.disagreed > report.compared:
        return f"{report.disagreed} of {report.compared} compared samples disagree"
    paired = sum(number for _, _, number in report.pairs)
    if paired > report.disagreed:
        return f"{paired} pairs of classes for {report.disagreed} disagreements"
    if lowest_pairs(report.pairs) != report.pairs:
        return "its pairs of classes are not in order"
    if sum(report.active_latency.values()) != sum(report.candidate_latency.values()):
        return "it has more durations of one version than of the other"
    return None


def _requests(report: ShadowReport) -> int:
    """Return everything that was counted, for its bound: samples, requests and durations alike."""
    durations = sum(report.active_latency.values())
    return max(report.compared, durations) + report.errors + report.not_finite + report.left_out
