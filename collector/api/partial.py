"""Answers that may lack something say so, whichever API they are of.

Queries reach back into a backend (query/reach.py), which may be away or slow; and a part of the log may be damaged. Then they
answer with what there is. Every HTTP answer that was made of less has the header `X-Ringtail-Partial` with the reason. Where
an API has a place for it beside, its handlers put it there, too: `missing` tells, on the event loop, what the views of the
request under way lack. What retention has removed is not among it: an answer says what is held.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from collector.errors import NotFound, Unavailable
from collector.store import OPENED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from collector.store import View

HEADER: Final = b"x-ringtail-partial"
RETRY_S: Final = 5.0


def lacking(*views: View) -> list[str]:
    """Return why answers from these views may lack records; empty when they do not. In any thread."""
    return [*_unreadable(views), *_away(views)]


def missing() -> list[str]:
    """Return the same for all views of the request under way."""
    return lacking(*(OPENED.get() or ()))


def _away(views: Sequence[View]) -> list[str]:
    """Return what could not be looked for in backends, and may be there later."""
    return list(dict.fromkeys(reason for view in views if view.behind is not None for reason in view.behind.missing))


def _unreadable(views: Sequence[View]) -> list[str]:
    """Return what cannot be read of the views' logs, a text for each signal."""
    found = []
    for signal, log in {view.signal: view.log for view in views if view.log is not None}.items():
        if damaged := log.damaged:
            records = sum(one.end_offset - one.first_offset for one in damaged)
            found.append(
                f"{records} {signal.noun} cannot be read, from offset {damaged[0].first_offset} on, and may be missing "
                "here: their place in the log is damaged"
            )
    return found


def warnings(*more: str) -> dict[str, list[str]]:
    """Return it, and what else there is to warn about, as the field `warnings` of Prometheus' and Loki's answers; empty
    when there is nothing."""
    reasons = [*missing(), *more]
    return {"warnings": reasons} if reasons else {}


def partial_metrics() -> dict[str, Any]:
    """Return it as fields of the `metrics` of Tempo's answers."""
    reasons = missing()
    return {"partial": True, "message": "; ".join(reasons)} if reasons else {}


def not_found(text: str, *views: View) -> NotFound | Unavailable:
    """Return the cause to raise when nothing was found in views, by default those of the request under way.

    What could not be looked for in a backend may be there all the same: then it is Unavailable.
    """
    views = views or tuple(OPENED.get() or ())
    if reasons := _away(views):
        return Unavailable("; ".join((text, reasons[0])), RETRY_S)
    return NotFound("; ".join((text, *_unreadable(views))))


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

        token = OPENED.set([])
        try:
            await self._app(scope, receive, tell)
        finally:
            OPENED.reset(token)
