"""The envelope of version 1 of Jaeger's API: `{"data", "total", "limit", "offset", "errors"}`."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.responses import Response

from collector.api.partial import missing
from collector.api.status import http_code
from collector.errors import Overloaded, RingtailError, Unavailable


def enveloped(data: Any) -> Response:
    """Return data; `total` is how many there are, or the number itself. What may be missing from it stands in `errors`."""
    total = data if isinstance(data, int) else len(data)
    errors = [{"code": 206, "msg": reason} for reason in missing()] or None
    return _answer({"data": data, "total": total, "limit": 0, "offset": 0, "errors": errors}, 200, {})


def failed(error: RingtailError) -> Response:
    """Return why there is nothing."""
    code, headers = http_code(error), {}
    if isinstance(error, Overloaded | Unavailable):
        headers["Retry-After"] = str(max(1, round(error.retry_after_s)))
    errors = [{"code": code, "msg": str(error)}]
    return _answer({"data": None, "total": 0, "limit": 0, "offset": 0, "errors": errors}, code, headers)


def _answer(body: dict[str, Any], code: int, headers: dict[str, str]) -> Response:
    return Response(msgspec.json.encode(body), code, headers, media_type="application/json")
