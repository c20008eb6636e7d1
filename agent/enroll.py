"""Enrolment: how this device becomes a member of the fleet, once (see `fleet.protocol.enrolment`).

Everything that can be checked is checked before the one-time token is spent, and the hub's answer is checked
against the token before anything of it is written.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

import msgspec
import urllib3

from agent import capabilities, durable
from agent.identity import Identity, is_enrolled, write_identity
from agent.settings import parse_settings, read_given, write_settings
from fleet.protocol.enrolment import (
    ENROL_PATH,
    MAX_ENROLMENT_SIZE_BYTES,
    EnrolmentAnswer,
    EnrolmentRequest,
    check_root,
    parse_token,
)
from fleet.protocol.errors import (
    Conflict,
    HubUnavailable,
    InvalidConfiguration,
    InvalidMessage,
    MessageTooLarge,
    NotAuthenticated,
    StorageError,
)
from fleet.protocol.names import checked_name

TIMEOUT_S = 30.0


def enroll(
    state: Path,
    *,
    hub_url: str,
    device_id: str,
    token_text: str,
    attributes: dict[str, str],
    settings: dict[str, Any],
) -> Identity:
    """Enrol a device and write its state folder.

    Args:
        state: The folder to create or fill; it must not be enrolled.
        hub_url: ``http://host:port`` of the hub's API.
        device_id: The name to ask for.
        token_text: The one-time token as the operator was given it.
        attributes: What operators select the device by.
        settings: Settings that differ from those that stand in the folder already, and from the defaults.

    Raises:
        Conflict: The folder is enrolled already, or the hub has a device of that name.
        InvalidInput: A name, the token, the address or a setting cannot be used.
        NotAuthenticated: The hub does not accept the token.
        HubUnavailable: The hub does not answer.
        DigestMismatch: The hub's root metadata is not what the token promises; nothing was written.
        StorageError: The state folder cannot be written.
    """
    token = parse_token(token_text)
    settings = {**read_given(state), **settings}
    parse_settings(settings)
    host = _host(hub_url)
    _prepare(state)
    request = EnrolmentRequest(
        secret=token.secret,
        device_id=checked_name(device_id, "device id"),
        capabilities=capabilities.measure(state),
        attributes={checked_name(name, "attribute name"): value for name, value in attributes.items()},
    )
    answer = _ask(hub_url, request)
    check_root(answer, token)
    broker = answer.broker
    if not broker.host:
        broker = msgspec.structs.replace(broker, host=host)
    identity = Identity(device_id=answer.device_id, hub_url=hub_url, broker=broker, root=answer.root)
    write_settings(state, settings)
    write_identity(state, identity)
    return identity


def _host(hub_url: str) -> str:
    try:
        parts = urlsplit(hub_url)
        host = parts.hostname
    except ValueError:
        host = None
    if not host or parts.scheme not in {"http", "https"}:
        raise InvalidConfiguration(
            f"{hub_url!r:.120} is not a hub's address.", remedy="Give one such as http://hub.example:8080."
        )
    return host


def _prepare(state: Path) -> None:
    """Make sure that the state can be written before the token is spent."""
    durable.make_folder(state)
    if is_enrolled(state):
        raise Conflict(
            f"{state} belongs to a device that is enrolled already.",
            remedy="Use another folder, or remove this one to give up the device's identity.",
        )
    if not os.access(state, os.W_OK | os.X_OK):
        raise StorageError(f"{state} cannot be written to.")


def _ask(hub_url: str, request: EnrolmentRequest) -> EnrolmentAnswer:
    url = hub_url.rstrip("/") + ENROL_PATH
    timeout = urllib3.Timeout(connect=TIMEOUT_S, read=TIMEOUT_S)
    with urllib3.PoolManager(retries=False, timeout=timeout) as pool:
        try:
            # A redirect would carry the secret elsewhere: it is an answer like any other, and refused below.
            response = pool.request(
                "POST",
                url,
                body=msgspec.json.encode(request),
                headers={"content-type": "application/json"},
                preload_content=False,
                redirect=False,
            )
            body = response.read(MAX_ENROLMENT_SIZE_BYTES + 1, decode_content=False)
            response.release_conn()
        except urllib3.exceptions.HTTPError as error:
            raise HubUnavailable(
                f"The hub at {hub_url} does not answer.", remedy="Check the address and that the hub runs."
            ) from error
    if len(body) > MAX_ENROLMENT_SIZE_BYTES:
        raise MessageTooLarge(f"The hub's answer is larger than {MAX_ENROLMENT_SIZE_BYTES} bytes.")
    if response.status not in {200, 201}:
        _refused(response.status, body, request.device_id)
    try:
        return msgspec.json.decode(body, type=EnrolmentAnswer)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidMessage("The hub's answer cannot be understood.") from error


class _Problem(msgspec.Struct):
    """What is used of an RFC 9457 problem document."""

    detail: str = ""


def _refused(status: int, body: bytes, device_id: str) -> NoReturn:
    try:
        said = msgspec.json.decode(body, type=_Problem).detail[:300]
    except (msgspec.DecodeError, UnicodeDecodeError):
        said = ""
    if status in {401, 403}:
        raise NotAuthenticated(
            said or "The hub does not accept the enrolment token.",
            remedy="A token works once and for a limited time; get a new one with `muster device token`.",
        )
    if status == 409:
        raise Conflict(said or f"The hub has a device {device_id!r} already.", remedy="Choose another id.")
    if 400 <= status < 500:
        raise InvalidConfiguration(said or f"The hub refused the request with status {status}.")
    raise HubUnavailable(f"The hub answered with status {status}. {said}".rstrip())
