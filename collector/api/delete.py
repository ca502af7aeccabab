"""Deleting what is held: `DELETE /api/traces/{id}` and `POST /api/delete`, for who may administer. See docs/api.md.

`POST` takes its parameters from the query string or a form: `trace_id` (repeated), or `query` with `signal` (traces, logs, metrics),
`start`, `end`, `whole_traces`; and `dry_run`. The answer is JSON: how many records of each signal were deleted, and which
exporters are being told. When it comes, the deletion lasts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from starlette.routing import BaseRoute, Route

from collector.api.access import DELETE_PATH
from collector.api.loki_parameters import Parameters
from collector.api.tempo import answering, json_response
from collector.errors import InvalidQuery
from collector.otlp.signals import BY_NAME
from collector.query.deleting import TRACES_MAX, Deletion
from collector.query.slices import END_OF_TIME
from collector.query.traceql.asking import trace_id_bytes

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from collector.clock import Clock
    from collector.otlp.signals import Signal
    from collector.query.deleting import Deleting

_YES: Final = {"": False, "0": False, "false": False, "1": True, "true": True}


def routes(deleting: Deleting, clock: Clock) -> list[BaseRoute]:
    """Return the routes over the stores that `deleting` knows."""

    async def delete(request: Request) -> Response:
        return await _delete(deleting, _wanted(await Parameters.of(request, clock.now_ns())))

    async def one(request: Request) -> Response:
        return await _delete(deleting, Deletion((_trace_id(request.path_params["id"]),)))

    return [
        Route(DELETE_PATH, answering(delete, language=""), methods=["POST"]),
        Route("/api/traces/{id}", answering(one), methods=["DELETE"]),
        Route("/api/v2/traces/{id}", answering(one), methods=["DELETE"]),
    ]


async def _delete(deleting: Deleting, wanted: Deletion) -> Response:
    done = await deleting.run(wanted)
    return json_response({"deleted": done.records, "backends": done.backends, "dry_run": wanted.dry_run})


def _wanted(asked: Parameters) -> Deletion:
    ids = asked.all("trace_id")
    if len(ids) > TRACES_MAX:
        raise InvalidQuery(f"{len(ids)} traces; {TRACES_MAX} are deleted at once, at most")
    start, end = asked.time("start"), asked.time("end")
    if ids and (start is not None or end is not None):
        raise InvalidQuery("start and end are for a query; traces are deleted whole")
    return Deletion(
        tuple(_trace_id(one) for one in dict.fromkeys(ids)),
        _signal(asked.text("signal"), by_query=not ids),
        asked.text("query"),
        start or 0,
        END_OF_TIME if end is None else end,
        whole_traces=_flag(asked, "whole_traces"),
        dry_run=_flag(asked, "dry_run"),
    )


def _trace_id(text: str) -> bytes:
    found = trace_id_bytes(text)
    if found is None or not any(found):
        raise InvalidQuery(f"{text[:50]!r} is no trace id")
    return found


def _signal(text: str, *, by_query: bool) -> Signal | None:
    found = BY_NAME.get(text or "traces")
    if found is None:
        raise InvalidQuery(f"signal is one of {', '.join(BY_NAME)}, not {text[:50]!r}")
    return found if text or by_query else None


def _flag(asked: Parameters, name: str) -> bool:
    text = asked.text(name).lower()
    if text not in _YES:
        raise InvalidQuery(f"{name} is true or false, not {text[:50]!r}")
    return _YES[text]
