"""Frames on a connection's socket: read whole into one buffer, and written; how long a peer may take for it.

Everything blocks. How long is a property of the socket (``SO_RCVTIMEO``, ``SO_SNDTIMEO``), which costs no
further system call: one reads a small request, one writes its answer.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

from agent.serving.fast_frames import (
    ANSWER,
    ERROR,
    GOOD,
    HEADER,
    MAGIC,
    MAX_HEAD_BYTES,
    Header,
    pack_error,
    unpack_header,
)
from agent.serving.fast_plan import COPIED_BYTES, Part
from fleet.protocol.errors import MessageTooLarge, MusterError

BUFFER_BYTES = 64 * 1024
"""What a connection has at first, and again when its client has been quiet for a while."""
STALL_S = 10.0
"""How long a peer may neither send the rest of a frame nor take an answer."""
_TIMEVAL = struct.Struct("@ll")


class Ended(Exception):
    """The peer is gone, or nobody can tell where its next frame begins."""


class FrameStream:
    """The agent's end of one connection.

    Args:
        sock: The socket, which the caller closes.
        limit_bytes: Largest data of a request.
        on_other_buffer: Told when requests are read into another buffer from now on.
    """

    def __init__(self, sock: socket.socket, limit_bytes: int, on_other_buffer: Callable[[], None]) -> None:
        sock.settimeout(None)
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            sock.setsockopt(socket.SOL_SOCKET, option, _TIMEVAL.pack(int(STALL_S), 0))
        self.buffer = bytearray(BUFFER_BYTES)
        """Where requests are read; the present one is at its beginning."""
        self.filled = 0
        """How much of the buffer has been received."""
        self._sock = sock
        self._limit_bytes = limit_bytes
        self._on_other_buffer = on_other_buffer
        self._sending = threading.Lock()
        self._is_given_up = False

    def give_up(self, header: Header, error: MusterError, is_held_up: Callable[[], bool]) -> None:
        """Answer a request for the thread that it holds up, and cut the connection. For other threads.

        Args:
            header: Of the request.
            error: What to answer.
            is_held_up: Whether the thread still is; asked when it can answer no more.
        """
        if not self._sending.acquire(blocking=False):
            return
        try:
            if not is_held_up():
                return
            self._is_given_up = True
            data = pack_error(error)
            answer = Header(header.kind | ANSWER, ERROR, 0, header.request_id, data_bytes=len(data))
            with suppress(OSError):
                self._sock.send(answer.pack() + data, socket.MSG_DONTWAIT)
                self._sock.shutdown(socket.SHUT_RDWR)
        finally:
            self._sending.release()

    def next_frame(self) -> Header:
        """Return the next frame's header when all of the frame is at the beginning of the buffer."""
        self.fill(HEADER.size)
        try:
            header = unpack_header(self.buffer)
            size_bytes = HEADER.size + header.head_bytes + header.data_bytes
            if header.head_bytes > MAX_HEAD_BYTES or header.data_bytes > self._limit_bytes:
                raise MessageTooLarge(
                    f"The request has {header.head_bytes} and {header.data_bytes} bytes; "
                    f"{MAX_HEAD_BYTES} and {self._limit_bytes} are the most."
                )
        except MusterError as error:
            self.send_error(Header(0), error)
            raise Ended(str(error)) from error
        if size_bytes > self.filled:
            if size_bytes > len(self.buffer):
                self._resize(size_bytes)
            self.fill(size_bytes)
        return header

    def receive(self) -> None:
        """Wait until something is in the buffer."""
        while self.filled == 0:
            try:
                self.filled = self._sock.recv_into(self.buffer)
            except BlockingIOError:  # a quiet client
                if len(self.buffer) > BUFFER_BYTES:
                    self._resize(BUFFER_BYTES)
                continue
            if self.filled == 0:
                raise Ended("The client has closed it.")

    def fill(self, wanted_bytes: int) -> None:
        """Read until the buffer has so many bytes; more if they are there already."""
        self.receive()
        stalled_s = None
        while self.filled < wanted_bytes:
            rest = memoryview(self.buffer)[self.filled : wanted_bytes]
            got = self._sock.recv_into(rest, 0, socket.MSG_WAITALL)  # a stall raises BlockingIOError
            if got == 0:
                raise Ended("The client has closed it within a frame.")
            self.filled += got
            stalled_s = stalled_s or time.monotonic() + STALL_S
            if self.filled < wanted_bytes and time.monotonic() > stalled_s:
                raise Ended("The client sends too slowly.")

    def _resize(self, size_bytes: int) -> None:
        buffer = bytearray(size_bytes)
        buffer[: self.filled] = memoryview(self.buffer)[: self.filled]
        self.buffer = buffer
        self._on_other_buffer()

    def drop(self, size_bytes: int) -> None:
        """Forget a frame; what a client has sent already after it comes to the beginning."""
        rest = self.filled - size_bytes
        if rest:
            self.buffer[:rest] = self.buffer[size_bytes : self.filled]
        self.filled = rest

    def send_error(self, header: Header, error: MusterError) -> None:
        """Answer a request with an error."""
        data = pack_error(error)
        self.send(header, parts=[data], data_bytes=len(data), status=ERROR)

    def send(
        self,
        header: Header,
        head: bytes = b"",
        parts: Iterable[Part] = (),
        *,
        data_bytes: int = 0,
        status: int = GOOD,
        handle: int = 0,
        version: int = 0,
        prediction_id: int = 0,
    ) -> None:
        """Send the answer to a request."""
        answer = HEADER.pack(
            MAGIC,
            header.kind | ANSWER,
            status,
            handle,
            header.request_id,
            version,
            len(head),
            data_bytes,
            prediction_id,
        )
        self.send_frame((answer, head, *parts), data_bytes)

    def send_frame(self, parts: Sequence[Part], data_bytes: int) -> None:
        """Send an answer.

        Args:
            parts: The whole frame.
            data_bytes: Size of its data.
        """
        with self._sending:
            if self._is_given_up:
                raise Ended("The request was given up.")
            if data_bytes <= COPIED_BYTES:
                data = b"".join(parts)
                if (sent := self._sock.send(data)) < len(data):
                    self._send_rest(data, sent)
            elif (sent := self._sock.sendmsg(parts)) < sum(map(len, parts)):
                self._send_rest(b"".join(parts), sent)

    def _send_rest(self, data: bytes, sent: int) -> None:
        """Go on where a signal, or a client that does not read, has ended the sending."""
        end_s = time.monotonic() + STALL_S
        while sent < len(data):
            if time.monotonic() > end_s:
                raise Ended("The client does not take its answer.")
            sent += self._sock.send(memoryview(data)[sent:])
