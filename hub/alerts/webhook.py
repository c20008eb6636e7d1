"""Signed webhooks.

A message is the POST of a JSON body (`hub.alerts.messages.WebhookBody`) with the header::

    Muster-Signature: t=1700000000,v1=5257a869e7…

``t`` is when it was sent, in Unix seconds, and ``v1`` is HMAC-SHA256 (RFC 2104) of the ASCII text of ``t``, a
full stop and the body as it was sent, under the receiver's secret, in hexadecimal. The time is signed too, so
that who records a message cannot send it again later: receivers refuse what is older than some minutes. It is
the scheme of Stripe's webhooks; Standard Webhooks signs the same, and the message's id besides, in other
headers.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from pathlib import Path

from hub.alerts.messages import webhook_body
from hub.alerts.posting import Poster
from hub.alerts.receivers import Secret, Webhook
from hub.store.alert_rows import AlertMessage

SIGNATURE_HEADER = "Muster-Signature"
ID_HEADER = "Muster-Message-Id"


def signature(secret: Secret, body: bytes, now_s: float) -> str:
    """Return the signature of a body that is sent now, see the head of this file."""
    sent_at = str(int(now_s))
    code = hmac.new(secret.reveal().encode(), sent_at.encode() + b"." + body, hashlib.sha256)
    return f"t={sent_at},v1={code.hexdigest()}"


class WebhookSender:
    """Sends to one webhook.

    Args:
        receiver: Its settings.
        folder: At which relative paths of secrets begin.
        hub_url: Before links.

    Raises:
        InvalidConfiguration: A setting or the secret cannot be used.
    """

    most_at_once = 1
    gather_s = 0.0

    def __init__(self, receiver: Webhook, folder: Path, hub_url: str) -> None:
        self._secret = receiver.secret(folder)
        self._hub_url = hub_url
        self._poster = Poster(receiver.url, timeout_s=receiver.timeout_s, ca_file=receiver.ca_path(folder))

    async def send(self, messages: Sequence[AlertMessage], now_s: float) -> None:
        """Send a message; raises `Unavailable`."""
        (message,) = messages
        body = webhook_body(message, self._hub_url)
        headers = {SIGNATURE_HEADER: signature(self._secret, body, now_s), ID_HEADER: message.key}
        await self._poster.post(body, headers)

    async def close(self) -> None:
        """Close its connections."""
        await self._poster.close()
