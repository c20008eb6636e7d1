"""Asks a broker whether it lets an account in: one MQTT 3.1.1 handshake, by hand.

::

    CONNECT    10 len  00 04 'MQTT'  04  C2  00 05  client id  user name  password    (each with its length)
    CONNACK    20 02  00  code                                                        code 0: accepted
    DISCONNECT E0 00
"""

from __future__ import annotations

import asyncio
import struct
from contextlib import suppress

_USERNAME_PASSWORD_CLEAN = 0xC2
_KEEP_ALIVE_S = 5
_ACCEPTED = b"\x20\x02\x00\x00"


async def lets_in(host: str, port: int, username: str, password: str, timeout_s: float = 2.0) -> bool:
    """Tell whether a broker answers there and accepts the account.

    Args:
        host: Name or address.
        port: TCP port.
        username: Account, and client id; both short.
        password: Its password.
        timeout_s: How long to wait for the answer.
    """
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(_connect_packet(username, password))
            accepted = await reader.readexactly(len(_ACCEPTED)) == _ACCEPTED
            writer.write(b"\xe0\x00")
            return accepted
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return False
    finally:
        if writer is not None:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


def _connect_packet(username: str, password: str) -> bytes:
    header = b"\x00\x04MQTT\x04" + struct.pack(">BH", _USERNAME_PASSWORD_CLEAN, _KEEP_ALIVE_S)
    texts = (text.encode() for text in (username, username, password))
    body = header + b"".join(struct.pack(">H", len(text)) + text for text in texts)
    if len(body) > 127:
        raise ValueError("The account's name and password do not fit a short packet.")
    return bytes((0x10, len(body))) + body
