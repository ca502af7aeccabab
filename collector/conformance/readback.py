"""What a server has stored, asked for through the APIs of Tempo, Loki and Prometheus.

Everything is asked for by names and ids that only one check uses, and asked again for a while: many servers show a
record some time after they have acknowledged it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlencode

from google.protobuf.message import DecodeError
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from collector.conformance.check import Failed
from collector.conformance.http_client import HttpClient

if TYPE_CHECKING:
    from collections.abc import Mapping

    from collector.clock import Clock

PATIENCE_S: Final = 10.0
"""How long a record may take to show."""
_PAUSE_S: Final = 0.1
_HOUR_NS: Final = 3_600_000_000_000

T = TypeVar("T")


class Readback:
    """The query API of a server."""

    def __init__(self, url: str, headers: Mapping[str, str], timeout_s: float, clock: Clock) -> None:
        self._client = HttpClient(url, headers, timeout_s)
        self._clock = clock

    def trace(self, trace_id: bytes) -> bytes:
        """Return a trace as protobuf (Tempo's `/api/traces/ID`); Failed when it does not show."""

        def ask() -> bytes | None:
            code, body = self._get(f"/api/traces/{trace_id.hex()}", "application/protobuf")
            return body if code == 200 and body else None

        return self._until(ask, f"trace {trace_id.hex()}")

    def trace_message(self, trace_id: bytes) -> Any:
        """Return the same, parsed as TracesData."""
        body = self.trace(trace_id)
        try:
            return TracesData.FromString(body)
        except DecodeError as error:
            raise Failed(f"the query API answers no protobuf: {error}") from error

    def log_line(self, service: str) -> tuple[int, str, dict[str, str]]:
        """Return time in ns, line and labels of the one log record of a service (Loki's `query_range`)."""

        def ask() -> tuple[int, str, dict[str, str]] | None:
            now = self._clock.now_ns()
            query = {"query": f'{{service_name="{service}"}}', "start": now - 2 * _HOUR_NS, "end": now + _HOUR_NS}
            code, body = self._get(f"/loki/api/v1/query_range?{urlencode(query)}", "application/json")
            streams = json.loads(body)["data"]["result"] if code == 200 else []
            for stream in streams:
                for time, line, *more in stream["values"]:
                    labels = {**stream["stream"], **(more[0].get("structuredMetadata", {}) if more else {})}
                    return int(time), line, labels
            return None

        return self._until(ask, f"the log record of {service}")

    def value(self, metric: str) -> str | None:
        """Return the newest value of a metric, as Prometheus' `query` writes it; None when there is none now."""
        code, body = self._get(f"/api/v1/query?{urlencode({'query': metric})}", "application/json")
        if code != 200:
            raise Failed(f"Prometheus' API answers {code}")
        found = json.loads(body)["data"]["result"]
        return str(found[0]["value"][1]) if found else None

    def value_of(self, metric: str) -> str:
        """Return the same; Failed when it does not show."""
        return self._until(lambda: self.value(metric), f"metric {metric}")

    def _get(self, path: str, accept: str) -> tuple[int, bytes]:
        response = self._client.exchange(self._client.head("GET", path, {"Accept": accept}), "GET")
        return response.code, response.body

    def _until(self, ask: Callable[[], T | None], what: str) -> T:
        end = self._clock.monotonic() + PATIENCE_S
        while (found := ask()) is None:
            if self._clock.monotonic() > end:
                raise Failed(f"{what} was acknowledged and does not show within {PATIENCE_S:.0f} s")
            threading.Event().wait(_PAUSE_S)
        return found
