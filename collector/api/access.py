"""Who may ask the query API: an ASGI application around the others, which judges requests by their heads.

Anybody may ask `/healthz` and `/readyz`, which say nothing about the data. Everything else wants the right to read;
what is under `/-/` or deletes, and methods that delete or put, want the right to administer; Loki's push wants the right to write.
WebSockets are judged like requests, by the head that opens them; who gives an answer that lasts has it judged again (`AGAIN`). A path that does not exist is
refused to strangers like any other. Errors have the form of the API whose path was asked: Prometheus' is JSON, Tempo's
and Loki's are a line of text.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec
from starlette.responses import PlainTextResponse, Response

from collector.api.status import http_code
from collector.errors import Overloaded, RingtailError, Unauthenticated
from collector.security.rights import ADMINISTER, NOBODY, READ, WRITE

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from collector.security.gate import Gate
    from collector.security.hosts import HostGuard

OPEN_PATHS: Final = frozenset({"/healthz", "/readyz"})
ADMINISTRATION: Final = "/-/"
ASKING_METHODS: Final = frozenset({"GET", "HEAD", "POST", "OPTIONS"})
"""Queries come by POST, too, when they are long."""
PEER: Final = "ringtail.peer"
"""Where a connection's state has the names in the client's certificate."""
AGAIN: Final = "ringtail.again"
"""Where a request's state has what judges its client again, for answers that last; it raises what speaks against it."""
DELETE_PATH: Final = "/api/delete"
"""What is deleted by, whatever the method."""
PUSH_PATH: Final = "/loki/api/v1/push"
"""What is written to."""

_PROMETHEUS_KINDS: Final = {401: "unauthorized", 403: "forbidden", 421: "forbidden", 503: "unavailable"}


def right_for(method: str, path: str) -> int:
    """Return the right that a request needs; NOBODY if anybody may."""
    if path in OPEN_PATHS:
        return NOBODY
    if path == PUSH_PATH and method == "POST":
        return WRITE
    administers = path.startswith(ADMINISTRATION) or path == DELETE_PATH or method not in ASKING_METHODS
    return ADMINISTER if administers else READ


class AccessControl:
    """The application around the application."""

    def __init__(self, app: ASGIApp, gate: Gate | None, hosts: HostGuard) -> None:
        """Let through to `app` what `gate` (None: everybody) and `hosts` allow."""
        self._app = app
        self._gate = gate
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] in ("http", "websocket"):
            try:
                await self._judge(scope)
            except RingtailError as error:
                await refusal(scope["path"], error)(scope, receive, send)
                return
            scope.setdefault("state", {})[AGAIN] = partial(self._judge, scope)
        await self._app(scope, receive, send)

    async def _judge(self, scope: Scope) -> None:
        host = authorization = origin = tenant = b""
        for name, value in scope["headers"]:
            if name == b"host":
                host = host + b"," + value if host else value
            elif name == b"authorization":
                authorization = authorization + b", " + value if authorization else value
            elif name == b"origin":
                origin = value
            elif name == b"x-scope-orgid":
                tenant = tenant + b", " + value if tenant else value
        self._hosts.require(host)
        self._hosts.require_origin(origin, host)
        right = right_for(scope.get("method", "GET"), scope["path"])
        if self._gate is not None and right != NOBODY:
            named = tenant.decode("latin-1").strip()
            checking = self._gate.admit(authorization, scope.get("state", {}).get(PEER, frozenset()), right, named)
            if checking is not None:
                # Others may wait for the same check.
                self._gate.require(await asyncio.shield(checking), right, named)


def refusal(path: str, error: RingtailError) -> Response:
    """Return the answer to a request that is not let through, in the form of the API that it is for."""
    code = http_code(error)
    if path.startswith("/api/v1/"):
        body = {"status": "error", "errorType": _PROMETHEUS_KINDS[code], "error": str(error)}
        made: Response = Response(msgspec.json.encode(body), code, media_type="application/json")
    else:
        made = PlainTextResponse(f"{error}\n", code)
    if isinstance(error, Unauthenticated):
        for challenge in error.challenges:
            made.headers.append("WWW-Authenticate", challenge)
    if isinstance(error, Overloaded):
        made.headers["Retry-After"] = str(max(1, round(error.retry_after_s)))
    return made
