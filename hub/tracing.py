"""Traces of the hub's own work, sent to a collector in OpenTelemetry's protocol (OTLP over HTTP).

Off unless ``otlp_endpoint`` is set: then `span` costs next to nothing, and OpenTelemetry, which the extra
``tracing`` brings, is not imported. Like the log, there is one for the process: what is worth a span says so
where it happens, and is handed nothing for it.

A span has a name that is one of few, and attributes that are numbers or such names. Never in one: payloads,
paths with names in them, tokens, what an error says. Of an error it has the stable code, or the class.

Sources: OpenTelemetry semantic conventions for HTTP spans, 1.23; OTLP 1.x.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Generator
from importlib.metadata import version
from typing import TYPE_CHECKING, Protocol

from fleet.protocol.errors import InvalidConfiguration, MusterError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Tracer

log = logging.getLogger(__name__)

Attribute = str | int | float | bool
EXPORT_TIMEOUT_S = 5.0
MAX_WAITING_SPANS = 2048
"""What a collector that is away costs; further spans are lost."""


class Span(Protocol):
    """A piece of work under way."""

    def set_attribute(self, key: str, value: Attribute) -> object:
        """Say more about it."""
        ...

    def update_name(self, name: str) -> object:
        """Call it otherwise."""
        ...


class _Nothing:
    """What a span is while traces are off."""

    def set_attribute(self, key: str, value: Attribute) -> None:
        """Ignore it."""

    def update_name(self, name: str) -> None:
        """Ignore it."""


class _Tracing:
    """Where spans go; neither is set while traces are off."""

    tracer: Tracer | None = None
    provider: TracerProvider | None = None


_NOTHING = _Nothing()


@contextlib.contextmanager
def span(name: str, **attributes: Attribute) -> Generator[Span]:
    """Do the work inside as a span, of which those begun meanwhile are parts.

    Args:
        name: What kind of work it is; one of few.
        attributes: What more there is to say, see the head of this file.
    """
    if _Tracing.tracer is None:
        yield _NOTHING
        return
    from opentelemetry.trace import Status, StatusCode

    with _Tracing.tracer.start_as_current_span(
        name, attributes=attributes, record_exception=False, set_status_on_exception=False
    ) as current:
        try:
            yield current
        except Exception as error:
            code = error.code if isinstance(error, MusterError) else type(error).__name__
            current.set_attribute("error.type", code)
            current.set_status(Status(StatusCode.ERROR))
            raise


@contextlib.contextmanager
def tracing(endpoint: str, share: float) -> Generator[None]:
    """Trace what is done meanwhile, and send what is left at the end.

    Args:
        endpoint: The collector's base URL; empty for no traces.
        share: Of all traces, how many are kept: from 0 to 1.

    Raises:
        InvalidConfiguration: The extra is not installed, or the endpoint is no URL.
    """
    if not endpoint:
        yield
        return
    provider = _provider(endpoint, share)
    _Tracing.provider, _Tracing.tracer = provider, provider.get_tracer("muster", version("muster"))
    log.info("Traces are sent to %s.", endpoint)
    try:
        yield
    finally:
        _Tracing.provider = _Tracing.tracer = None
        provider.shutdown()


def _provider(endpoint: str, share: float) -> TracerProvider:
    if not endpoint.startswith(("http://", "https://")):
        raise InvalidConfiguration(f"otlp_endpoint is {endpoint!r}, which is no URL of a collector.")
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
    except ImportError as error:
        raise InvalidConfiguration(
            f"otlp_endpoint is set, and {error.name} is not installed.",
            remedy="Install the extra `tracing`: pip install 'muster[tracing]'; or empty the setting.",
        ) from error
    provider = TracerProvider(
        sampler=ParentBasedTraceIdRatio(share),
        resource=Resource.create({"service.name": "muster-hub", "service.version": version("muster")}),
        shutdown_on_exit=False,
    )
    exporter = OTLPSpanExporter(f"{endpoint.rstrip('/')}/v1/traces", timeout=EXPORT_TIMEOUT_S)
    provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=MAX_WAITING_SPANS))
    return provider
