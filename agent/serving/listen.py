"""Where the local API listens: a Unix socket, and if it is set a TCP port on loopback.

The Unix socket's permissions say who may connect. A port on loopback has none: every user of the device may
connect, and so may every web page that a browser there shows. A page gives itself away, so it is refused: its
requests carry ``Origin``, or, where a foreign name was made to resolve to loopback (DNS rebinding), that name
as ``Host``.
"""

from __future__ import annotations

import errno
import socket
import stat
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from fleet.protocol.errors import Conflict, InvalidConfiguration, NotPermitted

LOOPBACK = "127.0.0.1"
_MAX_PATH_LENGTH = 107


def check_path(path: Path) -> None:
    """Check that a Unix socket can be made; one whose process is dead may be in its place.

    Raises:
        Conflict: A living process listens there.
        InvalidConfiguration: The path cannot be a socket.
    """
    if len(str(path).encode()) > _MAX_PATH_LENGTH:
        raise InvalidConfiguration(
            f"The socket's path has more than {_MAX_PATH_LENGTH} bytes.", remedy="Set a shorter socket_path."
        )
    if not path.exists():
        return
    if not stat.S_ISSOCK(path.stat().st_mode):
        raise InvalidConfiguration(f"{path} exists and is no socket.", remedy="Set another socket_path.")
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:  # nobody listens: its process is dead
            return
    raise Conflict(f"Another process listens on {path}.", remedy="Stop it, or set another socket_path.")


def unix_socket(path: Path) -> socket.socket:
    """Return a socket bound to a path of the file system, in place of what a dead process left there.

    Args:
        path: As `check_path` has found it good.
    """
    bound = socket.socket(socket.AF_UNIX)
    try:
        path.unlink(missing_ok=True)
        bound.bind(str(path))
    except OSError:
        bound.close()
        raise
    return bound


def loopback_socket(port: int) -> socket.socket:
    """Return a socket bound to a port on loopback.

    Raises:
        Conflict: Another process listens there.
        InvalidConfiguration: The port cannot be used.
    """
    bound = socket.socket(socket.AF_INET)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((LOOPBACK, port))
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            raise Conflict(
                f"Another process listens on {LOOPBACK}:{port}.", remedy="Stop it, or set another tcp_port."
            ) from error
        raise InvalidConfiguration(
            f"Port {port} cannot be used: {error.strerror}.", remedy="Set another tcp_port."
        ) from error
    return bound


def check_caller(headers: Mapping[str, str]) -> None:
    """Refuse a request over TCP that a web page may have caused.

    Args:
        headers: Of the request, names in lower case.

    Raises:
        NotPermitted: It may be one.
    """
    try:
        host = urlsplit(f"//{headers.get('host', '')}").hostname
    except ValueError:
        host = None
    if host not in {LOOPBACK, "localhost"} or "origin" in headers:
        raise NotPermitted(
            "Web pages may not use the local API.", remedy=f"Address it as {LOOPBACK}, without Origin."
        )
