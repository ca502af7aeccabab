"""Section 8 of the list: what exporters in the field do beyond the specification, and so what serves them.

Read in their source: opentelemetry-python's HTTP exporter retries 408 and 5xx and not 429, and compresses with deflate,
too; its gRPC exporter looks for the delay in `google.rpc.retryinfo-bin`, and gives up at once when it is over its ten
seconds; the Collector's exporter retries 429, 502, 503 and 504 and drops what gets 413.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import zstandard
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RetryInfo

from collector.conformance.check import Failed, Level, Section, require
from collector.conformance.grpc_calls import RETRY_DELAY_MAX_S, large
from collector.conformance.grpc_calls import crowded as crowded_grpc
from collector.conformance.http_client import PROTOBUF
from collector.conformance.http_errors import crowded, status_in
from collector.conformance.target import http_outcome
from collector.conformance.transport import all_accepted
from collector.otlp.signals import TRACES

if TYPE_CHECKING:
    from collector.conformance.target import Target

SECTION = Section("Exporters in the field")
MAY = Level.MAY


@SECTION.check(
    "C1",
    MAY,
    "takes deflate over HTTP, which Python's exporter offers",
    sent="a request with Content-Encoding: deflate, in zlib's format",
    expected="200, nothing rejected",
    needs=("http",),
)
def _deflate(target: Target) -> str:
    body = zlib.compress(target.payloads.body(TRACES, 20))
    return all_accepted(
        {"deflate": http_outcome(TRACES, target.http.post("/v1/traces", body, Content_Encoding="deflate"))}
    )


@SECTION.check(
    "C2",
    MAY,
    "takes zstd over HTTP, which the Collector's exporter offers",
    sent="a request with Content-Encoding: zstd",
    expected="200, nothing rejected",
    needs=("http",),
)
def _zstd(target: Target) -> str:
    body = zstandard.ZstdCompressor().compress(target.payloads.body(TRACES, 20))
    return all_accepted({"zstd": http_outcome(TRACES, target.http.post("/v1/traces", body, Content_Encoding="zstd"))})


@SECTION.check(
    "C3",
    MAY,
    "answers overload with 503, since Python's exporter does not retry 429",
    sent="a body while requests in flight fill the server's budget",
    expected="503 with Retry-After",
    needs=("http", "server"),
)
def _overload(target: Target) -> str:
    answer = crowded(target)
    require(answer.code == 503, answer.words())
    require(answer.headers.get("retry-after"), "503 without Retry-After")
    return f"503, Retry-After: {answer.headers['retry-after']}"


@SECTION.check(
    "C4",
    MAY,
    "sends RetryInfo bare, too, where Python's gRPC exporter looks for it",
    sent="a call while requests in flight fill the server's budget",
    expected=f"google.rpc.retryinfo-bin, with a delay up to {RETRY_DELAY_MAX_S:.0f} s",
    needs=("grpc", "server"),
)
def _bare_retry_info(target: Target) -> str:
    answer = crowded_grpc(target)
    try:
        delay = RetryInfo.FromString(answer.trailers["google.rpc.retryinfo-bin"]).retry_delay.ToTimedelta()
    except (KeyError, DecodeError) as error:
        raise Failed("google.rpc.retryinfo-bin is missing, or no RetryInfo") from error
    seconds = delay.total_seconds()
    require(0 < seconds <= RETRY_DELAY_MAX_S, f"retry_delay is {seconds} s")
    return f"retry_delay {seconds} s in both places"


@SECTION.check(
    "C5",
    MAY,
    "names the limit when a request is over it, since its data is dropped",
    sent="a body over the size limit",
    expected="413, and the limit in the message",
    needs=("http",),
)
def _limit_named(target: Target) -> str:
    subject = target.limited()
    answer = subject.http.post("/v1/logs", large(subject, subject.limit_bytes + 64 * 1024))
    message, _ = status_in(answer, PROTOBUF)
    require(answer.code == 413 and str(subject.limit_bytes) in message, f"{answer.code}: {message!r}")
    return repr(message)
