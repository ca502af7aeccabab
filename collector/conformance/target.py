"""The server under test: its endpoints, what may be done to it, and how its answers to exports are read.

A Ringtail that the kit has started may be started again with other settings (`variant`), stopped and killed; of
anybody else's server only the endpoints are known.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, NamedTuple, Self

from google.protobuf.message import DecodeError

from collector.clock import Clock
from collector.conformance.check import Failed, Skipped
from collector.conformance.grpc_client import GrpcAnswer, GrpcClient
from collector.conformance.http_client import JSON, HttpClient, Response, shown
from collector.conformance.launcher import Ringtail
from collector.conformance.payloads import Payloads
from collector.conformance.readback import Readback
from collector.otlp.signals import Signal

MIB: Final = 1024 * 1024
LIMIT_BYTES: Final = 64 * MIB
"""The size limit that OTLP recommends."""
TIMEOUT_S: Final = 10.0
"""What an exporter waits for an answer by default."""
ORIGIN: Final = "https://app.example"
CUSTOM_PATH: Final = "/custom/traces"

LIMITED: Final = (
    "receivers.otlp.protocols.grpc.max_recv_msg_size_mib=1",
    "receivers.otlp.protocols.http.max_request_body_size=1MiB",
    f"receivers.otlp.protocols.http.cors.allowed_origins={ORIGIN}",
    "receivers.otlp.protocols.http.cors.allowed_headers=[content-type, content-encoding, authorization]",
    f"receivers.otlp.protocols.http.traces_url_path={CUSTOM_PATH}",
)
"""A Ringtail with small limits, and with what is off by default."""
KNOWN: Final = {"Authorization": "Bearer conformance-writer"}
"""What a Ringtail that asks lets write,"""
POWERLESS: Final = {"Authorization": "Bearer conformance-reader"}
"""and whom it knows and does not let write."""
_WRITER: Final = "{name: writer, rights: write, tokens: conformance-writer}"
_READER: Final = "{name: reader, rights: read, tokens: conformance-reader}"
GUARDED: Final = (f"auth.credentials=[{_WRITER}, {_READER}]",)
"""A Ringtail that asks its clients who they are."""
CROWDED: Final = ("receivers.otlp.max_in_flight_bytes=1MiB",)
"""A Ringtail that has no room once one large request is under way."""


class Partial(NamedTuple):
    """A partial_success that was set."""

    rejected: int
    message: str


class Outcome(NamedTuple):
    """What became of one export, whichever transport it took."""

    accepted: bool
    """Whether the answer was a success, a partial one included."""
    malformed: bool
    """Whether the whole request was refused as one that is wrong: 400, INVALID_ARGUMENT."""
    partial: Partial | None
    words: str

    @property
    def rejected(self) -> int:
        """Records that were rejected by partial success."""
        return self.partial.rejected if self.partial is not None else 0


class Target:
    """One server."""

    def __init__(
        self,
        *,
        clock: Clock,
        grpc: str = "",
        http: str = "",
        query: str = "",
        headers: Mapping[str, str] | None = None,
        limit_bytes: int = LIMIT_BYTES,
        timeout_s: float = TIMEOUT_S,
        own: Ringtail | None = None,
    ) -> None:
        """Take the endpoints that there are. `headers` go with every request; `own` is the process behind them."""
        self.clock = clock
        self.headers = dict(headers or {})
        self.limit_bytes = limit_bytes
        self.timeout_s = timeout_s
        self.own = own
        self.payloads = Payloads(clock)
        self._grpc = GrpcClient(grpc, self.headers, timeout_s) if grpc else None
        self._http = HttpClient(http, self.headers, timeout_s) if http else None
        self._query = Readback(query, self.headers, timeout_s, clock) if query else None
        self._variants: dict[tuple[str, ...], Target] = {}
        self._directories: list[str] = []

    @classmethod
    def start(cls, clock: Clock, settings: tuple[str, ...] = (), **options: Any) -> Target:
        """Start a Ringtail of our own."""
        directory = tempfile.mkdtemp(prefix="ringtail-conformance-")
        made = cls.on(clock, directory, settings, **options)
        made._directories.append(directory)
        return made

    @classmethod
    def on(cls, clock: Clock, directory: str, settings: tuple[str, ...] = (), **options: Any) -> Target:
        """Start a Ringtail on a directory that stays."""
        own = Ringtail(directory, settings)
        found = own.addresses
        return cls(
            clock=clock,
            grpc=found["otlp/grpc"],
            http=found["otlp/http"],
            query=found["api"],
            own=own,
            **options,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop what was started."""
        for one in self._variants.values():
            one.close()
        if self._grpc is not None:
            self._grpc.close()
        if self.own is not None:
            self.own.stop()
        for directory in self._directories:
            shutil.rmtree(directory, ignore_errors=True)

    # --- what there is ------------------------------------------------------------------------------------

    @property
    def has(self) -> set[str]:
        """What checks may need, and this target has."""
        there = {"grpc": self._grpc, "http": self._http, "query": self._query, "server": self.own}
        return {name for name, part in there.items() if part is not None}

    @property
    def grpc(self) -> GrpcClient:
        """The client of the gRPC endpoint; Skipped without one."""
        if self._grpc is None:
            raise Skipped("no gRPC endpoint was given")
        return self._grpc

    @property
    def http(self) -> HttpClient:
        """The client of the HTTP endpoint; Skipped without one."""
        if self._http is None:
            raise Skipped("no HTTP endpoint was given")
        return self._http

    @property
    def query(self) -> Readback:
        """The query API; Skipped without one."""
        if self._query is None:
            raise Skipped("no query API was given (--query), so what was stored cannot be seen")
        return self._query

    def variant(self, settings: tuple[str, ...], headers: Mapping[str, str] | None = None) -> Target:
        """Return a server of ours with other settings, which lives as long as this one; Skipped for a foreign one.

        `headers` go with every request to it.
        """
        if self.own is None:
            raise Skipped("needs a server with settings of its own; the kit can start only Ringtail so")
        if settings not in self._variants:
            limit = MIB if settings == LIMITED else self.limit_bytes
            self._variants[settings] = Target.start(
                self.clock, settings, limit_bytes=limit, timeout_s=self.timeout_s, headers=headers
            )
        return self._variants[settings]

    def guarded(self) -> Target:
        """Return a server that asks who its clients are: one of ours, or a foreign one with the headers that were given."""
        if self.own is not None:
            return self.variant(GUARDED, KNOWN)
        if not self.headers:
            raise Skipped("no credentials were given (--header), so the endpoint is taken for an open one")
        return self

    def strangers(self) -> dict[str, dict[str, str]]:
        """Return the headers of clients that nobody knows: without those of `headers`, and with others in their place."""
        wrong = {}
        for name, text in self.headers.items():
            scheme, space, _ = text.rpartition(" ")
            wrong[name] = f"{scheme}{space}{'0' * 32}"
        return {"without credentials": {}, "with wrong ones": wrong}

    def limited(self) -> Target:
        """Return the server to try size limits on: one with a small limit, or a foreign one as it is."""
        return self if self.own is None else self.variant(LIMITED)

    @contextmanager
    def fresh(self) -> Iterator[tuple[Target, Ringtail, str]]:
        """Start a server to be stopped or killed; yields it, its process and its directory."""
        if self.own is None:
            raise Skipped("needs a server that may be stopped; the kit can start only Ringtail so")
        directory = tempfile.mkdtemp(prefix="ringtail-conformance-")
        try:
            with Target.on(self.clock, directory, timeout_s=self.timeout_s) as made:
                assert made.own is not None
                yield made, made.own, directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    # --- exporting ----------------------------------------------------------------------------------------

    def export(self, signal: Signal, message: Any) -> Outcome:
        """Export a message (or its bytes) over HTTP, or over gRPC where that is all there is."""
        payload = message if isinstance(message, bytes) else bytes(message.SerializeToString())
        if self._http is not None:
            return http_outcome(signal, self._http.post(signal.http_path, payload))
        return grpc_outcome(signal, self.grpc.call(method_of(signal), payload))

    def export_json(self, signal: Signal, body: bytes) -> Outcome:
        """Export OTLP/JSON."""
        return http_outcome(signal, self.http.post(signal.http_path, body, JSON))


def method_of(signal: Signal) -> str:
    """Return the gRPC method that exports a signal."""
    return f"/{signal.service}/Export"


def grpc_outcome(signal: Signal, answer: GrpcAnswer) -> Outcome:
    """Read the answer to a call of Export."""
    if answer.code != "OK":
        return Outcome(False, answer.code == "INVALID_ARGUMENT", None, answer.words())
    return _success(partial_of(signal, answer.body), "OK")


def http_outcome(signal: Signal, response: Response) -> Outcome:
    """Read the answer to a POST."""
    if response.code != 200:
        return Outcome(False, response.code == 400, None, response.words())
    if response.media_type == JSON:
        return _success(partial_of_json(signal, response.body), "200")
    return _success(partial_of(signal, response.body), "200")


def _success(partial: Partial | None, code: str) -> Outcome:
    if partial is None:
        return Outcome(True, False, None, f"{code}, partial_success unset")
    words = f"{code}, partial_success: rejected {partial.rejected}, {partial.message[:160]!r}"
    return Outcome(True, False, partial, words)


def partial_of(signal: Signal, body: bytes) -> Partial | None:
    """Return the partial_success of a protobuf response; None when it is unset."""
    try:
        response = signal.response_type.FromString(body)
    except DecodeError as error:
        raise Failed(f"the response is no {signal.response_type.DESCRIPTOR.name}: {shown(body)}") from error
    if not response.HasField("partial_success"):
        return None
    partial = response.partial_success
    return Partial(getattr(partial, signal.rejected_field), partial.error_message)


def partial_of_json(signal: Signal, body: bytes) -> Partial | None:
    """Return the partialSuccess of a JSON response; None when it is unset, or null."""
    partial = json_object(body).get("partialSuccess")
    if partial is None:
        return None
    if not isinstance(partial, dict):
        raise Failed(f"partialSuccess is no object: {shown(body)}")
    head, *rest = signal.rejected_field.split("_")
    key = head + "".join(part.title() for part in rest)
    try:
        return Partial(int(partial.get(key, 0)), str(partial.get("errorMessage", "")))
    except (TypeError, ValueError) as error:
        raise Failed(f"{key} is no integer: {shown(body)}") from error


def json_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object that a body is; Failed when it is none."""
    try:
        found = json.loads(body)
    except ValueError as error:
        raise Failed(f"the body is no JSON: {shown(body)}") from error
    if not isinstance(found, dict):
        raise Failed(f"the body is no JSON object: {shown(body)}")
    return found
