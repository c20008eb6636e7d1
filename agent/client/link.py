"""A client's end of the fast path: one connection, one exchange of frames at a time.

What the frames mean is `agent.client`'s concern; how they are laid out, `agent.serving.fast_frames`'s.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from agent.serving.fast_frames import (
    ANSWER,
    ERROR,
    HEADER,
    MAGIC,
    Header,
    Kind,
    unpack_error,
    unpack_header,
)
from fleet.protocol.errors import InvalidMessage, Unavailable

COPIED_BYTES = 16 * 1024  # up to here joining costs less than a call with several parts
_FIRST_GUESS_BYTES = 4096
_TIMEVAL = struct.Struct("@ll")

Part = bytes | memoryview


class LinkClosed(Exception):
    """The agent has closed the connection before it began to answer."""


class FastLink:
    """A connection to the agent.

    Args:
        path: Of the fast path's socket.
        timeout_s: How long the agent may take for an answer.

    Raises:
        Unavailable: No agent listens there.
    """

    def __init__(self, path: Path, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._request_id = 0
        self._guess_bytes = _FIRST_GUESS_BYTES  # how long the next answer may be: as long as the last
        self._sock = socket.socket(socket.AF_UNIX)
        try:
            self._sock.connect(str(path))
        except OSError as error:
            self._sock.close()
            raise Unavailable(
                f"No agent answers on {path}: {error.strerror}.",
                remedy="Is it running, with its fast path switched on? May you use it?",
            ) from error
        seconds = int(timeout_s)
        given = _TIMEVAL.pack(seconds, int((timeout_s - seconds) * 1e6))
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            self._sock.setsockopt(socket.SOL_SOCKET, option, given)

    def close(self) -> None:
        """End the connection."""
        self._sock.close()

    def exchange(
        self,
        kind: Kind,
        head: bytes = b"",
        parts: Sequence[Part] = (),
        *,
        data_bytes: int = 0,
        handle: int = 0,
        version: int = 0,
        prediction_id: int = 0,
    ) -> tuple[Header, bytearray]:
        """Send a request and return its answer: the header, and the whole frame.

        Args:
            kind: What is asked for.
            head: Describes the tensors.
            parts: The data.
            data_bytes: Its size.
            handle: Of a model, or a region.
            version: That is asked for; 0 for any.
            prediction_id: Of feedback.

        Raises:
            LinkClosed: The connection was closed before an answer came; nothing can be asked any more.
            Unavailable: The agent did not answer in time; nothing can be asked any more.
            MusterError: What the agent answered.
        """
        self._request_id = request_id = (self._request_id + 1) & 0xFFFFFFFF
        header = HEADER.pack(
            MAGIC, kind, 0, handle, request_id, version, len(head), data_bytes, prediction_id
        )
        try:
            self._send(header + head, parts, data_bytes)
            answer, frame = self._receive()
        except BlockingIOError as error:
            self.close()
            raise Unavailable(f"The agent did not answer in {self._timeout_s:g} s.") from error
        if answer.status == ERROR:
            raise unpack_error(bytes(frame[HEADER.size + answer.head_bytes :]))
        if (answer.request_id, answer.kind) != (request_id, kind | ANSWER):
            self.close()
            raise InvalidMessage("The agent answered another request.")
        return answer, frame

    def share(self, descriptor: int) -> int:
        """Pass a file in memory to the agent; return its number in this connection.

        Raises:
            MusterError: As `exchange`.
        """
        self.exchange(Kind.SHARE)
        with suppress(BrokenPipeError):  # the answer tells
            socket.send_fds(self._sock, [b"\0"], [descriptor])
        answer, frame = self._receive()
        if answer.status == ERROR:
            raise unpack_error(bytes(frame[HEADER.size + answer.head_bytes :]))
        return answer.handle

    def _send(self, prefix: bytes, parts: Sequence[Part], data_bytes: int) -> None:
        try:
            if data_bytes <= COPIED_BYTES:
                self._sock.sendall(b"".join((prefix, *parts)) if parts else prefix)
                return
            size_bytes = len(prefix) + data_bytes
            whole = [prefix, *parts]
            if (sent := self._sock.sendmsg(whole)) < size_bytes:  # a signal has ended it
                self._sock.sendall(memoryview(b"".join(whole))[sent:])
        except (BrokenPipeError, ConnectionResetError):
            pass  # the agent may have said why, before it hung up

    def _receive(self) -> tuple[Header, bytearray]:
        """Return an answer and its header."""
        frame = bytearray(self._guess_bytes)
        try:
            filled = self._sock.recv_into(frame)
        except ConnectionResetError as error:
            raise LinkClosed from error
        if filled == 0:
            raise LinkClosed
        while filled < HEADER.size:
            filled += self._more(memoryview(frame)[filled:])
        header = unpack_header(frame)
        size_bytes = HEADER.size + header.head_bytes + header.data_bytes
        self._guess_bytes = max(size_bytes, HEADER.size)
        if filled > size_bytes:
            raise InvalidMessage("The agent sent more than an answer.")
        if len(frame) != size_bytes:
            received, frame = frame, bytearray(size_bytes)
            frame[:filled] = memoryview(received)[:filled]
        while filled < size_bytes:
            filled += self._more(memoryview(frame)[filled:])
        return header, frame

    def _more(self, room: memoryview) -> int:
        try:
            got = self._sock.recv_into(room, 0, socket.MSG_WAITALL)
        except ConnectionResetError:
            got = 0
        if got == 0:
            self.close()
            raise Unavailable("The agent ended within an answer.")
        return got
