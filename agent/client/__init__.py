"""A client of the agent's fast path, for Python applications on the device.

::

    import agent.client

    with agent.client.connect("/var/lib/muster-agent/agent-fast.sock") as client:
        model = client.model("digits")
        answer = model(pixels)                      # an array, or a dict of arrays by name
        print(answer.version, answer.outputs["probabilities"])
        client.feedback(answer.prediction_id, [3])  # when the truth is known

A client may be used by several threads, one request at a time; threads that must not wait for one another
have a client each. After the agent was started again the next request connects again by itself. What was
asked for is then asked once more, which does no harm: an inference changes nothing, a label counts once.

Large tensors need not travel through the socket: `Client.shared_array` gives an array in memory that the
agent sees too. Nothing is needed but NumPy; errors are those of `fleet.protocol.errors`.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from agent.client.inputs import TEXT, Array, named_arrays
from agent.client.link import FastLink, LinkClosed
from agent.client.session import Answer, Session, Shared, as_part
from agent.serving.fast_frames import CODES, HEADER, Described, Kind, Place, pack_head
from fleet.protocol.errors import InvalidInput, Unavailable

__all__ = ["Answer", "Client", "Labelled", "Model", "TensorInfo", "connect"]

TIMEOUT_S = 60.0
_LABELLED = struct.Struct("<II")

_T = TypeVar("_T")


class Labelled(NamedTuple):
    """What became of labels.

    Attributes:
        labelled: How many samples they were for.
        correct: How many of them the model had right.
    """

    labelled: int
    correct: int


class TensorInfo(NamedTuple):
    """A tensor of a model's signature.

    Attributes:
        name: Its name.
        element_type: NumPy's name, or ``str`` for text.
        shape: -1 where any size goes.
    """

    name: str
    element_type: str
    shape: tuple[int, ...]


class Client:
    """A client of one agent.

    Args:
        path: Of the fast path's socket.
        timeout_s: How long the agent may take for an answer.
    """

    def __init__(self, path: str | Path, *, timeout_s: float = TIMEOUT_S) -> None:
        self._path = Path(path)
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._session: Session | None = None
        self._shared: dict[int, Shared] = {}  # by the array's id; the array is kept, so no other can have it

    def __enter__(self) -> Self:
        """Return the client."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the client."""
        self.close()

    def close(self) -> None:
        """End the connection and give back what is shared; shared arrays stay usable here."""
        with self._lock:
            self._leave()
            for shared in self._shared.values():
                os.close(shared.descriptor)
            self._shared.clear()

    def model(self, name: str) -> Model:
        """Return a model that answers on this device.

        Raises:
            NotFound: The device does not have it.
            Unavailable: It does not answer yet, or no agent does.
        """
        return Model(self, name, self._ask(lambda session: session.open(name)[1]))

    def feedback(
        self, prediction_id: int, labels: int | str | Sequence[int | str], *, model: str | None = None
    ) -> Labelled:
        """Tell what was true, once for each prediction.

        Args:
            prediction_id: Of the answer.
            labels: For each sample the number or the name of its class.
            model: Whose prediction it has to be; None: of any.

        Raises:
            NotFound: There is no such prediction, or it was labelled before.
            InvalidInput: The labels are not classes of that model, or no answer has such an id.
        """
        if not isinstance(prediction_id, int) or not 0 <= prediction_id < 1 << 64:
            raise InvalidInput(
                f"{prediction_id!r} is no prediction's id: the number that an answer of a classifier has.",
                remedy="What JSON gives as text is the same number in hexadecimal: int(text, 16).",
            )
        given = [labels] if isinstance(labels, int | str) else list(labels)
        kind = TEXT if any(isinstance(label, str) for label in given) else "int64"
        array = np.array(given, dtype=object if kind == TEXT else np.int64)
        data = as_part(array)
        head = pack_head([Described("labels", kind, array.shape, size_bytes=len(data))])

        def ask(session: Session) -> Labelled:
            header, frame = session.link.exchange(
                Kind.FEEDBACK,
                head,
                [data],
                data_bytes=len(data),
                handle=session.open(model)[0] if model else 0,
                prediction_id=prediction_id,
            )
            return Labelled(*_LABELLED.unpack_from(frame, HEADER.size + header.head_bytes))

        return self._ask(ask)

    def shared_array(self, shape: Sequence[int], dtype: Any) -> Array:
        """Return an array of zeros in memory that the agent sees too.

        Give it as an input, or as the place of an output. Do not write to it while a request is under way.
        Only the array itself is recognized: parts and other views of it are sent as any array is.

        Args:
            shape: Of the array.
            dtype: Of its elements; not text.

        Raises:
            InvalidInput: It would be empty, or hold text.
        """
        kind = np.dtype(dtype)
        size_bytes = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
        if size_bytes <= 0 or kind.name not in CODES:
            raise InvalidInput("An array of numbers that has elements can be shared.")
        descriptor = os.memfd_create("muster", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(descriptor, size_bytes)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        array: Array = np.ndarray(tuple(shape), kind, mmap.mmap(descriptor, size_bytes))
        with self._lock:
            self._shared[id(array)] = Shared(array, descriptor)
        return array

    def give_back(self, array: Array) -> None:
        """Share an array of `shared_array` no more; it stays usable here.

        Raises:
            InvalidInput: It is none.
        """
        with self._lock:
            shared = self._shared.pop(id(array), None)
            if shared is None:
                raise InvalidInput("The array is not shared.")
            os.close(shared.descriptor)
            number = self._session.regions.pop(id(array), 0) if self._session else 0
        if number:
            self._ask(lambda session: session.link.exchange(Kind.UNSHARE, handle=number))

    def infer(
        self, model: str, inputs: Mapping[str, Array], version: int, outputs: Mapping[str, Array | None]
    ) -> Answer:
        """Ask for predictions; `Model` is the convenient way to do so."""
        return self._ask(lambda session: session.infer(model, inputs, version, outputs))

    def _ask(self, ask: Callable[[Session], _T]) -> _T:
        """Ask the agent; once more if the connection turns out to be closed, as after a restart."""
        with self._lock:
            try:
                return ask(self._connected())
            except LinkClosed:
                self._leave()
            except Unavailable:
                self._leave()
                raise
            try:
                return ask(self._connected())
            except LinkClosed as error:
                self._leave()
                raise Unavailable("The agent ended before it answered.") from error

    def _connected(self) -> Session:
        if self._session is None:
            self._session = Session(FastLink(self._path, self._timeout_s), self._shared)
        return self._session

    def _leave(self) -> None:
        if self._session is not None:
            self._session.link.close()
            self._session = None


class Model:
    """A model that answers on this device, whichever version of it.

    Args:
        client: How to reach it.
        name: Its name.
        signature: What it takes and gives.
    """

    def __init__(self, client: Client, name: str, signature: tuple[Described, ...]) -> None:
        tensors = [(each.place, TensorInfo(each.name, each.element_type, each.shape)) for each in signature]
        self.name = name
        self.inputs = tuple(tensor for place, tensor in tensors if place is Place.DATA)
        self.outputs = tuple(tensor for place, tensor in tensors if place is not Place.DATA)
        self._client = client
        self._element_types = {tensor.name: tensor.element_type for tensor in self.inputs}
        self._only = self.inputs[0].name if len(self.inputs) == 1 else None

    def __call__(
        self,
        inputs: ArrayLike | Mapping[str, ArrayLike],
        *,
        version: int = 0,
        outputs: Sequence[str] | Mapping[str, Array | None] = (),
    ) -> Answer:
        """Return the model's answer.

        Args:
            inputs: Arrays by name, or one for a model of one input. Lists become arrays of its type.
            version: The version that has to answer; 0 for whichever does.
            outputs: Names of those that are wanted, or by name the shared array that each is written to
                (None: none); all if there are no names.

        Raises:
            InvalidInput: The model does not take these inputs.
            NotFound: The device does not have the model, or that version does not answer.
            InferenceFailed: The model failed.
            Unavailable: The model does not answer yet, or no agent does.
        """
        if isinstance(inputs, np.ndarray) and self._only is not None:  # mostly
            return self._client.infer(self.name, {self._only: inputs}, version, _wanted(outputs))
        arrays = named_arrays(inputs, self._element_types, self.name)
        return self._client.infer(self.name, arrays, version, _wanted(outputs))


def _wanted(outputs: Sequence[str] | Mapping[str, Array | None]) -> Mapping[str, Array | None]:
    return outputs if isinstance(outputs, Mapping) else dict.fromkeys(outputs)


def connect(path: str | Path, *, timeout_s: float = TIMEOUT_S) -> Client:
    """Return a client of the agent whose fast path listens on a socket; it connects when it is first used.

    Args:
        path: ``agent-fast.sock`` in the agent's state folder, unless ``fast_socket_path`` says another.
        timeout_s: How long the agent may take for an answer.
    """
    return Client(path, timeout_s=timeout_s)
