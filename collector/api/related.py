"""`GET /api/related`: from a trace to its log records, and from a log record to its trace, in one call.

The answer is made for programs that read it: OTLP's names, ids in hex, times in Unix ns as text, and bodies and attributes as
plain JSON (`otlp/plain.py`). Log records stand under the spans that they name, both in order of time. docs/api.md has an
example.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from collector.api.partial import not_found
from collector.api.tempo import NO_ROOT, answering, covered, cursor_of, json_response, number_of
from collector.errors import InvalidQuery, NotFound
from collector.otlp.plain import plain, plain_number, plain_pairs
from collector.otlp.records import record, service_name
from collector.query.logql.labels import Records
from collector.query.logql.levels import LEVEL
from collector.query.offsets import END, at_offsets
from collector.query.related import exemplars_of, in_short, log_page
from collector.query.traceql.asking import trace_id_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

    from collector.otlp.records import Ref
    from collector.query.deadline import Deadline
    from collector.query.engine import Engine
    from collector.query.related import Exemplar, Place, SpanInShort, TraceInShort
    from collector.store import Store, View

LIMIT_DEFAULT: Final = 200
LIMIT_MAX: Final = 5000
"""Log records in an answer."""
_TRACE_ID_BYTES, _SPAN_ID_BYTES = 16, 8


def routes(stores: Mapping[str, Store], engine: Engine) -> list[BaseRoute]:
    """Return the route over all three stores."""
    return [Route("/api/related", answering(_Related(stores, engine).related))]


class _Related:
    def __init__(self, stores: Mapping[str, Store], engine: Engine) -> None:
        self._stores = stores
        self._engine = engine

    async def related(self, request: Request) -> Response:
        asked = request.query_params
        limit = number_of(request, "limit", LIMIT_DEFAULT, 1, LIMIT_MAX)
        pinned, after = cursor_of(request)
        head: dict[str, Any] = {}
        if asked.get("log_offset"):
            if asked.get("trace_id") or asked.get("span_id"):
                raise InvalidQuery("log_offset stands for the trace and the span of that record: give it alone")
            head = await self._log(number_of(request, "log_offset", 0, 0, END - 1))
            if not head["traceId"]:
                return json_response(head)
            # All of the trace, so that what led to this record is there.
            trace, span = bytes.fromhex(head["traceId"]), None
        else:
            trace, span = _trace_id(asked.get("trace_id", "")), _span_id(asked.get("span_id", ""))
        with (
            self._stores["traces"].view("trace_id", trace) as traces,
            self._stores["logs"].view("trace_id", trace) as logs,
            self._stores["metrics"].view(ring_only=True) as metrics,
        ):
            if pinned is not None:
                logs.cut(pinned)
            body = await self._engine.run(_answer, traces, logs, metrics, trace, span, limit, after, head)
        return Response(body, media_type="application/json")

    async def _log(self, offset: int) -> dict[str, Any]:
        """Return the answer about a log record that names no trace: its part of any. Raises NotFound when it is not held."""
        with self._stores["logs"].view() as view:
            found = await self._engine.run(_log_at, view, offset)
            coverage = covered(view)
        if found is None:
            held = f"from {coverage['oldestOffset']} to before {coverage['nextOffset']}"
            raise NotFound(f"there is no log record at offset {offset} any more, or yet: there are those {held}")
        return found | {"trace": None, "spans": [], "coverage": {"logs": coverage}}


def _trace_id(text: str) -> bytes:
    trace = trace_id_bytes(text) if text else None
    if trace is None:
        raise InvalidQuery(
            f"trace_id must have up to 32 hex digits, unlike {text[:50]!r}"
            if text
            else "what is asked about is missing: trace_id, with span_id if it is about one span, or log_offset"
        )
    return trace


def _span_id(text: str) -> bytes | None:
    if not text:
        return None
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b""
    if len(found) != _SPAN_ID_BYTES or not text.isalnum():
        raise InvalidQuery(f"span_id must have 16 hex digits, unlike {text[:50]!r}")
    return found


# --- in a worker thread -----------------------------------------------------------------------------------------


def _log_at(deadline: Deadline, view: View, offset: int) -> dict[str, Any] | None:
    for ref in at_offsets(view, [offset], deadline):
        message = record(ref.block, ref.row)
        trace = message.trace_id if len(message.trace_id) == _TRACE_ID_BYTES and any(message.trace_id) else b""
        return {"traceId": trace.hex(), "log": _log_record(ref, message, Records()) | {"spanId": message.span_id.hex()}}
    return None


def _answer(
    deadline: Deadline,
    traces: View,
    logs: View,
    metrics: View,
    trace: bytes,
    span: bytes | None,
    limit: int,
    after: Place | None,
    head: dict[str, Any],
) -> bytes:
    page = log_page(deadline, logs, limit, span, after)
    records: dict[bytes, list[dict[str, Any]]] = {} if span is None else {span: []}
    reader = Records()
    for ref in page.refs:
        deadline.check()
        message = record(ref.block, ref.row)
        records.setdefault(message.span_id, []).append(_log_record(ref, message, reader))
    about = in_short(deadline, traces, [one for one in records if len(one) == _SPAN_ID_BYTES])
    if about is None and not page.refs and after is None:
        raise not_found(f"neither a span nor a log record of trace {trace.hex()} is held", traces, logs)
    if span is not None and not records[span] and (about is None or span not in about.named):
        raise not_found(
            f"neither the span {span.hex()} nor a log record of it is held in trace {trace.hex()}", traces, logs
        )
    named = about.named if about is not None else {}
    answer = {
        **head,
        "traceId": trace.hex(),
        "trace": _trace(about),
        "spans": [_span(one, named.get(one)) | {"logRecords": found} for one, found in records.items()],
    }
    if page.more:
        last = page.refs[-1]
        answer["nextCursor"] = f"{logs.next_offset}.{last.time}.{last.offset}"
    if about is not None and after is None:
        found = exemplars_of(deadline, metrics, trace, about.start, about.end)
        answer["exemplars"] = [_exemplar(one) for one in found if span in (None, one.exemplar.span_id)]
    answer["coverage"] = {"traces": covered(traces), "logs": covered(logs)}
    return msgspec.json.encode(answer)


def _trace(about: TraceInShort | None) -> dict[str, Any] | None:
    if about is None:
        return None
    root = about.root
    return {
        "rootServiceName": root.service if root is not None else NO_ROOT,
        "rootTraceName": root.name if root is not None else "",
        "rootSpanId": root.span_id.hex() if root is not None else "",
        "startTimeUnixNano": str(about.start),
        "durationNano": str(about.end - about.start),
        "spanCount": about.spans,
        "errorCount": about.errors,
        "serviceStats": {
            name: {"spanCount": count, "errorCount": errors} for name, (count, errors) in about.services.items()
        },
        "complete": not about.missing.missing and root is not None,
        "message": about.missing.message or ("" if root is not None else "the root span is not held"),
    }


def _span(span_id: bytes, span: SpanInShort | None) -> dict[str, Any]:
    if span is None:
        return {"spanId": span_id.hex(), "held": False}
    return {
        "spanId": span_id.hex(),
        "held": True,
        "parentSpanId": span.parent_span_id.hex(),
        "name": span.name,
        "service": span.service,
        "startTimeUnixNano": str(span.start),
        "durationNano": str(span.end - span.start),
        "error": span.is_error,
    }


def _log_record(ref: Ref, message: Any, reader: Records) -> dict[str, Any]:
    group = int(ref.block.column("group")[ref.row])
    labels = reader.container(ref.block, group).stream | reader.metadata(ref.block, ref.row, message)
    shown: dict[str, Any] = {
        "offset": str(ref.offset),
        "timeUnixNano": str(ref.time),
        "level": labels.get(LEVEL, ""),
        "severityNumber": message.severity_number,
        "severityText": message.severity_text,
        "service": service_name(ref.block, group),
        "body": plain(message.body),
        "attributes": plain_pairs(message.attributes),
    }
    if message.event_name:
        shown["eventName"] = message.event_name
    return shown


def _exemplar(one: Exemplar) -> dict[str, Any]:
    exemplar = one.exemplar
    value = exemplar.as_int if exemplar.WhichOneof("value") == "as_int" else plain_number(exemplar.as_double)
    return {
        "metric": one.metric,
        "service": one.service,
        "attributes": plain_pairs(one.point.attributes),
        "timeUnixNano": str(exemplar.time_unix_nano),
        "value": value,
        "spanId": exemplar.span_id.hex(),
    }
