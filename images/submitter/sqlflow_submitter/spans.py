"""The submitter's spans in the trace of its job. The agent exports them, so this module needs no OpenTelemetry library.

User code that uses OpenTelemetry's library joins the same trace: see `attach_context`.
"""

from __future__ import annotations

import os
import sys
import time

from sqlflow_submitter.frames import Event, Frame, Span

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlflow_submitter.channel import Channel
    from sqlflow_submitter.frames import Value

MAX_EVENTS = 1000
"""Maximum number of events of a span; later events are dropped."""


class Spans:
    """The spans of one statement. Each is sent when it ends. Does nothing if the job is not traced."""

    def __init__(self, channel: Channel, statement: int) -> None:
        self._channel = channel
        self._statement = statement
        self._is_traced = "TRACEPARENT" in os.environ
        self._open: list[Span] = []
        self._last_id = 0

    def span(self, name: str, attributes: Mapping[str, Value] | None = None) -> OpenSpan:
        """Returns a context manager that opens a span. Spans that are opened inside the block become its children."""
        return OpenSpan(self, name, attributes or {})

    def begin(self, name: str, attributes: Mapping[str, Value]) -> Span | None:
        """Opens a span, or does nothing if the job is not traced."""
        if not self._is_traced:
            return None
        self._last_id += 1
        span = Span(self._last_id, self._open[-1].number if self._open else 0, name, _now())
        span.attributes.update(attributes if self._open else {**attributes, **_process()})
        self._open.append(span)
        return span

    def end(self, span: Span, error: BaseException | None) -> None:
        self._open.remove(span)
        span.end_unix_micros = _now()
        # Only the type, because the message may quote data. The outcome has the message.
        span.error = type(error).__name__ if isinstance(error, Exception) else ""
        try:
            self._channel.send(Frame(span, self._statement))
        except OSError:
            # The agent has exited. This must not hide the error of the block.
            return

    def event(self, name: str, attributes: Mapping[str, Value]) -> None:
        """Adds an event to the innermost open span."""
        if not self._open or len(self._open[-1].events) >= MAX_EVENTS:
            return
        self._open[-1].events.append(Event(name, _now(), attributes))


class OpenSpan:
    """The block of a span. It is a class because `contextlib` takes time to import."""

    def __init__(self, spans: Spans, name: str, attributes: Mapping[str, Value]) -> None:
        self._spans = spans
        self._name = name
        self._attributes = attributes
        self._span: Span | None = None

    def __enter__(self) -> None:
        self._span = self._spans.begin(self._name, self._attributes)

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._span is not None:
            self._spans.end(self._span, error)


def attach_context() -> None:
    """Makes the attempt the parent of spans of user code, if the operator lets it send spans (`--trace-user-code`).

    The library is imported only then, because its import takes time.
    """
    finds_collector = any(name.startswith("OTEL_EXPORTER_OTLP_") for name in os.environ)
    if "TRACEPARENT" not in os.environ or not finds_collector:
        return
    carrier = {name: os.environ.get(name.upper(), "") for name in ("traceparent", "tracestate", "baggage")}
    try:
        from opentelemetry import context, propagate

        # Propagates baggage, and obeys OTEL_PROPAGATORS.
        context.attach(propagate.extract({name: value for name, value in carrier.items() if value}))
    except ImportError:
        return
    except Exception as error:
        # For example, the image's variables name a propagator that it does not have.
        print(f"note: spans of user code have no parent: {error}", file=sys.stderr)


def _process() -> dict[str, Value]:
    """Attributes of this process, by OpenTelemetry's semantic conventions. The agent makes them the resource's."""
    return {
        "process.pid": os.getpid(),
        "process.runtime.name": sys.implementation.name,
        "process.runtime.version": ".".join(map(str, sys.version_info[:3])),
    }


def _now() -> int:
    return time.time_ns() // 1000
