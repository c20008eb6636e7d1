"""Answers of the fast path, read from a bare socket."""

from __future__ import annotations

import socket

from agent.serving.fast_frames import HEADER, Header, unpack_header


def receive_frame(sock: socket.socket) -> tuple[Header, bytes]:
    """Return an answer's header and data."""
    header = unpack_header(_exactly(sock, HEADER.size))
    rest = _exactly(sock, header.head_bytes + header.data_bytes)
    return header, rest[header.head_bytes :]


def _exactly(sock: socket.socket, size_bytes: int) -> bytes:
    data = b""
    while len(data) < size_bytes:
        part = sock.recv(size_bytes - len(data))
        assert part, "the connection has ended"
        data += part
    return data
