"""Which account is at the other end of a local connection.

==========  ================================================================================================
Unix        ``SO_PEERCRED``: the account that connected (unix(7)).
loopback    The kernel's table of connections, ``/proc/net/tcp``, has a row for the other end too, with the
            account that made its socket (proc_net(5))::

                sl  local_address rem_address   st tx_queue:rx_queue tr:tm->when retrnsmt   uid …
                24: 0100007F:88A0 0100007F:8129 01 00000000:00000000 00:00000000 00000000  1000 …
==========  ================================================================================================

A socket that was closed belongs to nobody, which the table writes as 0, root's number. A row is read state
first, and a socket loses its owner only after it has left the state ESTABLISHED. So an owner counts if a
second look finds the state unchanged.
"""

from __future__ import annotations

import socket
import struct
from asyncio.trsock import TransportSocket
from pathlib import Path

from fleet.protocol.errors import NotPermitted

_CREDENTIALS = struct.Struct("iII")  # process, account, group: struct ucred
_MAPPED = f"{0:016X}{struct.unpack('=I', bytes((0, 0, 255, 255)))[0]:08X}"  # ::ffff:, of RFC 4291, 2.5.5.2
_CONNECTIONS = ((Path("/proc/net/tcp"), ""), (Path("/proc/net/tcp6"), _MAPPED))
"""The tables, and what stands before an IPv4 address there: an IPv6 socket can connect to one, too."""
_ESTABLISHED = "01"
_NOT_MAPPED = 65534
"""How every account looks that is not in this process's user namespace (user_namespaces(7))."""


class Caller:
    """The other end of one connection.

    Args:
        sock: This end.
    """

    def __init__(self, sock: socket.socket | TransportSocket) -> None:
        self._sock = sock
        self._account: int | None = None

    def account(self) -> int:
        """Return the number of its account.

        Raises:
            NotPermitted: It cannot be told.
        """
        if self._account is None:
            try:
                is_unix = self._sock.family == socket.AF_UNIX
                found = _of_unix(self._sock) if is_unix else _of_tcp(self._sock)
            except OSError:  # the connection has ended, or there are no tables
                found = None
            if found is None or found == _NOT_MAPPED:
                raise NotPermitted("It cannot be told which account asks.")
            self._account = found
        return self._account


def _of_unix(sock: socket.socket | TransportSocket) -> int:
    data = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    account: int = _CREDENTIALS.unpack(data)[1]
    return account


def _of_tcp(sock: socket.socket | TransportSocket) -> int | None:
    theirs, ours = _in_table(sock.getpeername()), _in_table(sock.getsockname())
    for path, prefix in _CONNECTIONS:
        ends = prefix + theirs, prefix + ours
        found = _owner(path, *ends)
        if found is not None:
            return found if _owner(path, *ends) is not None else None
    return None


def _in_table(address: tuple[str, int]) -> str:
    """Return an address as the table has it: in the processor's order of bytes."""
    (number,) = struct.unpack("=I", socket.inet_aton(address[0]))
    return f"{number:08X}:{address[1]:04X}"


def _owner(table: Path, local: str, remote: str) -> int | None:
    """Return the account that owns an established connection's socket; None if there is none such."""
    if not table.exists():  # no IPv6
        return None
    for line in table.read_text("ascii").splitlines()[1:]:
        fields = line.split()
        if fields[1:4] == [local, remote, _ESTABLISHED]:
            return int(fields[7])
    return None
