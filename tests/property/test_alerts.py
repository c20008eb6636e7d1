"""The life of alerts, whatever is found when: who is told, how often, and one end for every beginning."""

from __future__ import annotations

import shlex
from collections import Counter
from itertools import pairwise

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from fleet.alerts.alert import MOST_DEVICES, Alert, Finding, Severity, State, alert_key, finding, one_line
from fleet.alerts.life import step
from fleet.alerts.matching import Match, Silence, muting
from fleet.alerts.telling import Occasion, Terms, message_key, occasion, tell
from tests.support.alerts import found, silence

HOLD_S, CLEAR_S, REGROUP_S, REPEAT_S, GAP_S = 30.0, 60.0, 100.0, 1000.0, 100.0
TERMS = Terms(REGROUP_S, REPEAT_S)


class Look(msgspec.Struct, frozen=True):
    """One look: how long after the last, and what it finds."""

    after_s: float
    devices: int  # 0 for nothing found
    critical: bool
    muted: bool
    waiting: bool


LOOKS = st.lists(
    st.builds(
        Look,
        after_s=st.sampled_from([0.5, 10.0, 40.0, 400.0]),
        devices=st.sampled_from([0, 0, 1, 2, 3, 500]),
        critical=st.booleans(),
        muted=st.sampled_from([False, False, True]),
        waiting=st.sampled_from([False, False, True]),
    ),
    max_size=25,
)


class Told(msgspec.Struct, frozen=True):
    """What a receiver was told, and when."""

    at_s: float
    occasion: Occasion
    alert: Alert
    key: str


def _found(look: Look) -> Finding | None:
    severity = Severity.CRITICAL if look.critical else Severity.WARNING
    names = [f"cam-{number}" for number in range(look.devices)]
    return found(*names, severity=severity, hold_s=HOLD_S) if names else None


def _live(looks: list[Look]) -> tuple[list[Alert], list[Told]]:
    """Live through looks as the hub does; return every value of the alert, and all that was told.

    Checks on the way that a state begins only after what leads to it lasted while somebody looked.
    """
    now_s, watched_since_s, same_since_s, was_found = 0.0, 0.0, 0.0, False
    alert: Alert | None = None
    lived: list[Alert] = []
    told: list[Told] = []
    for look in looks:
        now_s += look.after_s
        if look.after_s > GAP_S:
            watched_since_s = now_s
        if bool(look.devices) != was_found:
            same_since_s, was_found = now_s, not was_found
        lasted_s = now_s - max(same_since_s, watched_since_s)
        before = alert
        alert = step(before, _found(look), now_s, watched_since_s=watched_since_s, clear_after_s=CLEAR_S)
        was, becomes = (before.state if before else None), (alert.state if alert else None)
        if becomes is State.FIRING and was is not State.FIRING:
            assert was_found
            assert lasted_s >= HOLD_S
        if becomes is State.RESOLVED and was is not State.RESOLVED:
            assert not was_found
            assert lasted_s >= CLEAR_S
        if alert is None:
            continue
        if alert.state.is_open:
            alert = msgspec.structs.replace(alert, silence=1 if look.muted else None)
        if alert.ended_at_s in {None, now_s}:  # the hub looks at open alerts, and at those that just ended
            why = occasion(alert, alert.told.get("ops"), TERMS, now_s, waiting=look.waiting)
            if why is not None:
                alert = tell(alert, "ops", now_s)
                told.append(Told(now_s, why, alert, message_key(alert, "ops")))
        lived.append(alert)
    return lived, told


@given(LOOKS)
def test_every_beginning_is_told_once_and_so_is_its_end(looks: list[Look]) -> None:
    lived, told = _live(looks)
    begun = [t.alert.identity for t in told if t.occasion is Occasion.RAISED]
    ended = [t.alert.identity for t in told if t.occasion is Occasion.RESOLVED]
    assert len(set(begun)) == len(begun)
    assert len(set(ended)) == len(ended)
    assert set(ended) <= set(begun)
    resolved = {alert.identity for alert in lived if alert.state is State.RESOLVED}
    assert set(ended) == resolved & set(begun)
    for identity in resolved & set(begun):
        assert [t.occasion for t in told if t.alert.identity == identity][-1] is Occasion.RESOLVED


@given(LOOKS)
def test_no_key_names_two_messages(looks: list[Look]) -> None:
    _, told = _live(looks)
    assert max(Counter(t.key for t in told).values(), default=1) == 1


@given(LOOKS)
def test_nobody_is_told_more_often_than_the_terms_say(looks: list[Look]) -> None:
    _, told = _live(looks)
    for before, after in pairwise(told):
        if after.occasion is Occasion.REPEATED:
            assert after.at_s - before.at_s >= REPEAT_S
        elif after.occasion is Occasion.GREW:
            assert after.at_s - before.at_s >= REGROUP_S
            then, now = before.alert.matter, after.alert.matter
            assert now.device_count > then.device_count or now.severity.rank > then.severity.rank


@given(LOOKS)
def test_nobody_is_told_of_what_does_not_fire_is_muted_or_has_no_evidence(looks: list[Look]) -> None:
    lived, told = _live(looks)
    for alert in lived:
        assert (alert.fired_at_s is None) == (alert.state is State.PENDING)
        assert (alert.ended_at_s is None) == (alert.state is not State.RESOLVED)
    for message in told:
        assert message.alert.matter.evidence
        assert message.alert.matter.command
        assert message.alert.state is not State.PENDING
        assert message.occasion is Occasion.RESOLVED or message.alert.silence is None


@given(st.integers(1, 500), st.integers(1, 500))
def test_500_devices_are_one_alert_that_grows(first: int, then: int) -> None:
    looks = [
        Look(10.0, min(500, first + then * number), critical=False, muted=False, waiting=False)
        for number in range(60)
    ]
    _, told = _live(looks)
    assert len({t.alert.identity for t in told}) == 1
    assert len(told) <= 1 + 6, "600 s have room for six more messages"
    assert all(len(t.alert.matter.devices) <= MOST_DEVICES for t in told)
    assert told[-1].alert.matter.device_count <= 500


@given(st.text(max_size=2000), st.text(max_size=2000))
def test_no_text_of_a_device_breaks_a_line_or_a_limit(first: str, second: str) -> None:
    matter = finding(
        "drift",
        first,
        severity=Severity.WARNING,
        title=first,
        sentence=second,
        evidence=[first, second] * 20,
        affected=[first],
        command=shlex.join(["muster", first]),
        inspect="muster fleet drift",
        path="/",
    ).matter
    for text in (matter.title, matter.sentence, *matter.evidence, *matter.affected):
        assert len(text) <= 500
        assert text.isprintable()
    assert len(matter.key) <= 80
    assert set(matter.key) <= set("abcdefghijklmnopqrstuvwxyz0123456789._-:")


@given(st.lists(st.text(max_size=80), min_size=2, max_size=2, unique=True))
def test_different_things_have_different_keys(parts: list[str]) -> None:
    assert alert_key("drift", parts[0]) != alert_key("drift", parts[1])
    assert alert_key("drift", parts[0]) == alert_key("drift", parts[0])


@given(st.text(), st.integers(1, 100))
def test_one_line_is_one_line(text: str, limit: int) -> None:
    line = one_line(text, limit)
    assert len(line) <= limit
    assert line == "" or line.isprintable()
    assert one_line(line, limit) == line


DEVICES = [f"cam-{number}" for number in range(5)]


@given(st.sets(st.sampled_from(DEVICES), min_size=1), st.sets(st.sampled_from([*DEVICES, None]), max_size=4))
def test_silences_of_devices_mute_only_what_they_cover(devices: set[str], silenced: set[str | None]) -> None:
    named = sorted(devices)
    silences = [silence(number, device=device) for number, device in enumerate(silenced, start=1)]
    by = muting(found(*named).matter, named, silences, 50.0)
    assert (by is not None) == (None in silenced or devices <= silenced)
    assert muting(found(*named).matter, named, silences, 100.0) is None, "they have ended"


def test_a_silence_mutes_what_it_matches() -> None:
    matter = found("cam-1").matter
    for match, mutes in (
        (Match(kinds=("drift",)), True),
        (Match(kinds=("offline",)), False),
        (Match(models=("digits",), severities=(Severity.WARNING,)), True),
        (Match(models=("digits",), severities=(Severity.CRITICAL,)), False),
        (Match(keys=(matter.key,)), True),
        (Match(keys=("drift:letters:input.mean",)), False),
    ):
        silenced = Silence(1, match, None, 0.0, 100.0, "ana", "a test")
        assert (muting(matter, ["cam-1"], [silenced], 1.0) is not None) == mutes
