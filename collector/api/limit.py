"""How large an answer may be: `api.max_response_size`, of every API alike.

Queries have limits of their own (rows, series, steps), which say little about bytes: a line, a label or a trace may be of
any size. So an answer is looked at before its first byte goes out, and one that is too large becomes an error that
says how large it would be, in the form of the API whose path was asked. It is never cut: half an answer looks like
a whole one to who cannot tell. Where an answer would take many times its size in the making, as traces do in JSON,
`require` refuses it before.

The limit is on the body as it is sent, and that is made whole before it is judged: the memory that takes is bounded by the
queries' own limits. What operators ask (`OPERATORS`) is as large as the daemon's own state, and
always answered; a stream, which announces no length, has no size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec
from starlette.responses import PlainTextResponse, Response

from collector.api.status import http_code
from collector.api.tenants import OPERATORS
from collector.errors import InvalidQuery, QueryLimit

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

KEY: Final = "api.max_response_size"
RESPONSE_BYTES_MAX: Final = 64 * 1024 * 1024
"""The limit when nobody sets one: as much as a request may have."""
TRACE_SHARE: Final = 8
"""A trace is several times as large in JSON as in protobuf, and many times that while JSON is made of it: it may have
the limit divided by this, in protobuf."""


class ResponseLimit:
    """The limit that all applications of a daemon share; a reload sets `bytes_max`."""

    def __init__(self, bytes_max: int = RESPONSE_BYTES_MAX) -> None:
        """Answers may have `bytes_max` bytes."""
        self.bytes_max = bytes_max

    def require(self, size: int) -> None:
        """Raise QueryLimit for an answer of `size` bytes that is too large."""
        if size > self.bytes_max:
            raise QueryLimit(
                f"the answer has {size} bytes, and {KEY} is {self.bytes_max}: ask for less (a shorter time range, a "
                "smaller limit, a larger step), or raise it"
            )

    def require_trace(self, size: int, otherwise: str) -> None:
        """Raise QueryLimit for traces of `size` bytes of protobuf that are too large to be made JSON of.

        `otherwise` says what else can be asked for.
        """
        most = self.bytes_max // TRACE_SHARE
        if size > most:
            raise QueryLimit(
                f"the spans have {size} bytes; as JSON at most {most} are answered, a part of {KEY}; {otherwise}"
            )


class LimitedResponses:
    """The application around the application."""

    def __init__(self, app: ASGIApp, limit: ResponseLimit) -> None:
        """Let through what `app` answers within the limit."""
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["path"] in OPERATORS:
            await self._app(scope, receive, send)
            return
        refused: Response | None = None

        async def judge(message: Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start":
                refused = self._judge(scope["path"], message)
                if refused is not None:
                    await refused(scope, receive, send)
            if refused is None:
                await send(message)

        await self._app(scope, receive, judge)

    def _judge(self, path: str, start: Message) -> Response | None:
        """Return what is answered in the place of an answer that is too large."""
        try:
            self._limit.require(next((int(value) for name, value in start["headers"] if name == b"content-length"), 0))
        except QueryLimit as error:
            return refusal(path, error)
        return None


def refusal(path: str, error: QueryLimit) -> Response:
    """Return the answer to a query that is over a limit, in the form of the API that it is for."""
    code = http_code(error)
    body: Any = None
    if path.startswith("/api/v1/"):
        body = {"status": "error", "errorType": "execution", "error": str(error)}
    elif path.startswith("/jaeger/api/v3/"):
        body = {"error": {"httpCode": code, "message": str(error)}}
    elif path.startswith("/jaeger/"):
        errors = [{"code": code, "msg": str(error)}]
        body = {"data": None, "total": 0, "limit": 0, "offset": 0, "errors": errors}
    if body is not None:
        return Response(msgspec.json.encode(body), code, media_type="application/json")
    # Limits are the client's to mind, says Loki.
    return PlainTextResponse(str(error), http_code(InvalidQuery("")) if path.startswith("/loki/") else code)
