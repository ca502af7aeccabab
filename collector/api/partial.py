"""Answers that may lack what only a backend has say so, whichever API they are of.

Queries reach back into a backend (query/reach.py), which may be away or slow; then they answer with what there is. Every
HTTP answer that was made of less has the header `X-Ringtail-Partial` with the reason. Where an API has a place for it
beside, its handlers put it there, too: `missing` tells, on the event loop, what the views of the request under way lack.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from collector.errors import NotFound, Unavailable
from collector.query.reach import REACHES

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from collector.store import View

HEADER: Final = b"x-ringtail-partial"
RETRY_S: Final = 5.0


def lacking(*views: View) -> list[str]:
    """Return why answers from these views may lack records; empty when they do not. In any thread."""
    found = [reason for view in views if view.behind is not None for reason in view.behind.missing]
    return list(dict.fromkeys(found))


def missing() -> list[str]:
    """Return the same for all views of the request under way."""
    return list(dict.fromkeys(reason for one in REACHES.get() or () for reason in one.missing))


def warnings(*more: str) -> dict[str, list[str]]:
    """Return it, and what else there is to warn about, as the field `warnings` of Prometheus' and Loki's answers; empty
    when there is nothing."""
    reasons = [*missing(), *more]
    return {"warnings": reasons} if reasons else {}


def partial_metrics() -> dict[str, Any]:
    """Return it as fields of the `metrics` of Tempo's answers."""
    reasons = missing()
    return {"partial": True, "message": "; ".join(reasons)} if reasons else {}


def not_found(text: str) -> NotFound | Unavailable:
    """Return the cause to raise when nothing was found: what could not be looked for may be there all the same."""
    reasons = missing()
    return Unavailable(f"{text}; {reasons[0]}", RETRY_S) if reasons else NotFound(text)


class PartialAnswers:
    """The application around the application that adds the header."""

    def __init__(self, app: ASGIApp) -> None:
        """Tell of what `app` answers."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def tell(message: Message) -> None:
            if message["type"] == "http.response.start" and (reasons := missing()):
                text = "; ".join(reasons).encode("ascii", "replace").replace(b"\n", b" ").replace(b"\r", b" ")
                message = {**message, "headers": [*message["headers"], (HEADER, text)]}
            await send(message)

        token = REACHES.set([])
        try:
            await self._app(scope, receive, tell)
        finally:
            REACHES.reset(token)
