"""One inference request from bytes, and its answer to bytes.

==========================  ===========================================================================
request says                answered
==========================  ===========================================================================
``outputs``                 those outputs, in that order; without it (or empty) all of them
``binary_data`` of an       that output as bytes behind the JSON, or in the JSON
output
``binary_data_output``      the same for every output that does not say it itself
``id``                      echoed
any other parameter         nothing: they are hints to schedulers that are not here
shared memory               `agent.serving.shared_memory`; refused where it is not offered
``classification``          refused: it is not offered, and without it the answer would be another one than
                            was asked for
==========================  ===========================================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec
from numpy.typing import NDArray

from agent.serving.binary import LENGTH_HEADER, SIZE_PARAMETER, Parameter, assign, encode_tensor, split
from agent.serving.body import decode
from agent.serving.http_messages import Response
from agent.serving.shared_memory import OFFSET, REGION, SIZE, CallersMemory
from agent.serving.shared_region import Part
from agent.serving.tensors import FlatTensor, RequestTensor, ResponseTensor, read_inputs, write_output
from agent.serving.understood import MAX_KNOWN, KnownRequests, Source, Understood, template
from fleet.protocol.errors import InvalidMessage, MessageTooLarge
from fleet.protocol.manifest import Signature

PREDICTION_ID = "prediction_id"
_OTHER_DIGITS = str.maketrans("0123456789abcdef", "123456789abcdef0")
_CLASSIFICATION = "classification"


class RequestedOutput(msgspec.Struct):
    """An output that is asked for."""

    name: str
    parameters: dict[str, Parameter] = msgspec.field(default_factory=dict)


class InferRequest(msgspec.Struct):
    """A request for predictions, without the bytes that follow it."""

    inputs: list[RequestTensor]
    outputs: list[RequestedOutput] = msgspec.field(default_factory=list)
    id: str | None = None
    parameters: dict[str, Parameter] = msgspec.field(default_factory=dict)


class FlatRequest(InferRequest):
    """A request for predictions that has numbers only, none of them nested."""

    inputs: list[FlatTensor]  # type: ignore[assignment] # each is a RequestTensor, and nobody adds to it


class InferResponse(msgspec.Struct, omit_defaults=True):
    """Predictions. The id by which they can be labelled is a parameter: there the protocol has room."""

    model_name: str
    model_version: str
    outputs: list[ResponseTensor] = msgspec.field(default_factory=list)
    parameters: dict[str, str] = msgspec.field(default_factory=dict)
    id: str | None = None


def read_request(
    body: bytes, length: str | None, signature: Signature, shared: CallersMemory | None, known: KnownRequests
) -> tuple[Understood, dict[str, NDArray[Any]]]:
    """Return what a request asks for, and its inputs.

    Args:
        body: Of the HTTP request.
        length: Its header ``Inference-Header-Content-Length``, None without it.
        signature: What the model takes and gives.
        shared: What the caller shares; None if that is not offered.
        known: Requests to the same version that came before.

    Raises:
        InvalidMessage: It is no request, or not for this model.
        MessageTooLarge: Its inputs in shared memory are too large.
        NotFound: There is no such shared memory.
        NotPermitted: It cannot be told whose shared memory is meant.
    """
    text, data = split(body, length)
    understood = known.get(text) if data else None
    if understood is not None and understood.data_bytes == len(data):
        return understood, understood.read(data)
    request = _decode(text, signature)
    refused = (_CLASSIFICATION,) if shared is not None else (REGION, _CLASSIFICATION)
    _check_offered({tensor.name: tensor.parameters for tensor in request.inputs}, refused)
    _check_offered({output.name: output.parameters for output in request.outputs}, refused)
    given = assign(request.inputs, data)
    if shared is not None:
        given.update(shared.read(request.inputs))
    inputs = read_inputs(request.inputs, signature, given)
    understood = Understood(request.id, _asked(request, signature, shared))
    if all(SIZE_PARAMETER in tensor.parameters for tensor in request.inputs):
        understood.sources = _sources(request, signature)
        understood.data_bytes = len(data)
        known.keep(text, understood)
    return understood, inputs


def write_response(
    response: InferResponse, outputs: Mapping[str, NDArray[Any]], understood: Understood
) -> Response:
    """Return the HTTP response with predictions; fill shared memory.

    Args:
        response: All but the outputs.
        outputs: What the model answered, by name.
        understood: What was asked for.

    Raises:
        InvalidMessage: Shared memory cannot be written any more.
        MessageTooLarge: An output does not fit there.
    """
    parts = []
    for name, place in understood.asked.items():
        if isinstance(place, Part):
            tensor = _share(name, outputs[name], place)
        elif place:
            parts.append(encode_tensor(outputs[name]))
            tensor = write_output(name, outputs[name], elsewhere={SIZE_PARAMETER: len(parts[-1])})
        else:
            tensor = write_output(name, outputs[name])
        response.outputs.append(tensor)
    text = msgspec.json.encode(response)
    if not parts:
        return Response(200, text)
    headers = (("content-type", "application/octet-stream"), (LENGTH_HEADER, str(len(text))))
    return Response(200, b"".join((text, *parts)), headers)


def write_known(
    prediction_id: int | None, outputs: Mapping[str, NDArray[Any]], understood: Understood
) -> Response | None:
    """Return the HTTP response with predictions if one that differs in numbers alone was kept; else None.

    Args:
        prediction_id: To label it by; None if it cannot be labelled.
        outputs: What the model answered, by name.
        understood: What was asked for.
    """
    if prediction_id is None or not understood.sources:
        return None
    kept = understood.answers.get(tuple([outputs[name].shape for name in understood.asked]))
    if kept is None:
        return None
    parts = [encode_tensor(outputs[name]) for name in understood.asked]
    body = b"".join((kept.begin, b"%016x" % prediction_id, kept.end, *parts))
    return Response(200, body, kept.headers)


def keep_answer(
    response: InferResponse, written: Response, outputs: Mapping[str, NDArray[Any]], understood: Understood
) -> None:
    """Keep an answer for `write_known`, if all of it that may change is numbers behind the JSON.

    Args:
        response: The answer, with an id of the prediction;
        written: the same, as it was written.
        outputs: What the model answered, by name.
        understood: What was asked for.
    """
    arrays = [outputs[name] for name in understood.asked]
    are_bytes = all(place is True for place in understood.asked.values())
    if not understood.sources or not are_bytes or any(array.dtype.kind in "OU" for array in arrays):
        return
    prediction_id = response.parameters[PREDICTION_ID]
    changed = {PREDICTION_ID: prediction_id.translate(_OTHER_DIGITS)}
    other = msgspec.json.encode(msgspec.structs.replace(response, parameters=changed))
    text = written.body[: len(other)]
    if len(understood.answers) >= MAX_KNOWN:
        understood.answers.clear()
    key = tuple(array.shape for array in arrays)
    understood.answers[key] = template(text, other, written.headers, len(prediction_id))


def _sources(request: InferRequest, signature: Signature) -> tuple[Source, ...]:
    """Return where the inputs of a request are that all follow as bytes; it was checked."""
    wanted = {tensor.name: tensor for tensor in signature.inputs}
    sources, end = [], 0
    for tensor in request.inputs:
        start, end = end, end + int(tensor.parameters[SIZE_PARAMETER])
        sources.append(Source(wanted[tensor.name], tuple(tensor.shape), start, end))
    return tuple(sources)


def _decode(text: memoryview, signature: Signature) -> InferRequest:
    """Return the request in JSON; what is not plain is read a second time, more slowly."""
    if all(tensor.dtype.startswith("float") for tensor in signature.inputs):
        with suppress(InvalidMessage):
            return decode(text, FlatRequest)
    return decode(text, InferRequest)


def _share(name: str, value: NDArray[Any], place: Part) -> ResponseTensor:
    """Put an output into shared memory; return what the answer says of it."""
    data = encode_tensor(value)
    if len(data) > place.size_bytes:
        raise MessageTooLarge(f"Output {name} has {len(data)} bytes; there is room for {place.size_bytes}.")
    place.write(data)
    where: dict[str, Parameter] = {REGION: place.region.name, SIZE: len(data), OFFSET: place.offset}
    return write_output(name, value, elsewhere=where)


def _asked(
    request: InferRequest, signature: Signature, shared: CallersMemory | None
) -> dict[str, bool | Part]:
    """Return the names of the outputs that are asked for, and where they go."""
    names = [tensor.name for tensor in signature.outputs]
    by_default = _flag(request.parameters, "binary_data_output", default=False)
    if not request.outputs:
        return dict.fromkeys(names, by_default)
    asked = {output.name: _place(output, shared, by_default=by_default) for output in request.outputs}
    if not asked.keys() <= set(names) or len(asked) != len(request.outputs):
        raise InvalidMessage(
            f"The model gives the outputs {', '.join(sorted(names))}, each once; "
            f"{', '.join(output.name for output in request.outputs):.200} were asked for."
        )
    return asked


def _place(output: RequestedOutput, shared: CallersMemory | None, *, by_default: bool) -> bool | Part:
    """Return where an output goes."""
    part = None if shared is None else shared.part(output)
    if part is None:
        return _flag(output.parameters, "binary_data", default=by_default)
    if _flag(output.parameters, "binary_data", default=False):
        raise InvalidMessage(f"{output.name!r:.80} cannot go both into shared memory and behind the JSON.")
    return part


def _check_offered(asked: Mapping[str, Mapping[str, Parameter]], refused: Sequence[str]) -> None:
    """Refuse parameters, by tensor, without which the answer would be another one than was asked for."""
    for name, parameters in asked.items():
        for parameter in refused:
            if parameter in parameters:
                raise InvalidMessage(f"{name!r:.80} asks for {parameter}, which is not offered here.")


def _flag(parameters: Mapping[str, Parameter], name: str, *, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise InvalidMessage(f"The parameter {name} is {value!r:.40}, neither true nor false.")
    return value
