"""What was written is sent: to real receivers that fail in every way; never lost, and not tried for ever."""

from __future__ import annotations

import asyncio
import contextlib
import email
import email.policy
import hashlib
import hmac
import logging
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from fleet.alerts.alert import Alert, State
from fleet.alerts.telling import Occasion, message_key, tell
from fleet.protocol.errors import NotFound, Unavailable
from hub.alerts.alerting import senders
from hub.alerts.delivery import Delivery
from hub.alerts.messages import WebhookBody
from hub.alerts.settings import ALERTS_FILE, read_alert_settings
from hub.store.alert_rows import AlertMessage, AlertsStep, Outcome
from hub.store.sqlite import SqliteStore
from tests.support.alerts import firing
from tests.support.receivers import CUT, HANG, HttpReceiver, MailServer, self_signed, silent_server
from tests.support.waiting import eventually_async

SECRET = "a secret that nobody guesses"


class Hub:
    """As much of a hub as sends alerts: a store, settings from a file, and the delivery."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = SqliteStore(folder / "hub.db")
        (folder / "secret").write_text(f"{SECRET}\n")
        self._receivers: list[str] = []
        self._http: list[HttpReceiver] = []

    def webhook(self, name: str, behaviour: int | str = 200, **more: object) -> HttpReceiver:
        """Add a webhook that behaves so."""
        receiver = HttpReceiver(behaviour, location=str(more.pop("location", "")))
        self._http.append(receiver)
        url = receiver.url + str(more.pop("url_path", ""))
        self.receiver(name, "webhook", url=url, secret_file="secret", **more)
        return receiver

    def receiver(self, name: str, kind: str, **fields: object) -> None:
        """Add a receiver to the file."""
        lines = [f"{key} = {msgspec.json.encode(value).decode()}" for key, value in fields.items()]
        self._receivers.append("\n".join(["[[receiver]]", f'name = "{name}"', f'kind = "{kind}"', *lines]))

    def write(self, receiver: str, *alerts: Alert) -> list[AlertMessage]:
        """Write a message about each alert, as a look does."""
        now_s = time.time()
        told = [tell(alert, receiver, now_s) for alert in alerts]
        messages = [
            AlertMessage(message_key(alert, receiver), receiver, Occasion.RAISED, alert, now_s, now_s)
            for alert in told
        ]
        self.store.advance_alerts(lambda _: AlertsStep(changed=told, messages=messages), now_s)
        return messages

    @contextlib.asynccontextmanager
    async def delivery(self, **settings: float) -> AsyncGenerator[Delivery]:
        """Run the delivery."""
        head = "\n".join(f"{key} = {value}" for key, value in settings.items())
        (self.folder / ALERTS_FILE).write_text("\n\n".join([head, *self._receivers]) + "\n")
        read = read_alert_settings(self.folder)
        delivery = Delivery(self.store, read, senders(read, self.folder))
        task = asyncio.create_task(delivery.run())
        try:
            yield delivery
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def outcomes(self, alert: Alert) -> set[Outcome]:
        """Return what became of the messages about an alert."""
        return {message.outcome for message in self.store.messages_about(alert)}

    def close(self) -> None:
        """Close everything."""
        self.store.close()
        for receiver in self._http:
            receiver.close()


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    made = Hub(tmp_path)
    yield made
    made.close()


def test_a_webhook_gets_signed_json_once(hub: Hub) -> None:
    receiver = hub.webhook("ops")
    alert = firing("cam-03")

    async def play() -> None:
        async with hub.delivery():
            (message,) = hub.write("ops", alert)
            delivered = await eventually_async(lambda: hub.outcomes(alert) == {Outcome.SENT})
            assert delivered
            (request,) = receiver.received
            assert request.headers["Muster-Message-Id"] == message.key
            assert request.headers["Content-Type"] == "application/json"
            sent_at, code = (
                part.partition("=")[2] for part in request.headers["Muster-Signature"].split(",")
            )
            expected = hmac.new(SECRET.encode(), f"{sent_at}.".encode() + request.body, hashlib.sha256)
            assert code == expected.hexdigest()
            assert abs(time.time() - int(sent_at)) < 60
            body = msgspec.json.decode(request.body, type=WebhookBody, strict=True)
            assert (body.id, body.occasion) == (message.key, "raised")
            assert body.alert.command == "muster device show cam-03"
            assert body.alert.devices == ["cam-03"]

    asyncio.run(play())


def test_receivers_that_fail_get_it_later_and_hold_up_nobody(hub: Hub) -> None:
    elsewhere = HttpReceiver()
    broken = {
        "error": hub.webhook("error", 500),
        "hang": hub.webhook("hang", HANG, timeout_s=0.5),
        "cut": hub.webhook("cut", CUT),
        "redirect": hub.webhook("redirect", 302, location=elsewhere.url),
    }
    good = hub.webhook("good")
    alert = firing("cam-03")
    names = [*broken, "good"]

    async def play() -> None:
        async with hub.delivery() as delivery:
            for name in names:
                hub.write(name, alert)
            delivery.wake()
            await eventually_async(lambda: good.received)
            await eventually_async(lambda: all(receiver.received for receiver in broken.values()))
            waits = {m.receiver: m for m in hub.store.messages_about(alert)}
            assert waits["hang"].outcome is Outcome.WAITING
            await eventually_async(
                lambda: all(m.error for m in hub.store.messages_about(alert) if m.receiver in broken)
            )
            for receiver in broken.values():
                receiver.behaviour = 200
            await eventually_async(lambda: hub.outcomes(alert) == {Outcome.SENT})

    asyncio.run(play())
    try:
        assert elsewhere.received == [], "a redirect is not followed"
        for receiver in broken.values():
            assert len(set(receiver.ids())) == 1, "what is sent again has the same id"
            assert len(receiver.ids()) >= 2
        assert len(good.received) == 1
        errors = {m.receiver: m for m in hub.store.messages_about(alert)}
        assert {m.attempts > 0 for name, m in errors.items() if name in broken} == {True}
    finally:
        elsewhere.close()


def test_what_is_never_taken_is_given_up_visibly(hub: Hub) -> None:
    hub.webhook("ops", 503)
    alert = firing("cam-03")
    hub.write("ops", alert)
    hub.write("gone", firing("cam-04", model="letters"))

    async def play() -> None:
        async with hub.delivery() as delivery:
            await eventually_async(lambda: delivery.counts["webhook", "failed"] >= 1)
        async with hub.delivery(give_up_after_s=1.0) as delivery:
            await eventually_async(lambda: hub.outcomes(alert) == {Outcome.GIVEN_UP})
            assert delivery.counts["webhook", "given_up"] == 1

    asyncio.run(play())
    tallies = {tally.receiver: tally for tally in hub.store.receiver_tallies()}
    assert (tallies["ops"].given_up, tallies["ops"].waiting) == (1, 0)
    assert tallies["ops"].error == "The receiver answered with HTTP status 503."
    assert tallies["gone"].given_up == 1, "nobody waits for a receiver that is not there any more"


def test_a_fault_of_ours_is_a_try_that_failed_and_nothing_is_lost(hub: Hub) -> None:
    receiver = hub.webhook("ops")
    alert = firing("cam-03")

    async def play() -> None:
        async with hub.delivery() as delivery:
            sender = delivery._lines["ops"].sender
            send, faults = sender.send, iter([ZeroDivisionError("a fault"), ValueError("another")])

            async def faulty(messages: Sequence[AlertMessage], now_s: float) -> None:
                for fault in faults:
                    raise fault
                await send(messages, now_s)

            sender.send = faulty  # type: ignore[method-assign]
            hub.write("ops", alert)
            delivery.wake()
            await eventually_async(lambda: hub.outcomes(alert) == {Outcome.SENT})
            assert delivery.counts["webhook", "failed"] == 2

    asyncio.run(play())
    assert len(receiver.received) == 1


def test_what_was_not_sent_when_the_hub_stopped_is_sent_when_it_runs_again(hub: Hub) -> None:
    receiver = hub.webhook("ops", HANG, timeout_s=0.5)
    alert = firing("cam-03")

    async def stopped() -> None:
        async with hub.delivery():
            hub.write("ops", alert)
            await eventually_async(lambda: receiver.received)

    async def again() -> None:
        receiver.behaviour = 200
        async with hub.delivery():
            await eventually_async(lambda: hub.outcomes(alert) == {Outcome.SENT})

    asyncio.run(stopped())
    assert hub.outcomes(alert) == {Outcome.WAITING}
    asyncio.run(again())
    assert len(set(receiver.ids())) == 1


def test_a_receiver_is_tested_at_once_and_within_its_rate(hub: Hub) -> None:
    receiver = hub.webhook("ops", most_per_minute=1.0)
    hub.webhook("broken", 500)

    async def play() -> None:
        async with hub.delivery() as delivery:
            await delivery.test("ops")
            body = msgspec.json.decode(receiver.received[0].body, type=WebhookBody)
            assert body.occasion == "test"
            with pytest.raises(Unavailable, match="as much as it may be"):
                await delivery.test("ops")
            with pytest.raises(Unavailable, match="HTTP status 500"):
                await delivery.test("broken")
            with pytest.raises(NotFound):
                await delivery.test("nobody")

    asyncio.run(play())
    assert len(receiver.received) == 1


def test_an_address_that_is_a_secret_is_in_no_log(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    receiver = hub.webhook("chat", url_path="/hidden")

    async def play() -> None:
        async with hub.delivery() as delivery:
            await delivery.test("chat")
            receiver.behaviour = 500
            with pytest.raises(Unavailable):
                await delivery.test("chat")

    caplog.set_level(logging.INFO)  # as the hub logs
    asyncio.run(play())
    assert [request.path for request in receiver.received] == ["/alerts/hidden"] * 2
    assert "hidden" not in caplog.text


def test_a_certificate_that_nobody_vouches_for_is_refused(hub: Hub) -> None:
    server = HttpReceiver(certificate=self_signed(hub.folder / "ops.pem"))
    fields = {"url": server.url, "secret_file": "secret"}
    hub.receiver("stranger", "webhook", **fields)
    hub.receiver("vouched", "webhook", ca_file="ops.pem", **fields)

    async def play() -> None:
        async with hub.delivery() as delivery:
            with pytest.raises(Unavailable, match="ConnectError"):
                await delivery.test("stranger")
            assert server.received == []
            await delivery.test("vouched")

    try:
        asyncio.run(play())
        assert len(server.received) == 1
    finally:
        server.close()


def test_people_get_one_mail_for_what_was_gathered(hub: Hub) -> None:
    certificate = self_signed(hub.folder / "mail.pem")
    server = MailServer(certificate, password=SECRET)
    hub.receiver(
        "mail",
        "email",
        host="127.0.0.1",
        port=server.port,
        username="muster",
        password_file="secret",
        sender="muster@example.org",
        to=["ana@example.org", "bo@example.org"],
        ca_file="mail.pem",
        digest_s=0.0,
    )
    first = firing("cam-03")
    evil = msgspec.structs.replace(
        firing("cam-04", model="letters").matter, title="all is well\r\nBcc: eve@example.org\r\n\r\nhello"
    )
    second = Alert(evil, State.FIRING, 1_700_000_000.0)
    hub.write("mail", first)
    hub.write("mail", second)

    async def play() -> None:
        async with hub.delivery():
            await eventually_async(lambda: hub.outcomes(first) | hub.outcomes(second) == {Outcome.SENT})

    try:
        asyncio.run(play())
    finally:
        server.close()
    (envelope,) = server.envelopes
    assert envelope.rcpt_tos == ["ana@example.org", "bo@example.org"]
    assert server.logins == [(b"muster", SECRET.encode())]
    assert isinstance(envelope.content, bytes)
    mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
    assert set(mail.keys()) >= {"From", "To", "Subject", "Date", "Message-ID"}
    assert "Bcc" not in mail
    assert mail["Subject"].startswith("[muster] 2 alerts")
    body = mail.get_content()
    assert "act:      muster device show cam-03" in body
    assert mail.get_content_type() == "text/plain"
    assert SECRET not in envelope.content.decode()


@pytest.mark.parametrize("trusted", [True, False], ids=["silent", "untrusted"])
def test_a_mail_server_that_is_silent_or_untrusted_gets_no_password(hub: Hub, trusted: bool) -> None:
    server = MailServer(self_signed(hub.folder / "mail.pem"), password=SECRET)
    fields = {
        "host": "127.0.0.1",
        "username": "muster",
        "password_file": "secret",
        "sender": "muster@example.org",
        "to": ["ana@example.org"],
        "timeout_s": 0.3 if trusted else 30.0,
    }

    async def play() -> str:
        async with hub.delivery() as delivery:
            with pytest.raises(Unavailable) as refused:
                await delivery.test("mail")
        return str(refused.value)

    try:
        with silent_server() as port:
            hub.receiver("mail", "email", port=port if trusted else server.port, **fields)
            why = asyncio.run(play())
        assert ("within 0.3 s" in why) if trusted else ("SSLCertVerificationError" in why)
        assert server.logins == []
        assert server.envelopes == []
    finally:
        server.close()
