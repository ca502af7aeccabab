"""The query API of several tenants: a request goes to the application of the tenant that it names.

What operators ask (`OPERATORS`) names none. `/api/stats` answers both: with a name, what that tenant holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from starlette.responses import PlainTextResponse

from collector.api.access import PUSH_PATH
from collector.api.status import http_code
from collector.errors import RingtailError

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Receive, Scope, Send

OPERATORS: Final = frozenset({"/", "/healthz", "/readyz", "/metrics", "/api/stats", "/-/reload"})
_WITHOUT_TENANT: Final = OPERATORS | {PUSH_PATH}
"""What names no tenant, and what finds it by itself: a tenant may come to be by being written to."""
_HEADER: Final = b"x-scope-orgid"


class TenantApps:
    """An ASGI application made of one for operators, and one for each tenant."""

    def __init__(self, operators: ASGIApp, find: Callable[[str], ASGIApp]) -> None:
        """`find` returns a tenant's application, or raises a RingtailError for a name that is none."""
        self._operators = operators
        self._find = find

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        names = [value.decode("latin-1").strip() for name, value in scope["headers"] if name == _HEADER]
        app = self._operators
        if scope["path"] not in _WITHOUT_TENANT or (names and scope["path"] == "/api/stats"):
            try:
                app = self._find(", ".join(names))
            except RingtailError as error:
                app = PlainTextResponse(f"{error}\n", http_code(error))
        await app(scope, receive, send)
