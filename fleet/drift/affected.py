"""What the devices that alarm share: which traits are among them more often than chance explains.

A trait is an attribute's value (``camera=cam-b``), or two of two attributes. Of N devices that run a model K
have the trait, n are affected, and k of those have it. If the trait had nothing to do with it, the affected
would be any n of the N, and the probability of so many with the trait, or more, is the hypergeometric tail

    p = sum over j >= k of  C(K, j) C(N - K, n - j) / C(N, n)

which is Fisher's exact test, one-sided (Fisher 1935, "The logic of inductive inference").

**A pair** must say more than each of its values alone: p is the largest of three tests, of the pair in the
whole fleet, of one value among the devices with the other, and the reverse. That is a valid p-value for "at
least one of the three is chance" (Berger 1982, "Multiparameter hypothesis testing and acceptance sampling").

**Many are tried**, so p is multiplied by how many could have been found at all. With N, K and n given, p is
never below its value for k = min(K, n); a trait for which that is too much can never be found, and does not
count (Tarone 1990, "A modified Bonferroni method for discrete data"). So a serial number, different for
every device, costs nothing. Half of the rate is for single values and half for pairs: when nothing has to do
with it, the probability of naming anything is at most `FALSE_FIND_RATE`, whatever depends on what.

**Of consequence** is what at least `LEAST_SHARE` of the affected have, at odds at least `LEAST_ODDS_RATIO`
times those among the rest: in a large fleet the smallest difference is certain.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from itertools import combinations

import msgspec
import numpy as np
from numpy.typing import NDArray

FALSE_FIND_RATE = 0.05
LEAST_SHARE = 0.25
LEAST_ODDS_RATIO = 2.0
LEAST_HOLDERS = 2
"""One device shares nothing."""
MOST_ATTRIBUTES = 16
"""Those that most devices have are looked at."""
MOST_TRAITS = 5
"""As many are told, the most certain first."""

_SPARSE = 8
"""Counts of codes are kept by code up to so many codes for each device, and sorted beyond."""
_LEAST_SAID = 1e-99
_Ints = NDArray[np.int64]
_Floats = NDArray[np.float64]


class SharedTrait(msgspec.Struct, frozen=True):
    """A trait that stands out.

    Attributes:
        trait: Values by attribute: one, or two.
        holders: How many of the affected devices have it.
        affected: How many devices are affected.
        other_holders: How many of the others have it.
        others: How many others there are.
        p: Probability that chance alone makes anything of what was tried stand out as much.
    """

    trait: dict[str, str]
    holders: int
    affected: int
    other_holders: int
    others: int
    p: float

    @property
    def share(self) -> float:
        """Share of the affected devices that have it."""
        return self.holders / self.affected

    @property
    def sentence(self) -> str:
        """What stands out, for people."""
        named = " and ".join(f"{attribute}={value}" for attribute, value in self.trait.items())
        return (
            f"{self.holders} of {self.affected} affected devices have {named},"
            f" against {self.other_holders} of {self.others} others ({_said(self.p)})"
        )


class FleetTraits:
    """The traits of the devices that run a model, as columns of codes.

    Args:
        devices: Attributes of each device, by its id.
    """

    def __init__(self, devices: Mapping[str, Mapping[str, str]]) -> None:
        held = Counter(attribute for traits in devices.values() for attribute in traits)
        self.device_ids = list(devices)
        self._rows = {device_id: row for row, device_id in enumerate(devices)}
        self.columns = {
            attribute: _Column([traits.get(attribute) for traits in devices.values()])
            for attribute, _ in sorted(held.items(), key=lambda item: (-item[1], item[0]))[:MOST_ATTRIBUTES]
        }

    def marked(self, device_ids: Collection[str]) -> NDArray[np.bool_]:
        """Return which devices, in order, are among those given; unknown ones are left out."""
        mark = np.zeros(len(self.device_ids), dtype=np.bool_)
        mark[[self._rows[device_id] for device_id in device_ids if device_id in self._rows]] = True
        return mark


class _Column:
    """One attribute: a code for each device, -1 where it has none, and the values by code."""

    def __init__(self, values: list[str | None]) -> None:
        self.values = sorted({value for value in values if value is not None})
        code_of: dict[str | None, int] = {value: code for code, value in enumerate(self.values)}
        self.codes: _Ints = np.array([code_of.get(value, -1) for value in values], dtype=np.int64)


class _Tried(msgspec.Struct):
    """The traits of one attribute, or of a pair: how many devices have each, and how many affected ones."""

    names: tuple[str, ...]
    codes: list[_Ints]  # of each attribute, shape (traits,)
    total: _Ints
    affected: _Ints


class _Candidate(msgspec.Struct, frozen=True):
    """A trait of consequence, with p before and after the number of trials."""

    found: SharedTrait
    joint_p: float


def shared_traits(
    fleet: FleetTraits, affected: Collection[str], *, rate: float = FALSE_FIND_RATE
) -> tuple[SharedTrait, ...]:
    """Return the traits that stand out among affected devices, the most certain first; empty for none.

    Args:
        fleet: The devices that could have been affected.
        affected: Those that are.
        rate: Probability of naming anything where nothing is shared.
    """
    mark = fleet.marked(affected)
    look = _Look(fleet, mark)
    if look.affected < LEAST_HOLDERS or look.affected == look.devices:
        return ()
    singles = {name: look.tried((name,)) for name in fleet.columns}
    pairs = [look.beyond_each(look.tried(both), singles) for both in combinations(fleet.columns, 2)]
    found = [*look.found(list(singles.values()), singles, rate / 2), *look.found(pairs, singles, rate / 2)]
    found.sort(key=lambda candidate: (candidate.joint_p, list(candidate.found.trait.items())))
    return tuple(candidate.found for candidate in found[:MOST_TRAITS])


def told(shared: Collection[SharedTrait]) -> str:
    """Return what stands out as one sentence."""
    return "; ".join(trait.sentence for trait in shared) or "nothing stands out among the affected devices"


class _Look:
    """One question: the devices, which of them are affected, and the hypergeometric distribution."""

    def __init__(self, fleet: FleetTraits, mark: NDArray[np.bool_]) -> None:
        self._fleet = fleet
        self._mark = mark
        self.devices = len(mark)
        self.affected = int(mark.sum())
        steps = np.arange(1, self.devices + 1, dtype=np.float64)
        self._log_factorial: _Floats = np.concatenate([[0.0], np.cumsum(np.log(steps))])

    def tried(self, names: tuple[str, ...]) -> _Tried:
        """Count the traits of an attribute, or of a pair, that any device has."""
        columns = [self._fleet.columns[name] for name in names]
        has_all = np.all([column.codes >= 0 for column in columns], axis=0)
        joint = columns[0].codes[has_all]
        for column in columns[1:]:
            joint = joint * len(column.values) + column.codes[has_all]
        present, total, affected = _counted(joint, self._mark[has_all])
        codes = [present]
        for column in reversed(columns[1:]):
            codes[:1] = np.divmod(codes[0], max(1, len(column.values)))
        return _Tried(names, codes, total, affected)

    def beyond_each(self, pair: _Tried, singles: Mapping[str, _Tried]) -> _Tried:
        """Leave out the pairs that are one of their values: every device with it has the other as well."""
        totals = [singles[name].total[codes] for name, codes in zip(pair.names, pair.codes, strict=True)]
        more = np.all([total > pair.total for total in totals], axis=0)
        return _Tried(
            pair.names, [codes[more] for codes in pair.codes], pair.total[more], pair.affected[more]
        )

    def found(self, tried: list[_Tried], singles: Mapping[str, _Tried], rate: float) -> Iterator[_Candidate]:
        """Yield what stands out of one family of traits."""
        lowest = np.concatenate([self._lowest_p(each.total) for each in tried] or [np.empty(0)])
        trials = _testable(lowest, rate)
        for each in tried:
            for row in np.flatnonzero(self._of_consequence(each)):
                total, affected = int(each.total[row]), int(each.affected[row])
                joint_p = self._tail(self.devices, total, self.affected, affected)
                inner = [
                    self._tail(int(single.total[code]), total, int(single.affected[code]), affected)
                    for name, codes in zip(each.names, each.codes, strict=True)
                    if len(each.names) > 1
                    for single, code in [(singles[name], codes[row])]
                ]
                p = max([joint_p, *inner]) * trials
                if p <= rate:
                    yield _Candidate(self._named(each, int(row), total, affected, p), joint_p)

    def _named(self, tried: _Tried, row: int, total: int, affected: int, p: float) -> SharedTrait:
        values = [
            self._fleet.columns[name].values[codes[row]]
            for name, codes in zip(tried.names, tried.codes, strict=True)
        ]
        return SharedTrait(
            trait=dict(zip(tried.names, values, strict=True)),
            holders=affected,
            affected=self.affected,
            other_holders=total - affected,
            others=self.devices - self.affected,
            p=p,
        )

    def _of_consequence(self, tried: _Tried) -> NDArray[np.bool_]:
        inside, outside = tried.affected, tried.total - tried.affected
        without = self.devices - self.affected - outside
        large = (inside >= LEAST_HOLDERS) & (inside >= LEAST_SHARE * self.affected)
        odds = inside * without >= LEAST_ODDS_RATIO * (self.affected - inside) * outside
        more = inside * (self.devices - self.affected) > outside * self.affected  # not so where all have it
        return np.asarray(large & odds & more)

    def _lowest_p(self, total: _Ints) -> _Floats:
        """Return the least p that traits of so many devices can have: all that can be affected are."""
        small, large = np.minimum(total, self.affected), np.maximum(total, self.affected)
        return np.asarray(np.exp(self._log_choose(large, small) - self._log_choose(self.devices, small)))

    def _tail(self, devices: int, total: int, drawn: int, least: int) -> float:
        """Return p of the head of this file; 1 up to the mean, where nothing stands out."""
        if least * devices <= total * drawn:
            return 1.0
        width = 64 + 40 * math.isqrt(devices)  # at least 80 standard deviations: what is beyond adds nothing
        counts = np.arange(least, min(total, drawn, least + width) + 1)
        logs = (
            self._log_choose(total, counts)
            + self._log_choose(devices - total, drawn - counts)
            - self._log_choose(devices, drawn)
        )
        return min(1.0, float(np.exp(logs).sum()))

    def _log_choose(self, of: int | _Ints, number: int | _Ints) -> _Floats:
        table = self._log_factorial
        return np.asarray(table[of] - table[number] - table[np.subtract(of, number)])


def _counted(codes: _Ints, mark: NDArray[np.bool_]) -> tuple[_Ints, _Ints, _Ints]:
    """Return the codes that occur, and how often each does: in all, and where marked."""
    if len(codes) and codes.max() > _SPARSE * len(codes):
        present, dense = np.unique(codes, return_inverse=True)
        _, total, affected = _counted(dense, mark)
        return present, total, affected
    total = np.bincount(codes)
    present = np.flatnonzero(total)
    return present, total[present], np.bincount(codes[mark], minlength=len(total))[present]


def _said(p: float) -> str:
    return f"p = {p:.1g}" if p >= _LEAST_SAID else f"p < {_LEAST_SAID:g}"


def _testable(lowest: _Floats, rate: float) -> int:
    """Return by how much p is to be multiplied: the least m for which at most m traits can reach rate / m."""
    candidates = np.arange(1, len(lowest) + 1)
    can_reach = np.searchsorted(np.sort(lowest), rate / candidates, side="right")
    fits = np.flatnonzero(can_reach <= candidates)
    return int(candidates[fits[0]]) if len(fits) else 1
