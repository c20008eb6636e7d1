"""E-mail: what was gathered for a receiver goes out as one plain text.

Python's own client does it, which blocks: it runs in a thread of its own, so that a slow mail server takes no
thread from the hub's other work. When its time is up the connection is cut, and the thread ends with it.
What comes from devices stands in the body and the subject only; `fleet.alerts.alert.one_line` has made it
printable, and the library refuses a line break in a header besides.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import smtplib
import socket
import ssl
import threading
from collections.abc import Sequence
from email.message import EmailMessage
from email.utils import formatdate
from pathlib import Path

from fleet.alerts.alert import one_line
from fleet.protocol.errors import Unavailable
from hub.alerts.messages import subject, text
from hub.alerts.posting import tls_context
from hub.alerts.receivers import Email, Secret
from hub.store.alert_rows import AlertMessage

log = logging.getLogger(__name__)

_FAILURES = (OSError, smtplib.SMTPException, ssl.SSLError, ValueError)
_PATIENCE = 2.0
"""A connection waits for so many times the limit of the whole try, which therefore is what ends it."""
MAX_SUBJECT = 200


def email(receiver: Email, messages: Sequence[AlertMessage], *, now_s: float, hub_url: str) -> EmailMessage:
    """Return messages as one e-mail; the same messages have the same Message-ID, so that doubles can be told.

    Args:
        receiver: Who is told.
        messages: Of what; at least one.
        now_s: Unix seconds.
        hub_url: Before links.
    """
    mail = EmailMessage()
    mail["From"] = receiver.sender
    mail["To"] = ", ".join(receiver.to)
    mail["Subject"] = one_line(subject(messages), MAX_SUBJECT)
    mail["Date"] = formatdate(now_s)
    digest = hashlib.sha256("\n".join(message.key for message in messages).encode()).hexdigest()
    mail["Message-ID"] = f"<{digest[:40]}@{receiver.sender.rpartition('@')[2]}>"
    mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: nobody's absence notice answers it
    mail.set_content(text(messages, hub_url))
    return mail


class EmailSender:
    """Sends to some people.

    Args:
        receiver: Its settings.
        folder: At which relative paths of secrets begin.
        hub_url: Before links.

    Raises:
        InvalidConfiguration: A setting or the password cannot be used.
    """

    most_at_once = 100

    def __init__(self, receiver: Email, folder: Path, hub_url: str) -> None:
        self._receiver = receiver
        self._password = receiver.password(folder)
        self._hub_url = hub_url
        self._tls = tls_context(receiver.ca_path(folder))
        self.gather_s = receiver.digest_s

    async def send(self, messages: Sequence[AlertMessage], now_s: float) -> None:
        """Send messages as one e-mail; raises `Unavailable`."""
        mail = email(self._receiver, messages, now_s=now_s, hub_url=self._hub_url)
        attempt = _Attempt(self._receiver, self._password, self._tls, mail)
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Exception | None] = loop.create_future()

        def finish(error: Exception | None) -> None:
            if not done.done():
                done.set_result(error)

        def work() -> None:
            error = attempt.run()
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(finish, error)

        threading.Thread(target=work, name="muster-mail", daemon=True).start()
        try:
            async with asyncio.timeout(self._receiver.timeout_s):
                error = await done
        except TimeoutError as late:
            raise Unavailable(
                f"The mail server did not take it within {self._receiver.timeout_s:g} s."
            ) from late
        finally:
            attempt.cut()
        if error is not None:
            raise Unavailable(f"The mail server did not take it ({_why(error)}).") from error

    async def close(self) -> None:
        """Nothing is kept open."""


class _Attempt:
    """One try, in one thread; it can be cut from another."""

    def __init__(
        self, receiver: Email, password: Secret | None, tls: ssl.SSLContext, mail: EmailMessage
    ) -> None:
        self._receiver = receiver
        self._password = password
        self._tls = tls
        self._mail = mail
        self.client: smtplib.SMTP | None = None
        self._is_cut = False

    def run(self) -> Exception | None:
        """Send it and return what went wrong; None for nothing."""
        receiver = self._receiver
        try:
            client = _Tls(self, receiver, self._tls) if receiver.security == "tls" else _Plain(self, receiver)
            if self._is_cut:
                return TimeoutError()
            if receiver.security == "starttls":
                client.starttls(context=self._tls)
            if receiver.username:
                client.login(receiver.username, self._password.reveal() if self._password else "")
            refused = client.send_message(self._mail)
            with contextlib.suppress(*_FAILURES):
                client.quit()
        except _FAILURES as error:
            return error
        finally:
            self.cut()
        if refused:  # others took it: sending it again would tell them twice
            log.warning("The mail server refused %d recipients of %s.", len(refused), receiver.name)
        return None

    def cut(self) -> None:
        """End the connection, whatever it waits for."""
        self._is_cut = True
        connection = self.client.sock if self.client else None
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()


class _Plain(smtplib.SMTP):
    """A client that can be cut from the moment on at which it connects."""

    def __init__(self, attempt: _Attempt, receiver: Email) -> None:
        attempt.client = self
        super().__init__(receiver.host, receiver.port, timeout=_PATIENCE * receiver.timeout_s)


class _Tls(smtplib.SMTP_SSL):
    """The same, with TLS from the beginning."""

    def __init__(self, attempt: _Attempt, receiver: Email, tls: ssl.SSLContext) -> None:
        attempt.client = self
        super().__init__(receiver.host, receiver.port, timeout=_PATIENCE * receiver.timeout_s, context=tls)


def _why(error: Exception) -> str:
    """Return what is known without what the server said: that may repeat a password."""
    status = getattr(error, "smtp_code", None)
    return f"{type(error).__name__}, status {status}" if status else type(error).__name__
