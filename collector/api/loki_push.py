"""`POST /loki/api/v1/push`: log lines from Loki's own clients, at the URL that they know Loki by.

`receivers/loki.py` makes OTLP of a request; from there it goes the way of every export: the same budget of bytes in flight,
the same stores, the same log and its fdatasync before the answer, the same metrics (receiver="loki"). It wants the right to
write. The door opens with the receivers', after the rings are filled, and closes with them.

Answers are Loki's, as Promtail reads them: 204 when all is durable; 429 and 5xx, which it sends again; other 4xx, which
it drops, with why as a line of text. When some streams or entries are refused and the others stored, that is a 400.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from collector.api.access import PUSH_PATH
from collector.errors import Malformed, RingtailError, TooLarge
from collector.otlp.validate import Accepted
from collector.receivers.loki import PUSH_BYTES_MAX, Converted, Converter, NoStreams, unpacked

if TYPE_CHECKING:
    from starlette.requests import Request

    from collector.receivers.admission import Admission, Share
    from collector.receivers.export import Destination, Outcome, Receiver

TENANT: Final = "x-scope-orgid"
INLINE_BYTES_MAX: Final = 16 * 1024
"""What is made OTLP on the event loop; more is, in a thread."""
_CODES: Final = {"overloaded": 429}
"""Where Loki's code differs from OTLP's."""
_NO_STREAMS: Final = 422


class PushDoor:
    """Where push requests come in. Owned by the event loop's thread."""

    def __init__(self, admission: Admission) -> None:
        """Take the budget; nothing is taken in before `open`."""
        self._admission = admission
        self._receiver: Receiver | None = None
        self._thread = ThreadPoolExecutor(1, "push")
        self._converter = Converter()
        self._turn = asyncio.Lock()

    def open(self, receiver: Receiver) -> None:
        """Take requests from now on, for the destinations that a receiver of log records finds."""
        self._receiver = receiver

    def close(self) -> None:
        """End the thread; no request is under way."""
        self._thread.shutdown(wait=True)

    async def __call__(self, request: Request) -> Response:
        """Answer one request."""
        receiver = self._receiver
        if receiver is None:
            return _refusal(503, "the daemon is starting", 1.0)
        try:
            return _answer(await self._take(receiver, request), receiver)
        except NoStreams as error:
            receiver.refused(error)
            return _refusal(_NO_STREAMS, str(error))
        except (RingtailError, ClientDisconnect) as error:
            cause = (
                error if isinstance(error, RingtailError) else Malformed("the client left before its request was whole")
            )
            found = receiver.refused(cause)
            return _refusal(_CODES.get(found.outcome, found.http), found.message, found.retry_after_s)

    async def _take(self, receiver: Receiver, request: Request) -> tuple[Accepted, Converted]:
        """Read a request, make it OTLP, and wait until that is durable."""
        destination = receiver.find(request.headers.get(TENANT, "").strip())
        held = _Held(self._admission.share(), destination.share, _announced(request))
        try:
            body = await _body(request, held)
            converted = await self._converted(request, body, held)
            del body
            if not converted.payload:
                return Accepted(0, 0, ""), converted
            return await _stored(destination, converted.payload), converted
        finally:
            held.release()

    async def _converted(self, request: Request, body: bytes, held: _Held) -> Converted:
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        encoding = request.headers.get("content-encoding", "").strip().lower()

        data = unpacked(body, media_type, encoding, held.grow)
        async with self._turn:
            if len(data) <= INLINE_BYTES_MAX:
                return self._converter.convert(data, media_type)
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._thread, self._converter.convert, data, media_type)


class _Held:
    """What one request holds of the budget."""

    def __init__(self, share: Share, tenant: Share | None, size: int) -> None:
        share.admit(size, tenant)
        self._share = share
        self._tenant = tenant
        self._size = size

    def grow(self, size: int) -> None:
        """Take more; raises Overloaded."""
        self._share.grow(size, self._tenant)
        self._size += size

    def release(self) -> None:
        """Give all of it back."""
        self._share.release(self._size, self._tenant)


def _announced(request: Request) -> int:
    """Return the length of the body; 0 when it is sent in chunks. Raises TooLarge."""
    text = request.headers.get("content-length", "0")
    size = int(text) if text.isdecimal() and text.isascii() and len(text) < 19 else PUSH_BYTES_MAX + 1
    if size > PUSH_BYTES_MAX:
        raise TooLarge(f"the request has {text[:19]} bytes, at most {PUSH_BYTES_MAX} are taken")
    return size


async def _body(request: Request, held: _Held) -> bytes:
    """Read the body. Raises TooLarge over PUSH_BYTES_MAX, and Overloaded."""
    announced = _announced(request)
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > PUSH_BYTES_MAX:
            raise TooLarge(f"the request has more than {PUSH_BYTES_MAX} bytes, which is the limit")
        if size > announced:
            held.grow(len(part))
        parts.append(part)
    return b"".join(parts)


async def _stored(destination: Destination, payload: bytes) -> Accepted:
    """Submit a request, and wait for what becomes of it."""
    future: asyncio.Future[Accepted] = asyncio.get_running_loop().create_future()

    def done(outcome: Outcome) -> None:
        if future.done():
            return
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

    destination.store.submit(payload, done)
    return await future


def _answer(result: tuple[Accepted, Converted], receiver: Receiver) -> Response:
    accepted, converted = result
    reasons = [*converted.reasons, *([accepted.message] if accepted.rejected else [])]
    refused = converted.refused + accepted.rejected
    if refused or reasons:
        text = "; ".join(reasons) or "not all entries could be read"
        receiver.stored(Accepted(accepted.records, refused, text))
        kept = f" ({accepted.records} entries are stored, {refused} are not)" if accepted.records else ""
        return _refusal(400, f"{text}{kept}")
    receiver.stored(accepted)
    return Response(status_code=204)


def _refusal(code: int, message: str, retry_after_s: float | None = None) -> Response:
    headers = {} if retry_after_s is None else {"Retry-After": str(max(1, round(retry_after_s)))}
    return PlainTextResponse(f"{message}\n", code, headers)


def routes(door: PushDoor) -> list[BaseRoute]:
    """Return the route."""
    return [Route(PUSH_PATH, door.__call__, methods=["POST"])]
