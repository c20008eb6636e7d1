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
from typing import NamedTuple, TypeVar

from agent.hosting.answers import Answer
from agent.hosting.host import Host
from agent.hosting.hosted import Hosted
from agent.log import unexpected_failure
from agent.runtimes.protocol import Tensors
from agent.serving.caller import Caller
from agent.serving.fast_form import Form, Opened
from agent.serving.fast_frames import (
    ANSWER,
    GOOD,
    HEADER,
    MAGIC,
    Described,
    Header,
    Kind,
    Place,
    pack_head,
    unpack_header,
)
from agent.serving.fast_plan import read_labels
from agent.serving.fast_regions import Regions
from agent.serving.fast_stream import Ended, FrameStream
from fleet.protocol.errors import (
    InferenceTimedOut,
    InvalidMessage,
    MessageTooLarge,
    MusterError,
    NotFound,
    NotPermitted,
)
from fleet.protocol.manifest import Signature

log = logging.getLogger(__name__)

MAX_OPENED = 256
_INFERRED = Kind.INFER | ANSWER
_LABELLED = struct.Struct("<II")
_REGION_SIZE = struct.Struct("<Q")


_T = TypeVar("_T")


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
        self._opened: list[Opened] = []
        self._regions = Regions(services.limit_bytes, are_trusted=_is_own(sock))
        self._asked: tuple[float, Hosted, int] | None = None  # since when who computes what
        self._form: Form | None = None  # of the last request to infer

    def serve(self) -> None:
        """Answer requests until either side ends the connection."""
        try:
            while True:
                self._stream.receive()
                repeated = self._repeated()
                if repeated is not None:
                    self._respond(self._compute, repeated)
                    self._stream.drop(repeated[0].size_bytes)
                    continue
                header = self._stream.next_frame()
                self._respond(self._answer, header)
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
        since_s, hosted, request_id = asked
        hosted.tell_late_run()
        if time.monotonic() - since_s > limit_s:
            late = InferenceTimedOut("The model did not answer in time.")
            self._stream.give_up(
                Header(Kind.INFER, request_id=request_id), late, lambda: self._asked is asked
            )

    def _data(self, header: Header) -> bytes:
        start = HEADER.size + header.head_bytes
        return bytes(memoryview(self._stream.buffer)[start : start + header.data_bytes])

    def _head(self, header: Header) -> bytes:
        return bytes(memoryview(self._stream.buffer)[HEADER.size : HEADER.size + header.head_bytes])

    def _respond(self, answer: Callable[[_T], None], asked: _T) -> None:
        """Answer a request; every failure is an answer too."""
        try:
            answer(asked)
        except MusterError as error:
            self._stream.send_error(unpack_header(self._stream.buffer), error)
        except (Ended, OSError):
            raise
        except Exception:
            log.exception("A request on the fast path failed unexpectedly.")
            self._stream.send_error(unpack_header(self._stream.buffer), unexpected_failure())

    def _answer(self, header: Header) -> None:
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
                raise InvalidMessage(f"There is no request of kind {unknown}.")

    def _infer(self, header: Header) -> None:
        opened = self._model(header.handle)
        services = self._services
        hosted = services.host.get(opened.model)
        if hosted is None or (header.version and header.version != hosted.release.version):
            hosted = services.answering(opened.model, header.version)
        plan = opened.plan(hosted, header, self._stream.buffer, self._regions)
        form = self._form = Form(opened.model, hosted, plan, header, self._stream.buffer)
        self._compute((form, hosted))

    def _repeated(self) -> tuple[Form, Hosted] | None:
        """Return the form of the last request, and who answers, if the present one has it."""
        form, stream = self._form, self._stream
        if form is None or not form.begins(stream.buffer, stream.filled):
            return None
        hosted = self._services.host.get(form.model)
        if hosted is None or hosted.release is not form.release:
            return None
        if stream.filled < form.size_bytes:
            stream.fill(form.size_bytes)
        return form, hosted

    def _compute(self, asked: tuple[Form, Hosted]) -> None:
        """Answer the request in the buffer, which is of a form."""
        form, hosted = asked
        stream, services, plan = self._stream, self._services, form.plan
        inputs = plan.read(stream.buffer, form.data_start)
        request_id = form.request_id(stream.buffer)
        self._asked = (time.monotonic(), hosted, request_id)
        try:
            answer = hosted.answer_now(inputs)
        finally:
            self._asked = None
        if plan.reads_regions:  # once the client has its answer, and where an output lies, they are others
            _count(hosted, inputs, answer)
        try:
            head, parts, size_bytes = plan.write(answer.outputs)
            prediction_id = services.remember(form.model, answer, form.classes) or 0
            header = HEADER.pack(
                MAGIC, _INFERRED, GOOD, 0, request_id, answer.version, len(head), size_bytes, prediction_id
            )
            stream.send_frame((header, head, *parts), size_bytes)
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
            self._opened.append(Opened(model))
        head = _describe(hosted.manifest.signature)
        self._stream.send(header, head, version=hosted.release.version, handle=number + 1)

    def _label(self, header: Header) -> None:
        model = self._model(header.handle).model if header.handle else None
        labels = read_labels(self._head(header), self._data(header))
        counted = self._services.label(model, header.prediction_id, labels)
        self._stream.send(header, parts=[_LABELLED.pack(*counted)], data_bytes=_LABELLED.size)

    def _share(self, header: Header) -> None:
        """Say that a descriptor may come, take it with the one byte that carries it, map it."""
        if self._stream.filled > HEADER.size + header.head_bytes + header.data_bytes:
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

    def _model(self, handle: int) -> Opened:
        if not 0 < handle <= len(self._opened):
            raise NotFound(f"No model was opened as {handle}.")
        return self._opened[handle - 1]

    def _forget_plans(self) -> None:
        self._form = None
        for opened in self._opened:
            opened.forget_plans()


def _is_own(sock: socket.socket) -> bool:
    """Tell whether the client's account could end the agent in any case: it is the agent's own, or root."""
    try:
        return Caller(sock).account() in {0, os.geteuid()}
    except NotPermitted:  # it cannot be told
        return False


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
