"""Enrolment on the hub's side: one-time tokens in, members of the fleet out."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Awaitable, Callable

from fleet.protocol.enrolment import BrokerAccess, EnrolmentAnswer, EnrolmentRequest, EnrolmentToken
from fleet.protocol.errors import InvalidName
from fleet.protocol.names import checked_name
from fleet.protocol.topics import HUB_ACCOUNT
from hub.broker.accounts import hash_password, new_password
from hub.store.protocols import DeviceStore, TokenStore
from hub.store.rows import NewDevice


def secret_sha256(secret: str) -> str:
    """Return the hash under which a token's secret is stored.

    Tokens are 256 random bits, so that one round of SHA-256 is as strong as a slow password hash.
    """
    return hashlib.sha256(secret.encode()).hexdigest()


def issue_token(store: TokenStore, *, root_sha256: str, now_s: float, lifetime_s: float) -> EnrolmentToken:
    """Make a one-time token for one device.

    Args:
        store: Keeps the token's hash.
        root_sha256: Digest of the image repository's first root metadata.
        now_s: Unix time.
        lifetime_s: How long the token can be used.
    """
    token = EnrolmentToken(secrets.token_urlsafe(32), root_sha256)
    store.add_enrolment_token(
        secret_sha256(token.secret), created_at_s=now_s, expires_at_s=now_s + lifetime_s
    )
    return token


async def enrol(
    request: EnrolmentRequest,
    *,
    store: DeviceStore,
    root: bytes,
    broker: Callable[[str, str], BrokerAccess],
    update_accounts: Callable[[], Awaitable[None]],
    now_s: float,
) -> EnrolmentAnswer:
    """Make a device a member of the fleet.

    Args:
        request: What the device sent.
        store: Uses up the token and keeps the device, in one transaction.
        root: The image repository's first root metadata.
        broker: Gives the way to the broker for a user name and password.
        update_accounts: Tells the broker of the new account; returns when it is known there.
        now_s: Unix time.

    Raises:
        NotAuthenticated: The token is unknown, used or expired.
        Conflict: The name is taken.
        InvalidName: The name cannot be used.
    """
    device_id = checked_name(request.device_id, "device id")
    if device_id == HUB_ACCOUNT:
        raise InvalidName(f"{HUB_ACCOUNT!r} is the hub's own name.", remedy="Enrol under another name.")
    password = new_password()
    device = NewDevice(device_id, hash_password(password), request.attributes, request.capabilities)
    token_sha256 = secret_sha256(request.secret)
    await asyncio.to_thread(store.enrol, device, token_sha256=token_sha256, now_s=now_s)
    await update_accounts()
    return EnrolmentAnswer(device_id, broker(device_id, password), root)
