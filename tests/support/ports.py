"""Ports of this machine that nobody else gets while a test needs them."""

from __future__ import annotations

import socket
import weakref

LOOPBACK = "127.0.0.1"


class ReservedPort:
    """A TCP port on loopback, kept as long as this object lives, also while nobody listens there.

    A socket is bound to it that does not listen. Linux gives such a port to nobody who asks for any port or
    connects to somewhere; a server that asks for it by number, with ``SO_REUSEADDR`` as servers do, gets it.

    Attributes:
        number: The port.
    """

    def __init__(self) -> None:
        keeper = socket.socket()
        weakref.finalize(self, keeper.close)
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        keeper.bind((LOOPBACK, 0))
        self.number = int(keeper.getsockname()[1])
