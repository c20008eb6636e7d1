"""Requests that were understood, kept for those that say the same: their JSON need not be read again.

A client that sends tensors as bytes repeats the JSON before them word for word, and but for the prediction's
id the JSON of the answer is the same too. Only requests whose inputs all follow as bytes are kept: in others
the JSON holds the data.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from numpy.typing import NDArray

from agent.serving.binary import decode_tensor
from agent.serving.shared_region import Part
from fleet.protocol.manifest import Tensor

MAX_KNOWN = 64
"""Of one version; clients that change what they say all the time gain nothing."""
MAX_JSON_BYTES = 4096


class Source(NamedTuple):
    """Where the bytes of an input are.

    Attributes:
        wanted: What the model takes there.
        shape: Of the input.
        start: Of its bytes behind the JSON,
        end: and where they end.
    """

    wanted: Tensor
    shape: tuple[int, ...]
    start: int
    end: int


class Understood:
    """What a request asks for.

    Args:
        request_id: Is echoed.
        asked: By name the outputs that are asked for: False into the JSON, True as bytes behind it, else into
            shared memory.
    """

    def __init__(self, request_id: str | None, asked: dict[str, bool | Part]) -> None:
        self.request_id = request_id
        self.asked = asked
        self.sources: tuple[Source, ...] = ()
        """Inputs that follow as bytes, if all do."""
        self.data_bytes = 0
        """How many bytes follow then."""
        self.answers: dict[tuple[Any, ...], Template] = {}
        """Answers as bytes alone, by the shapes of the outputs."""

    def read(self, data: memoryview) -> dict[str, NDArray[Any]]:
        """Return the inputs of a request that says the same.

        Args:
            data: What follows its JSON, `data_bytes` bytes.

        Raises:
            InvalidMessage: A value may not be.
        """
        return {
            wanted.name: decode_tensor(data[start:end], wanted, shape)
            for wanted, shape, start, end in self.sources
        }


class KnownRequests:
    """Requests to one version that were understood."""

    def __init__(self) -> None:
        self._known: dict[bytes, Understood] = {}

    def get(self, text: memoryview) -> Understood | None:
        """Return what a request asks for whose JSON came before."""
        return self._known.get(bytes(text)) if len(text) <= MAX_JSON_BYTES else None

    def keep(self, text: memoryview, understood: Understood) -> None:
        """Keep a request whose inputs all follow as bytes."""
        if len(text) > MAX_JSON_BYTES or not all(
            place in (True, False) for place in understood.asked.values()
        ):
            return
        if len(self._known) >= MAX_KNOWN:
            self._known.clear()
        self._known[bytes(text)] = understood


class Template(NamedTuple):
    """The JSON of an answer without the prediction's id.

    Attributes:
        begin: What comes before the id,
        end: and after it.
        headers: Of the HTTP response.
    """

    begin: bytes
    end: bytes
    headers: tuple[tuple[str, str], ...]


def template(text: bytes, other: bytes, headers: tuple[tuple[str, str], ...], id_digits: int) -> Template:
    """Return the template of two answers that differ in every digit of the id and in nothing else.

    Args:
        text: The JSON of one,
        other: and of the other.
        headers: Of both.
        id_digits: How long the id is.
    """
    at = next(place for place, (one, another) in enumerate(zip(text, other, strict=True)) if one != another)
    return Template(text[:at], text[at + id_digits :], headers)
