"""Tensors in memory that a client shares: Triton's system shared memory extension, an option.

A client makes a file in ``/dev/shm`` (shm_open(3)), registers a part of it as a region, and names regions in
place of data, for inputs and for outputs. Regions are the account's that registered them: nobody else sees or
uses them. They last until they are unregistered or the agent ends; their number and size are bounded.

Source: ``docs/protocol/extension_shared_memory.md`` of the Triton Inference Server, "HTTP/REST" and "System
Shared Memory". Where it is silent, what Triton does is done: ``offset`` may be left out when registering, and
to unregister what is not registered is no error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeGuard

from agent.serving.binary import SIZE_PARAMETER, Parameter
from agent.serving.body import decode
from agent.serving.caller import Caller
from agent.serving.shared_region import Part, Region, RegisterRequest, open_region
from fleet.protocol.errors import Conflict, InvalidMessage, MessageTooLarge, NotFound

MAX_REGIONS = 32
SHARE_OF_LIMIT = 4
"""How many requests of the largest size all regions together may hold."""
MAX_NAME_LENGTH = 128
REGION, SIZE, OFFSET = "shared_memory_region", "shared_memory_byte_size", "shared_memory_offset"
_PARAMETERS = frozenset({REGION, SIZE, OFFSET})


class Tensor(Protocol):
    """A tensor as it is sent or asked for, as far as this extension goes."""

    @property
    def name(self) -> str:
        """Name of the input or output."""
        ...

    @property
    def parameters(self) -> Mapping[str, Parameter]:
        """Its parameters."""
        ...


class SharedMemory:
    """The regions of all accounts.

    Args:
        limit_bytes: Largest request.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._regions: dict[tuple[int, str], Region] = {}

    def register(self, account: int, name: str, request: RegisterRequest) -> None:
        """Make a region of a part of a file.

        Args:
            account: Whose it is.
            name: How requests call it.
            request: Which part.

        Raises:
            Conflict: The account has a region of that name.
            InvalidMessage: It cannot be one.
            MessageTooLarge: There would be too many regions, or they would be too large.
            NotFound: There is no such file.
            NotPermitted: The file is another account's, or the agent may not read and write it.
        """
        if not 0 < len(name) <= MAX_NAME_LENGTH:
            raise InvalidMessage(f"A region's name has 1 to {MAX_NAME_LENGTH} characters.")
        if (account, name) in self._regions:
            raise Conflict(f"Region {name!r} is registered already.", remedy="Unregister it first.")
        if len(self._regions) >= MAX_REGIONS:
            raise MessageTooLarge(
                f"There may be {MAX_REGIONS} regions at a time.", remedy="Unregister one that is not used."
            )
        most_bytes = SHARE_OF_LIMIT * self.limit_bytes
        if sum(each.size_bytes for each in self._regions.values()) + request.byte_size > most_bytes:
            raise MessageTooLarge(
                f"All regions together may have {most_bytes} bytes.",
                remedy=f"That is {SHARE_OF_LIMIT} times request_limit_bytes, which is a setting.",
            )
        self._regions[account, name] = open_region(account, name, request)

    def unregister(self, account: int, name: str | None) -> None:
        """Forget an account's region, if there is one of that name, or all (None).

        Requests that are being answered still use it.
        """
        for key in [key for key in self._regions if key[0] == account and name in (None, key[1])]:
            del self._regions[key]

    def find(self, account: int, name: str) -> Region:
        """Return an account's region.

        Raises:
            NotFound: It has none of that name.
        """
        region = self._regions.get((account, name))
        if region is None:
            raise NotFound(f"There is no shared memory region {name!r:.80}.", remedy="Register it first.")
        return region

    def answer(self, method: str, path: Sequence[str], body: bytes, caller: Caller) -> object | None:
        """Answer a request about regions; None if there is no such request.

        Args:
            method: Of HTTP.
            path: What follows ``/v2/systemsharedmemory``.
            body: The request's.
            caller: Who asks.

        Raises:
            MusterError: As for `register` and `find`.
        """
        account = caller.account()
        match (method, path):
            case ("GET", ["status"]):
                return [_status(region) for key, region in self._regions.items() if key[0] == account]
            case ("GET", ["region", name, "status"]):
                return [_status(self.find(account, name))]
            case ("POST", ["region", name, "register"]):
                self.register(account, name, decode(body, RegisterRequest))
                return {}
            case ("POST", ["unregister"] | ["region", _, "unregister"]):
                if body:
                    raise InvalidMessage("A request to unregister has no body.")
                self.unregister(account, path[1] if len(path) > 1 else None)
                return {}
        return None


class CallersMemory(NamedTuple):
    """What one caller shares.

    Attributes:
        memory: The regions.
        caller: Who asks.
    """

    memory: SharedMemory
    caller: Caller

    def read(self, tensors: Sequence[Tensor]) -> dict[str, memoryview]:
        """Return by name a copy of the bytes of each tensor that is in a region.

        Args:
            tensors: Inputs as they are sent.

        Raises:
            InvalidMessage: One is not there.
            MessageTooLarge: They are larger than a request may be.
            NotFound: There is no such region.
        """
        found = {}
        total_bytes = 0
        for tensor in tensors:
            part = self.part(tensor)
            if part is None:
                continue
            if SIZE_PARAMETER in tensor.parameters:
                raise InvalidMessage(f"{tensor.name!r:.80} has both {REGION} and {SIZE_PARAMETER}.")
            total_bytes += part.size_bytes
            if total_bytes > self.memory.limit_bytes:
                raise MessageTooLarge(
                    f"The inputs are larger than {self.memory.limit_bytes} bytes.",
                    remedy="request_limit_bytes is the setting.",
                )
            found[tensor.name] = memoryview(part.read())
        return found

    def part(self, tensor: Tensor) -> Part | None:
        """Return where a tensor is or goes; None if that is no shared memory.

        Raises:
            InvalidMessage: The parameters do not say it, or it is beyond the region's end.
            NotFound: There is no such region.
        """
        parameters = tensor.parameters
        if parameters.keys().isdisjoint(_PARAMETERS):
            return None
        name, offset = parameters.get(REGION), parameters.get(OFFSET, 0)
        size_bytes = parameters.get(SIZE)
        if not isinstance(name, str) or not _is_size(size_bytes) or not _is_size(offset):
            raise InvalidMessage(
                f"{tensor.name!r:.80} does not say where in shared memory it is.",
                remedy=f"Set {REGION} (text) and {SIZE}; {OFFSET} is 0 if it is left out.",
            )
        region = self.memory.find(self.caller.account(), name)
        if offset + size_bytes > region.size_bytes:
            raise InvalidMessage(
                f"{tensor.name!r:.80} ends at {offset + size_bytes} of region {name!r}; "
                f"that has {region.size_bytes} bytes."
            )
        return Part(region, offset, size_bytes)


def _is_size(value: Parameter | None) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _status(region: Region) -> dict[str, Any]:
    return {
        "name": region.name,
        "key": region.key,
        "offset": region.offset,
        "byte_size": region.size_bytes,
    }
