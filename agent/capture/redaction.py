"""The redaction program: the device owner's own, which takes out of a sample what must not leave the device.

It is run without a shell, for each sample, in a session of its own, with no variables of the agent's and the
root folder as its own. It reads the sample from its standard input and writes the redacted one, in the same
form, to its standard output::

    {"model": "doors", "inputs": [{"name": "x", "dtype": "float32", "shape": [1, 8, 8], "size_bytes": 256}]}
    bytes of the first input, bytes of the second, …     (directly after the line's end)

Names, types and shapes stay what they were; so do sizes, but of text. Whatever else happens, another exit
code than 0, no end in time, more bytes than a sample may have, is a failure: the sample is then dropped.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated

import msgspec

from fleet.protocol.capture import MAX_SAMPLE_SIZE_BYTES
from fleet.protocol.errors import InvalidMessage, Unavailable
from fleet.protocol.samples import MAX_INPUTS, SampleTensor, array_of

_MAX_HEAD_BYTES = 64 * 1024
_MAX_BYTES = _MAX_HEAD_BYTES + MAX_SAMPLE_SIZE_BYTES
_GRACE_S = 2.0


class _Input(msgspec.Struct, frozen=True):
    name: str
    dtype: str
    shape: tuple[int, ...]
    size_bytes: Annotated[int, msgspec.Meta(ge=0, le=MAX_SAMPLE_SIZE_BYTES)]


class _Head(msgspec.Struct, frozen=True):
    model: str
    inputs: Annotated[tuple[_Input, ...], msgspec.Meta(max_length=MAX_INPUTS)]


_HEAD = msgspec.json.Decoder(_Head)


async def redact(
    command: Sequence[str], timeout_s: float, model: str, tensors: Sequence[SampleTensor]
) -> tuple[SampleTensor, ...]:
    """Return the sample as the program gives it back.

    Args:
        command: The program, by its absolute path, and its arguments.
        timeout_s: How long it may take.
        model: Name of the model.
        tensors: Of the sample.

    Raises:
        Unavailable: The program cannot be run, fails, or does not end in time.
        InvalidMessage: What it wrote is no sample of the same form.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
            env={"PATH": os.defpath, "LANG": "C.UTF-8"},
        )
    except OSError as error:
        raise Unavailable(f"The redaction {command[0]!r:.80} cannot be run: {error.strerror}.") from error
    try:
        async with asyncio.timeout(timeout_s):
            written, code = await _talk(process, _packed(model, tensors))
    except TimeoutError as error:
        raise Unavailable(f"The redaction did not end within {timeout_s:g} s.") from error
    finally:
        with suppress(ProcessLookupError, PermissionError):  # it has ended, or is another account's
            os.killpg(process.pid, signal.SIGKILL)
        await _over(process)
    if code != 0:
        raise Unavailable(f"The redaction ended with exit code {code}.")
    return _unpacked(written, model, tensors)


async def _talk(process: asyncio.subprocess.Process, data: bytes) -> tuple[bytes, int]:
    """Give a program its input and return what it wrote, one byte more than it may write at most."""
    assert process.stdin is not None
    assert process.stdout is not None
    reading = asyncio.ensure_future(_read(process.stdout))
    try:
        with suppress(BrokenPipeError, ConnectionResetError):  # it may end without reading
            process.stdin.write(data)
            await process.stdin.drain()
        process.stdin.close()
        written = await reading
        if len(written) > _MAX_BYTES:
            raise InvalidMessage(f"The redaction wrote more than {_MAX_BYTES} bytes.")
        return written, await process.wait()
    finally:
        reading.cancel()


async def _read(stream: asyncio.StreamReader) -> bytes:
    parts = bytearray()
    while len(parts) <= _MAX_BYTES and (part := await stream.read(64 * 1024)):
        parts += part
    return bytes(parts)


async def _over(process: asyncio.subprocess.Process) -> None:
    """Wait until a killed program has ended, but not for what it may have left behind.

    asyncio tells the end of a process once its pipes have ended, and those are not read while too much waits.
    """
    assert process.stdout is not None
    with suppress(TimeoutError):
        async with asyncio.timeout(_GRACE_S):
            while await process.stdout.read(64 * 1024):
                pass
            await process.wait()


def _packed(model: str, tensors: Sequence[SampleTensor]) -> bytes:
    inputs = tuple(_Input(each.name, each.dtype, each.shape, len(each.data)) for each in tensors)
    head = msgspec.json.encode(_Head(model, inputs))
    return b"".join([head, b"\n", *(each.data for each in tensors)])


def _unpacked(written: bytes, model: str, tensors: Sequence[SampleTensor]) -> tuple[SampleTensor, ...]:
    line, _, data = written.partition(b"\n")
    try:
        head = _HEAD.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidMessage("The first line that the redaction wrote is not a sample's head.") from error
    same = [(each.name, each.dtype, each.shape) for each in tensors]
    if head.model != model or [(each.name, each.dtype, each.shape) for each in head.inputs] != same:
        raise InvalidMessage("The redaction wrote a sample of another form than it was given.")
    if sum(each.size_bytes for each in head.inputs) != len(data):
        raise InvalidMessage("The redaction wrote another number of bytes than it says.")
    redacted, start = [], 0
    for each in head.inputs:
        tensor = SampleTensor(each.name, each.dtype, each.shape, data[start : start + each.size_bytes])
        array_of(tensor)
        redacted.append(tensor)
        start += each.size_bytes
    return tuple(redacted)
