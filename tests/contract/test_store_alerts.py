"""The contract of every store: alerts, the messages that tell of them, and silences."""

from __future__ import annotations

import msgspec
import pytest

from fleet.alerts.alert import Acknowledgement, Alert, Severity, State
from fleet.alerts.telling import Occasion, message_key, tell
from fleet.protocol.errors import Conflict, NotFound, StorageError
from hub.store.alert_rows import AlertMessage, AlertsNow, AlertsStep, Outcome, ReceiverTally
from hub.store.protocols import Store
from tests.support.alerts import firing, silence


def _message(alert: Alert, receiver: str = "ops", *, now_s: float = 10.0) -> tuple[Alert, AlertMessage]:
    told = tell(alert, receiver, now_s)
    return told, AlertMessage(message_key(told, receiver), receiver, Occasion.RAISED, alert, now_s, now_s)


def _save(store: Store, *alerts: Alert, messages: tuple[AlertMessage, ...] = ()) -> None:
    store.advance_alerts(lambda _: AlertsStep(changed=alerts, messages=messages), 10.0)


def _now(store: Store, now_s: float = 10.0) -> AlertsNow:
    seen: list[AlertsNow] = []

    def look(now: AlertsNow) -> AlertsStep:
        seen.append(now)
        return AlertsStep()

    store.advance_alerts(look, now_s)
    return seen[0]


def test_an_alert_and_what_is_told_of_it_are_written_together(store: Store) -> None:
    alert, message = _message(firing("cam-1"))
    _save(store, alert, messages=(message,))
    now = _now(store)
    assert list(now.alerts) == [alert]
    assert set(now.waiting) == {("ops", alert.identity)}
    assert store.alert(alert.matter.key) == alert
    assert store.messages_due("ops", 10.0) == [message]
    assert store.alert_counts() == {(State.FIRING, Severity.WARNING): 1}


def test_a_step_that_fails_changes_nothing(store: Store) -> None:
    def fails(_: AlertsNow) -> AlertsStep:
        raise Conflict("Not now.")

    with pytest.raises(Conflict):
        store.advance_alerts(fails, 10.0)
    alert, message = _message(firing("cam-1"))
    unstorable = msgspec.structs.replace(message, key=None)  # what no column takes
    with pytest.raises(StorageError):
        _save(store, alert, messages=(unstorable,))
    assert list(_now(store).alerts) == []


def test_a_message_is_stored_once_under_its_key(store: Store) -> None:
    alert, message = _message(firing("cam-1"))
    _save(store, alert, messages=(message,))
    sent = msgspec.structs.replace(message, outcome=Outcome.SENT, ended_at_s=11.0)
    store.save_messages([sent])
    _save(store, alert, messages=(message,))
    assert store.messages_about(alert) == [sent]
    assert store.messages_due("ops", 99.0) == []
    assert set(_now(store).waiting) == set()


def test_of_each_alert_the_oldest_message_comes_first_and_alone(store: Store) -> None:
    first, begun = _message(firing("cam-1"))
    again, ended = _message(first, now_s=20.0)
    _, other = _message(firing("cam-1", model="letters"), now_s=30.0)
    _save(store, again, messages=(begun, ended, other))
    assert store.messages_due("ops", 99.0) == [begun, other]
    assert store.next_message_due_s("ops") == 10.0
    later = msgspec.structs.replace(begun, due_at_s=50.0, attempts=1, error="HTTP status 500.")
    store.save_messages([later])
    assert store.messages_due("ops", 40.0) == [other], "what follows waits for what was before it"
    assert store.next_message_due_s("ops") == 30.0
    store.save_messages([msgspec.structs.replace(later, outcome=Outcome.GIVEN_UP, ended_at_s=51.0)])
    assert store.messages_due("ops", 40.0) == [ended, other]
    assert store.messages_due("ops", 40.0, limit=1) == [ended]
    assert store.next_message_due_s("nobody") is None


def test_how_messages_fare_is_told_by_receiver(store: Store) -> None:
    alert, message = _message(firing("cam-1"))
    told, second = _message(alert, now_s=20.0)
    _, mailed = _message(told, "mail", now_s=20.0)
    _save(store, told, messages=(message, second, mailed))
    store.save_messages(
        [
            msgspec.structs.replace(message, outcome=Outcome.GIVEN_UP, ended_at_s=11.0, error="No answer."),
            msgspec.structs.replace(mailed, outcome=Outcome.SENT, ended_at_s=21.0),
        ]
    )
    assert store.receiver_tallies() == [
        ReceiverTally("mail", waiting=0, given_up=0, last_sent_at_s=21.0, error=""),
        ReceiverTally("ops", waiting=1, given_up=1, last_sent_at_s=None, error=""),
    ]
    assert store.give_up_messages({"mail"}, 30.0, "There is no receiver ops.") == 1
    assert [message.error for message in store.messages_about(alert)] == [
        "No answer.",
        "There is no receiver ops.",
        "",
    ]


def test_of_what_was_repeated_the_newest_is_kept(store: Store) -> None:
    alert, first = _message(firing("cam-1"))
    messages = [first]
    for number in range(1, 4):
        alert, again = _message(alert, now_s=10.0 + number)
        messages.append(msgspec.structs.replace(again, occasion=Occasion.REPEATED))
    _save(store, alert, messages=tuple(messages))
    for message in messages[:-1]:
        store.save_messages([msgspec.structs.replace(message, outcome=Outcome.SENT, ended_at_s=20.0)])
    kept = store.messages_about(alert)
    assert [(m.key, m.outcome) for m in kept] == [
        (messages[0].key, Outcome.SENT),
        (messages[2].key, Outcome.SENT),
        (messages[3].key, Outcome.WAITING),
    ]


def test_episodes_of_one_key_are_kept_apart_and_listed_newest_first(store: Store) -> None:
    first = msgspec.structs.replace(firing("cam-1"), state=State.RESOLVED, ended_at_s=1_700_000_100.0)
    second = firing("cam-1", started_at_s=1_700_000_200.0)
    _save(store, first)
    _save(store, second)
    assert store.alert(first.matter.key) == second
    (newest, a), (oldest, b) = store.alerts()
    assert (a, b) == (second, first)
    assert store.alerts(before=newest) == [(oldest, first)]
    assert [alert for _, alert in store.alerts(open_only=True)] == [second]
    assert list(_now(store).alerts) == [second]
    store.forget_alerts(1_700_000_150.0)
    assert [alert for _, alert in store.alerts()] == [second]


def test_a_pending_alert_that_is_dropped_is_gone(store: Store) -> None:
    alert = msgspec.structs.replace(firing("cam-1"), state=State.PENDING)
    _save(store, alert)
    store.advance_alerts(lambda now: AlertsStep(dropped=now.alerts), 10.0)
    with pytest.raises(NotFound):
        store.alert(alert.matter.key)


def test_an_alert_is_changed_by_who_acknowledges_it(store: Store) -> None:
    alert = firing("cam-1")
    _save(store, alert)
    acknowledged = Acknowledgement(20.0, "ana", "on it")
    changed = store.change_alert(
        alert.matter.key, lambda a: msgspec.structs.replace(a, acknowledged=acknowledged)
    )
    assert changed.acknowledged == acknowledged
    assert store.alert(alert.matter.key) == changed
    with pytest.raises(NotFound):
        store.change_alert("drift:letters:input.mean", lambda a: a)


def test_a_silence_is_in_force_until_it_ends_or_is_ended(store: Store) -> None:
    first = store.add_silence(lambda number: silence(number, ends_at_s=50.0))
    second = store.add_silence(lambda number: silence(number, ends_at_s=100.0))
    assert (first.number, second.number) == (1, 2)
    assert store.silences(after_s=20.0) == [second, first]
    assert list(_now(store, 60.0).silences) == [second]
    ended = store.end_silence(2, by="bo", now_s=70.0)
    assert (ended.ends_at_s, ended.ended_by) == (70.0, "bo")
    assert list(_now(store, 71.0).silences) == []
    assert store.silences() == [ended, first]
    with pytest.raises(Conflict):
        store.end_silence(2, by="bo", now_s=80.0)
    with pytest.raises(NotFound):
        store.end_silence(3, by="bo", now_s=80.0)
    store.forget_alerts(60.0)
    assert store.silences() == [ended]
