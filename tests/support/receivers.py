"""Receivers of alerts for tests: HTTP servers that fail as real ones do, and a mail server with TLS."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.ports import LOOPBACK, ReservedPort

HANG, CUT = "hang", "cut"


class Received(NamedTuple):
    """One request."""

    path: str
    headers: dict[str, str]
    body: bytes


class HttpReceiver:
    """An HTTP server on a port of its own; `behaviour` is an HTTP status, `HANG` or `CUT`, and may change."""

    def __init__(
        self, behaviour: int | str = 200, *, location: str = "", certificate: Path | None = None
    ) -> None:
        self.behaviour = behaviour
        self.received: list[Received] = []
        self._over = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.received.append(Received(self.path, dict(self.headers), body))
                if receiver.behaviour == HANG:
                    receiver._over.wait(60.0)
                elif receiver.behaviour == CUT:
                    with contextlib.suppress(OSError):
                        self.connection.shutdown(socket.SHUT_RDWR)
                else:
                    self.send_response(int(receiver.behaviour))
                    if location:
                        self.send_header("Location", location)
                    self.send_header("Content-Length", "0")
                    self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
                """Say nothing."""

        self._server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
        self._server.daemon_threads = True
        self._scheme = "https" if certificate else "http"
        if certificate is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"{self._scheme}://{LOOPBACK}:{self._server.server_port}/alerts"

    def ids(self) -> list[str]:
        """Return the message id of each request."""
        return [request.headers["Muster-Message-Id"] for request in self.received]

    def close(self) -> None:
        """End it, and whatever hangs."""
        self._over.set()
        self._server.shutdown()
        self._server.server_close()


class MailServer:
    """A mail server that speaks STARTTLS and asks for a login."""

    def __init__(self, certificate: Path, *, password: str) -> None:
        self.envelopes: list[Envelope] = []
        self.logins: list[tuple[bytes, bytes]] = []
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)

        def login(
            server: Any, session: Any, envelope: Any, mechanism: str, data: LoginPassword
        ) -> AuthResult:
            self.logins.append((data.login, data.password))
            return AuthResult(success=data.password == password.encode())

        self._reserved = ReservedPort()
        self._controller = Controller(
            self,
            hostname=LOOPBACK,
            port=self._reserved.number,
            tls_context=context,
            authenticator=login,
            auth_required=True,
            require_starttls=True,
        )
        self._controller.start()

    async def handle_DATA(self, server: Any, session: Any, envelope: Envelope) -> str:  # noqa: N802 - its name
        """Take an e-mail."""
        self.envelopes.append(envelope)
        return "250 OK"

    @property
    def port(self) -> int:
        """Where it is."""
        return int(self._controller.port)

    def close(self) -> None:
        """End it."""
        self._controller.stop()


def self_signed(path: Path) -> Path:
    """Write key and certificate of a server on the loopback address, and return the path."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mail.test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(LOOPBACK))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path


@contextlib.contextmanager
def silent_server() -> Iterator[int]:
    """Listen on a port, and never say a word; gives the port."""
    with socket.create_server((LOOPBACK, 0)) as listener:
        yield listener.getsockname()[1]
