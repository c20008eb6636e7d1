"""One POST to a receiver: verified TLS, no redirects, nothing from the environment, and an end to waiting.

Of the answer only the status counts: its body is not read, so that no receiver can fill the hub's memory.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Mapping

import httpx

from fleet.protocol.errors import InvalidConfiguration, Unavailable

logging.getLogger("httpx").setLevel(logging.WARNING)
"""Below it logs whole addresses, and the address of a chat's webhook is its secret."""


class Poster:
    """Posts to one receiver.

    Args:
        url: Where to.
        timeout_s: For all of one POST.
        ca_file: Certificates that vouch for the receiver; empty for the system's.

    Raises:
        InvalidConfiguration: The certificates cannot be read, or the address is none.
    """

    def __init__(self, url: str, *, timeout_s: float, ca_file: str = "") -> None:
        self._url = url
        self._timeout_s = timeout_s
        try:
            self._client = httpx.AsyncClient(
                verify=tls_context(ca_file),
                timeout=timeout_s,
                follow_redirects=False,
                trust_env=False,
                limits=httpx.Limits(max_connections=2, max_keepalive_connections=0),
            )
            self._client.build_request("POST", url)
        except (httpx.InvalidURL, ValueError) as error:
            raise InvalidConfiguration("A receiver's address is none that can be posted to.") from error

    async def post(self, body: bytes, headers: Mapping[str, str]) -> None:
        """Post a body; any status of success is enough.

        Raises:
            Unavailable: It was not taken; says why, without what the receiver answered.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                async with self._client.stream(
                    "POST", self._url, content=body, headers={"Content-Type": "application/json", **headers}
                ) as response:
                    status = response.status_code
        except TimeoutError as error:
            raise Unavailable(f"The receiver did not answer within {self._timeout_s:g} s.") from error
        except (httpx.HTTPError, OSError) as error:
            raise Unavailable(f"The receiver cannot be reached ({type(error).__name__}).") from error
        if not 200 <= status < 300:
            raise Unavailable(f"The receiver answered with HTTP status {status}.")

    async def close(self) -> None:
        """Close its connections."""
        await self._client.aclose()


def tls_context(ca_file: str) -> ssl.SSLContext:
    """Return a context that verifies certificates and host names.

    Args:
        ca_file: Certificates that vouch for servers; empty for the system's.

    Raises:
        InvalidConfiguration: The file cannot be read.
    """
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except (OSError, ssl.SSLError) as error:
        raise InvalidConfiguration(f"{ca_file} holds no certificates that can be read.") from error
