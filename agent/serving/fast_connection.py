"""One connection of the fast path: a thread that reads a request, has it answered, writes the answer.

Everything blocks, so that nothing stands between a request and its answer: no event loop, no hand-over.

A request in a frame that can be told from the next is answered with an error, and the conversation goes on.
Where it cannot be told what comes next, the connection ends after the error.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from agent.hosting import Answer, Host, Hosted
from agent.log import unexpected_failure
from agent.runtimes.protocol import Tensors
from agent.serving.fast_frames import (
    HEADER,
    Described,
    Header,
    Kind,
    Place,
    pack_head,
)
from agent.serving.fast_plan import Plan, plan_request, read_labels
from agent.serving.fast_regions import Regions
from agent.serving.fast_stream import Ended, FrameStream
from fleet.protocol.errors import InferenceTimedOut, InvalidMessage, MessageTooLarge, MusterError, NotFound
from fleet.protocol.manifest import Signature

log = logging.getLogger(__name__)

MAX_OPENED = 256
MAX_PLANS = 64
_LABELLED = struct.Struct("<II")
_REGION_SIZE = struct.Struct("<Q")


class Services(NamedTuple):
    """What connections have in common; any thread may call it.

    Attributes:
        host: The models that answer.
        answering: Returns what answers for a model and a version (0: any), or raises why nothing does.
        remember: Remembers an answer; returns the id to label it by, None if it cannot be labelled.
        label: Counts the labels of a prediction of a model (None: of any); returns how many were counted and
            how many of them agree.
        take_window: Keeps for the hub what another process counted: the data of a request of `Kind.WINDOW`.
        limit_bytes: Largest data of a request, and largest region.
    """

    host: Host
    answering: Callable[[str, int], Hosted]
    remember: Callable[[str, Answer, tuple[str, ...]], int | None]
    label: Callable[[str | None, int, list[int | str]], tuple[int, int]]
    take_window: Callable[[bytes], None]
    limit_bytes: int


class _Opened:
    """A model that a client has opened, and the plans of its requests to the version that answers."""

    def __init__(self, model: str) -> None:
        self.model = model
        self._plans: dict[bytes, Plan] = {}
        self._release: object = None
        self._last: tuple[bytes, Plan] | None = None

    def plan(self, hosted: Hosted, header: Header, buffer: bytearray, regions: Regions) -> Plan:
        """Return the plan of a request: that of the last one, if it looks the same."""
        if self._release is not hosted.release:  # another version, perhaps with another signature
            self.forget_plans()
            self._release = hosted.release
        if self._last is not None:
            head, plan = self._last
            if (
                len(head) == header.head_bytes
                and plan.data_bytes == header.data_bytes
                and buffer.startswith(head, HEADER.size)
            ):
                return plan
        head = bytes(memoryview(buffer)[HEADER.size : HEADER.size + header.head_bytes])
        found = self._plans.get(head)
        if found is None or found.data_bytes != header.data_bytes:
            found = plan_request(head, header.data_bytes, hosted.manifest.signature, regions)
            if len(self._plans) >= MAX_PLANS:  # of shapes that change all the time
                self._plans.clear()
            self._plans[head] = found
        self._last = (head, found)
        return found

    def forget_plans(self) -> None:
        """Forget them: they may be of another version, or of regions that are no more."""
        self._plans.clear()
        self._last = None


class Connection:
    """One client.

    Args:
        sock: Its socket, which the connection closes.
        services: What answers.
    """

    def __init__(self, sock: socket.socket, services: Services) -> None:
        self._sock = sock
        self._services = services
        self._stream = FrameStream(sock, services.limit_bytes, self._forget_plans)
        self._opened: list[_Opened] = []
        self._regions = Regions(services.limit_bytes)
        self._asked: tuple[float, Hosted, Header] | None = None  # since when who computes what

    def serve(self) -> None:
        """Answer requests until either side ends the connection."""
        try:
            while True:
                header = self._stream.next_frame()
                self._respond(header)
                self._stream.drop(HEADER.size + header.head_bytes + header.data_bytes)
        except (Ended, OSError) as error:
            log.debug("A connection of the fast path ended: %s", error)
        finally:
            self._regions.clear()
            self._sock.close()

    def stop(self) -> None:
        """Read no more; what has come is still answered. For other threads."""
        with suppress(OSError):  # it has ended
            self._sock.shutdown(socket.SHUT_RD)

    def cut(self) -> None:
        """End the connection, whatever it does. For other threads."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def give_up_late(self, limit_s: float) -> None:
        """Count a run of the model that hangs as failed, tell the client, cut the connection.

        For other threads: this one is held up.

        Args:
            limit_s: How long an answer may take, with the wait for its turn.
        """
        asked = self._asked
        if asked is None:
            return
        since_s, hosted, header = asked
        hosted.tell_late_run()
        if time.monotonic() - since_s > limit_s:
            late = InferenceTimedOut("The model did not answer in time.")
            self._stream.give_up(header, late, lambda: self._asked is asked)

    def _data(self, header: Header) -> bytes:
        start = HEADER.size + header.head_bytes
        return bytes(memoryview(self._stream.buffer)[start : start + header.data_bytes])

    def _head(self, header: Header) -> bytes:
        return bytes(memoryview(self._stream.buffer)[HEADER.size : HEADER.size + header.head_bytes])

    def _respond(self, header: Header) -> None:
        """Answer a request; every failure is an answer too."""
        try:
            match header.kind:
                case Kind.INFER:
                    self._infer(header)
                case Kind.OPEN:
                    self._open(header)
                case Kind.FEEDBACK:
                    self._label(header)
                case Kind.SHARE:
                    self._share(header)
                case Kind.UNSHARE:
                    self._regions.give_back(header.handle)
                    self._forget_plans()
                    self._stream.send(header)
                case Kind.WINDOW:
                    self._services.take_window(self._data(header))
                    self._stream.send(header)
                case unknown:
                    self._stream.send_error(header, InvalidMessage(f"There is no request of kind {unknown}."))
        except MusterError as error:
            self._stream.send_error(header, error)
        except (Ended, OSError):
            raise
        except Exception:
            log.exception("A request on the fast path failed unexpectedly.")
            self._stream.send_error(header, unexpected_failure())

    def _infer(self, header: Header) -> None:
        opened = self._model(header.handle)
        services = self._services
        hosted = services.host.get(opened.model)
        if hosted is None or (header.version and header.version != hosted.release.version):
            hosted = services.answering(opened.model, header.version)
        plan = opened.plan(hosted, header, self._stream.buffer, self._regions)
        inputs = plan.read(self._stream.buffer, HEADER.size + header.head_bytes)
        self._asked = (time.monotonic(), hosted, header)
        try:
            answer = hosted.answer_now(inputs)
        finally:
            self._asked = None
        if plan.reads_regions:  # once the client has its answer, and where an output lies, they are others
            _count(hosted, inputs, answer)
        try:
            head, parts, size_bytes = plan.write(answer.outputs)
            number = services.remember(opened.model, answer, hosted.manifest.signature.classes) or 0
            self._stream.send(
                header, head, parts, data_bytes=size_bytes, version=answer.version, prediction_id=number
            )
        finally:
            if not plan.reads_regions:
                _count(hosted, inputs, answer)  # the client need not wait for it

    def _open(self, header: Header) -> None:
        try:
            model = self._data(header).decode()
        except UnicodeDecodeError as error:
            raise InvalidMessage("The model's name is not UTF-8.") from error
        hosted = self._services.answering(model, header.version)
        number = next((n for n, opened in enumerate(self._opened) if opened.model == model), None)
        if number is None:
            if len(self._opened) >= MAX_OPENED:
                raise MessageTooLarge(f"A connection may open {MAX_OPENED} models.")
            number = len(self._opened)
            self._opened.append(_Opened(model))
        head = _describe(hosted.manifest.signature)
        self._stream.send(header, head, version=hosted.release.version, handle=number + 1)

    def _label(self, header: Header) -> None:
        model = self._model(header.handle).model if header.handle else None
        labels = read_labels(self._head(header), self._data(header))
        counted = self._services.label(model, header.prediction_id, labels)
        self._stream.send(header, parts=[_LABELLED.pack(*counted)], data_bytes=_LABELLED.size)

    def _share(self, header: Header) -> None:
        """Say that a descriptor may come, take it with the one byte that carries it, map it."""
        if self._stream.has_more_than(HEADER.size + header.head_bytes + header.data_bytes):
            raise InvalidMessage("Wait for the answer before you pass the descriptor.")
        self._stream.send(header)
        data, descriptors, _, _ = socket.recv_fds(self._sock, 1, 1, socket.MSG_CMSG_CLOEXEC)
        try:
            if not data:
                raise Ended("The client has closed it.")
            if not descriptors:
                raise InvalidMessage("No descriptor was passed.")
            number, size_bytes = self._regions.map(descriptors[0])
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        self._forget_plans()
        self._stream.send(
            header, parts=[_REGION_SIZE.pack(size_bytes)], data_bytes=_REGION_SIZE.size, handle=number
        )

    def _model(self, handle: int) -> _Opened:
        if not 0 < handle <= len(self._opened):
            raise NotFound(f"No model was opened as {handle}.")
        return self._opened[handle - 1]

    def _forget_plans(self) -> None:
        for opened in self._opened:
            opened.forget_plans()


def _count(hosted: Hosted, inputs: Tensors, answer: Answer) -> None:
    """Count an answer; a fault in that is no second answer to the client."""
    try:
        hosted.count(inputs, answer)
    except Exception:
        log.exception("An answer could not be counted.")


def _describe(signature: Signature) -> bytes:
    """Return the head that tells what a model takes and gives."""
    return pack_head(
        Described(tensor.name, tensor.dtype, tensor.shape, place)
        for tensors, place in ((signature.inputs, Place.DATA), (signature.outputs, Place.ASKED_IN_DATA))
        for tensor in tensors
    )
