"""What requests to Loki's API say: parameters, in the query string or in a form body, with Loki's own defaults and limits.

Times are integers in ns, decimal seconds or RFC 3339; durations are decimal seconds or numbers with units.
"""

from __future__ import annotations

import re
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

import numpy as np

from collector.errors import InvalidQuery, TooLarge
from collector.query.logql.literals import duration_ns
from collector.query.logql.metrics import TIME_MAX

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.requests import Request

ENTRIES_DEFAULT: Final = 100
"""Lines in an answer when the request sets no limit."""
ENTRIES_MAX: Final = 5000
"""The largest limit: Loki's default of max_entries_limit_per_query."""
POINTS_MAX: Final = 11_000
"""Steps of a metric query beyond the first, as in Loki and Prometheus."""
POINTS_DEFAULT: Final = 250
"""About how many steps there are when the request sets no step; none is shorter than a second."""
FORM_BYTES_MAX: Final = 1 << 20
"""The largest form body, in bytes."""

SECOND: Final = 1_000_000_000
YEAR_S: Final = 365 * 86_400
QUERY_SPAN: Final = 3600 * SECOND
"""How far back queries look by default, in ns."""
LABELS_SPAN: Final = 6 * QUERY_SPAN
"""How far back labels and series are looked for by default, in ns."""

_FORM = "application/x-www-form-urlencoded"
_INTEGER = re.compile(r"-?[0-9]+")
_DECIMAL = re.compile(r"-?[0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]{1,3})?|-?[0-9]+\.")
_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d+))?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


class Parameters:
    """A request's parameters, from its form body and its query string, the body first."""

    def __init__(self, pairs: Iterable[tuple[str, str]], now_ns: int) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in pairs:
            self._values.setdefault(name, []).append(value)
        self._now_ns = now_ns

    @classmethod
    async def of(cls, request: Request, now_ns: int) -> Parameters:
        """Read them; raises TooLarge for a body over FORM_BYTES_MAX."""
        body = b""
        if request.headers.get("content-type", "").split(";")[0].strip().lower() == _FORM:
            async for chunk in request.stream():
                body += chunk
                if len(body) > FORM_BYTES_MAX:
                    raise TooLarge(f"the form is larger than {FORM_BYTES_MAX} bytes")
        pairs = parse_qsl(body.decode("ascii", "replace"), keep_blank_values=True) if body else []
        query = request.scope["query_string"].decode("latin-1")
        return cls([*pairs, *parse_qsl(query, keep_blank_values=True)], now_ns)

    def all(self, name: str) -> list[str]:
        """Return every value of a parameter."""
        return self._values.get(name, [])

    def text(self, name: str) -> str:
        """Return the first value of a parameter, or nothing."""
        return self._values.get(name, [""])[0]

    def time(self, name: str) -> int | None:
        """Return a time in Unix ns, if it is given."""
        text = self.text(name)
        return _timestamp_ns(name, text, self._now_ns) if text else None

    def duration(self, name: str) -> int | None:
        """Return a duration in ns, if it is given: seconds, or with units."""
        text = self.text(name)
        return _duration_ns(name, text) if text else None

    def bounds(self, span_ns: int) -> tuple[int, int]:
        """Return start and end in Unix ns. The end is now by default, the start `since`, or a span, before it."""
        end = self.time("end")
        start = self.time("start")
        if end is None:
            end = self._now_ns
        if start is None:
            since = self.duration("since")
            start = max(0, min(end, self._now_ns) - (span_ns if since is None else since))
        if end < start:
            raise InvalidQuery("end timestamp must not be before or equal to start time")
        return start, end

    def interval(self) -> int:
        """Return how far lines must be from each other, in ns; 0 for any."""
        interval = self.duration("interval") or 0
        if interval < 0:
            raise InvalidQuery("interval must be >= 0")
        return interval

    def step(self, start_ns: int, end_ns: int) -> int:
        """Return the step in ns; by default a 250th of the range, and no less than a second."""
        step = self.duration("step")
        if step is None:
            step = max((end_ns - start_ns) // SECOND // POINTS_DEFAULT, 1) * SECOND
        if step <= 0:
            raise InvalidQuery("zero or negative query resolution step widths are not accepted. Try a positive integer")
        return step

    def now(self, name: str) -> int:
        """Return a time in Unix ns; now by default."""
        time = self.time(name)
        return self._now_ns if time is None else time

    def number(self, name: str, default: int, most: int = ENTRIES_MAX) -> int:
        """Return how much of something is wanted: from 1 to `most`."""
        text = self.text(name) or str(default)
        number = int(text) if _INTEGER.fullmatch(text) and len(text) < 10 else 0
        if not 0 < number <= most:
            raise InvalidQuery(f"{name} must be a positive value of at most {most}, not {text[:40]!r}")
        return number

    def limit(self) -> int:
        """Return how many lines are wanted."""
        text = self.text("limit") or str(ENTRIES_DEFAULT)
        limit = int(text) if _INTEGER.fullmatch(text) and len(text) < 10 else 0
        if limit <= 0:
            raise InvalidQuery(f"limit must be a positive value, not {text[:40]!r}")
        if limit > ENTRIES_MAX:
            raise InvalidQuery(
                f"max entries limit per query exceeded, limit > max_entries_limit_per_query ({limit} > {ENTRIES_MAX})"
            )
        return limit

    def oldest_first(self) -> bool:
        """Return the direction; newest first by default."""
        direction = self.text("direction").lower() or "backward"
        if direction not in ("forward", "backward"):
            raise InvalidQuery(f"direction must be forward or backward, not {direction[:40]!r}")
        return direction == "forward"

    def steps(self, start_ns: int, end_ns: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return the times that a metric query is evaluated at, in Unix ns."""
        step = self.step(start_ns, end_ns)
        count = (end_ns - start_ns) // step
        if count > POINTS_MAX:
            raise InvalidQuery(
                "exceeded maximum resolution of 11,000 points per time series. "
                "Try increasing the value of the step parameter"
            )
        return np.int64(start_ns) + np.arange(count + 1, dtype=np.int64) * np.int64(step if count else 0)


def _timestamp_ns(name: str, text: str, now_ns: int) -> int:
    """Read a time: an integer in ns, decimal seconds, or RFC 3339.

    An integer of ten digits is taken for seconds if that makes a time up to a year from now: what `date +%s`
    writes, which Loki reads so too. In nanoseconds it would be in the first seconds of 1970.
    """
    match = _RFC3339.fullmatch(text)
    if match is not None:
        date, time, fraction, zone = match.groups()
        try:
            moment = datetime.fromisoformat(f"{date}T{time}{zone.upper().replace('Z', '+00:00')}")
        except ValueError as error:
            raise InvalidQuery(f"{name}: {text[:60]!r}: {error}") from None
        value = int(moment.timestamp()) * SECOND + int((fraction or "")[:9].ljust(9, "0"))
    elif _INTEGER.fullmatch(text) and len(text) <= 100:
        value = int(text)
        if len(text) == 10 and 10**9 <= value <= now_ns // SECOND + YEAR_S:
            value *= SECOND
    elif _DECIMAL.fullmatch(text) and len(text) <= 100:
        value = int(Decimal(text) * SECOND)
    else:
        raise InvalidQuery(f"{name}: {text[:60]!r} is no time: give Unix nanoseconds, decimal seconds or RFC 3339")
    return min(max(value, 0), TIME_MAX)


def _duration_ns(name: str, text: str) -> int:
    """Read a duration: decimal seconds, or numbers with units."""
    if _DECIMAL.fullmatch(text) and len(text) <= 100:
        return min(int(Decimal(text) * SECOND), TIME_MAX)
    try:
        return duration_ns(text)
    except ValueError as error:
        raise InvalidQuery(f"{name}: {error}") from None
