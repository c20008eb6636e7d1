"""The receivers that ``alerts.toml`` can name: their settings, and where their secrets are.

A secret is read when the hub starts, from a file or an environment variable. It is in no message, log line or
answer of the API: a `Secret` shows itself only to who asks for `reveal`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec

from fleet.protocol.errors import InvalidConfiguration
from fleet.protocol.names import Name

MAX_SECRET_BYTES = 64 * 1024

Url = Annotated[str, msgspec.Meta(pattern=r"\Ahttps?://[A-Za-z0-9.\-\[\]:]+(/[!-~]*)?\Z", max_length=2000)]
Address = Annotated[str, msgspec.Meta(pattern=r"\A[^\s@<>,;:\"()\[\]\\\x00-\x1f\x7f]+@[A-Za-z0-9.-]+\Z")]
Rate = Annotated[float, msgspec.Meta(ge=1.0, le=6000.0)]
Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Wait = Annotated[float, msgspec.Meta(ge=0.0, le=3600.0)]
Resend = Annotated[float, msgspec.Meta(ge=0.5, le=3600.0)]
Timeout = Annotated[float, msgspec.Meta(ge=0.1, le=60.0)]


class Secret:
    """A secret that does not show itself.

    Args:
        value: It.
    """

    def __init__(self, value: str) -> None:
        self._value = value

    def __repr__(self) -> str:
        return "Secret(…)"

    def reveal(self) -> str:
        """Return it."""
        return self._value


class _AnyReceiver(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind"):
    """What every receiver has.

    Attributes:
        name: Its name.
        most_per_minute: How many messages it is sent in a minute at most.
        timeout_s: How long one message may take.
        ca_file: Certificates that vouch for it, in place of the system's; empty for the system's.
    """

    name: Name
    most_per_minute: Rate = 30.0
    timeout_s: Timeout = 10.0
    ca_file: str = ""

    @property
    def kind(self) -> str:
        """What kind of receiver it is, as the file says it."""
        return str(self.__struct_config__.tag)

    def ca_path(self, folder: Path) -> str:
        """Return where ``ca_file`` is, args like `read_secret`; empty for the system's certificates."""
        return str(folder / self.ca_file) if self.ca_file else ""

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """Yield what its settings cannot mean together, with the setting at which to look."""
        yield from ()


class Webhook(_AnyReceiver, frozen=True, tag="webhook"):
    """A program that takes signed JSON by HTTP.

    Attributes:
        url: Where to.
        secret_file: File with the key of the signatures,
        secret_env: or environment variable with it.
    """

    url: Url
    secret_file: str = ""
    secret_env: str = ""

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """Yield what cannot be: no secret, or two."""
        yield from _one_of(self.secret_file, "secret_file", self.secret_env, "secret_env", needed=True)

    def secret(self, folder: Path) -> Secret:
        """Return the key; raises `InvalidConfiguration` if there is none."""
        secret = read_secret(self.name, folder, self.secret_file, self.secret_env)
        if secret is None or len(secret.reveal()) < 16:
            raise InvalidConfiguration(
                f"The secret of the receiver {self.name} is shorter than 16 characters.",
                remedy="Make one, for example with `openssl rand -hex 32`.",
            )
        return secret


class Alertmanager(_AnyReceiver, frozen=True, tag="alertmanager"):
    """A Prometheus Alertmanager, or what takes its posts.

    Attributes:
        url: Of it, without ``/api/v2/alerts``.
        token_file: File with a bearer token,
        token_env: or environment variable with it.
        resend_interval_s: How often it is told again of what goes on: it forgets what it does not hear of.
    """

    url: Url
    token_file: str = ""
    token_env: str = ""
    resend_interval_s: Resend = 60.0

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """Yield what cannot be: two tokens."""
        yield from _one_of(self.token_file, "token_file", self.token_env, "token_env", needed=False)

    def token(self, folder: Path) -> Secret | None:
        """Return the token; None for none."""
        return read_secret(self.name, folder, self.token_file, self.token_env)


class Email(_AnyReceiver, frozen=True, tag="email"):
    """People, by e-mail.

    Attributes:
        host: The mail server,
        port: and its port.
        security: ``starttls``, ``tls`` from the beginning, or ``none``.
        username: To log in with; empty for not at all.
        password_file: File with the password,
        password_env: or environment variable with it.
        sender: Address that it comes from.
        to: Addresses that it goes to.
        digest_s: How long messages are gathered into one e-mail.
    """

    host: Annotated[str, msgspec.Meta(pattern=r"\A[A-Za-z0-9.:-]+\Z", max_length=253)]
    sender: Address
    to: Annotated[tuple[Address, ...], msgspec.Meta(min_length=1, max_length=100)]
    port: Port = 587
    security: Annotated[str, msgspec.Meta(pattern=r"\A(starttls|tls|none)\Z")] = "starttls"
    username: str = ""
    password_file: str = ""
    password_env: str = ""
    digest_s: Wait = 30.0

    def contradictions(self) -> Iterator[tuple[str, str]]:
        """Yield what cannot be: a password without a user, in the clear, or two of them."""
        yield from _one_of(
            self.password_file, "password_file", self.password_env, "password_env", needed=bool(self.username)
        )
        if (self.password_file or self.password_env) and not self.username:
            yield "username", "A password needs a username."
        if self.username and self.security == "none":
            yield "security", "A password is never sent in the clear: use starttls or tls."

    def password(self, folder: Path) -> Secret | None:
        """Return the password; None if there is no user."""
        return read_secret(self.name, folder, self.password_file, self.password_env)


Receiver = Webhook | Alertmanager | Email


def read_secret(receiver: str, folder: Path, file: str, variable: str) -> Secret | None:
    """Return the secret in a file or an environment variable, without space around it; None for neither.

    Args:
        receiver: Whose.
        folder: At which a relative path begins.
        file: Path of the file; empty for none.
        variable: Name of the variable; empty for none.

    Raises:
        InvalidConfiguration: It cannot be read, or is none.
    """
    if not file and not variable:
        return None
    if variable:
        value, where = os.environ.get(variable, ""), f"the environment variable {variable}"
    else:
        where = file
        try:
            with (folder / file).open("rb") as stream:
                value = stream.read(MAX_SECRET_BYTES + 1).decode()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidConfiguration(
                f"The secret of the receiver {receiver} cannot be read from {where}."
            ) from error
    value = value.strip()
    if not value or len(value) > MAX_SECRET_BYTES or not value.isprintable() or not value.isascii():
        raise InvalidConfiguration(
            f"There is no secret for the receiver {receiver} in {where}.",
            remedy="It is one line of printable ASCII characters.",
        )
    return Secret(value)


def _one_of(
    first: str, first_key: str, second: str, second_key: str, *, needed: bool
) -> Iterator[tuple[str, str]]:
    if first and second:
        yield second_key, f"{first_key} and {second_key} are two secrets; keep one."
    if needed and not first and not second:
        yield "name", f"It needs {first_key} or {second_key}."
