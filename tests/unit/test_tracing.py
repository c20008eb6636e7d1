"""Traces: nothing of them while they are off; what is sent, and what never is, while they are on."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from fleet.protocol.errors import InvalidConfiguration, NotFound
from hub.tracing import EXPORT_TIMEOUT_S, span, tracing
from tests.support.otlp_receiver import OtlpReceiver, attributes, otlp_receiver
from tests.support.ports import LOOPBACK, ReservedPort


def _names(receiver: OtlpReceiver) -> list[str]:
    return sorted(span.name for span in receiver.spans())


def test_while_traces_are_off_opentelemetry_is_not_even_imported() -> None:
    code = (
        "import sys, hub.tracing\n"
        "with hub.tracing.tracing('', 1.0), hub.tracing.span('work', number=1) as current:\n"
        "    current.set_attribute('more', 2)\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_spans_arrive_with_their_parts_and_say_who_sent_them() -> None:
    with otlp_receiver() as receiver:
        with tracing(receiver.url, 1.0), span("step", records=3), span("write"):
            pass
        (whole,), (part,) = receiver.spans("step"), receiver.spans("write")
        (resource,) = {
            request.resource_spans[0].resource.SerializeToString() for request in receiver.requests
        }
    assert part.parent_span_id == whole.span_id
    assert part.trace_id == whole.trace_id
    assert attributes(list(whole.attributes)) == {"records": 3}
    assert b"muster-hub" in resource


def test_of_an_error_the_code_is_sent_and_never_what_it_says() -> None:
    with otlp_receiver() as receiver:
        with tracing(receiver.url, 1.0):
            with pytest.raises(NotFound), span("ours"):
                raise NotFound("There is no device camera-17 with token hunter2.")
            with pytest.raises(KeyError), span("others"):
                raise KeyError("hunter2")
        (ours,), (others,) = receiver.spans("ours"), receiver.spans("others")
        assert b"hunter2" not in b"".join(request.SerializeToString() for request in receiver.requests)
    assert attributes(list(ours.attributes)) == {"error.type": "not_found"}
    assert attributes(list(others.attributes)) == {"error.type": "KeyError"}
    assert ours.status.code == others.status.code == ours.status.STATUS_CODE_ERROR


def test_a_share_of_none_sends_none() -> None:
    with otlp_receiver() as receiver:
        with tracing(receiver.url, 0.0), span("step"):
            pass
        assert _names(receiver) == []


def test_a_collector_that_is_away_holds_the_end_up_for_seconds_only() -> None:
    started_s = time.monotonic()
    nobody = ReservedPort()
    with tracing(f"http://{LOOPBACK}:{nobody.number}", 1.0), span("lost"):
        pass
    assert time.monotonic() - started_s < 2.0 * EXPORT_TIMEOUT_S


def test_afterwards_nothing_is_traced_any_more() -> None:
    with otlp_receiver() as receiver:
        with tracing(receiver.url, 1.0), span("inside"):
            pass
        with span("outside"):
            pass
        assert _names(receiver) == ["inside"]


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with (
        pytest.raises(InvalidConfiguration, match=r"muster\[tracing\]"),
        tracing("http://127.0.0.1:4318", 1.0),
    ):
        pass


@pytest.mark.parametrize("endpoint", ["127.0.0.1:4318", "file:///etc/passwd", " "])
def test_an_endpoint_that_is_no_url_is_refused(endpoint: str) -> None:
    with pytest.raises(InvalidConfiguration, match="otlp_endpoint"), tracing(endpoint, 1.0):
        pass
