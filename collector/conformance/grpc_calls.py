"""Section 2 of the list: OTLP/gRPC."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from collector.conformance.check import Failed, Level, Section, Skipped, require
from collector.conformance.launcher import default_ports
from collector.conformance.open_points import crowd
from collector.conformance.target import CROWDED, MIB, Outcome, Partial, grpc_outcome, method_of, partial_of
from collector.conformance.transport import all_accepted
from collector.otlp.signals import LOGS, METRICS, SIGNALS, TRACES

if TYPE_CHECKING:
    from collector.conformance.grpc_client import GrpcAnswer
    from collector.conformance.target import Target

SECTION = Section("gRPC")
MUST, SHOULD, MAY = Level.MUST, Level.SHOULD, Level.MAY

PROFILES = "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export"
CONCURRENT = 64
RETRYABLE = frozenset({"CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"})
"""What clients retry; RESOURCE_EXHAUSTED only with RetryInfo."""
RETRY_DELAY_MAX_S = 9.0
"""Exporters give up after ten seconds in all."""
RESPONSE_BYTES_MAX = 4 * MIB

DAMAGED = {
    "a field cut short": b"\x0a\x7f\x01",
    "a field tag of 0": b"\x00\x00",
    "a varint without an end": b"\x0a" + b"\xff" * 11,
    "text": b"this is no message at all",
    "a string that is no UTF-8": b"\x0a\x0a\x12\x08\x12\x06\x2a\x04\xff\xfe\xfd\xfc",
}
"""Bodies that are no ExportTraceServiceRequest."""


def large(target: Target, size: int) -> bytes:
    """Return a valid request of at least `size` bytes: log records of some hundred KiB each."""
    line = "conformance " * 20_000
    return bytes(
        target.payloads.logs(
            *({"body": {"string_value": line}} for _ in range(size // len(line) + 1)), service="conformance-large"
        ).SerializeToString()
    )


def default_port(target: Target, protocol: str, port: int, wanted: int) -> str:
    """Return what is seen of a default port."""
    if target.own is not None:
        found = default_ports()[protocol]
        require(found == wanted, f"without settings it is {found}")
        return f"without settings it is {wanted}"
    if port != wanted:
        raise Skipped(f"the endpoint has port {port}, which says nothing about the default")
    return f"the endpoint has port {wanted}"


@SECTION.check("7a", SHOULD, "listens on port 4317 by default", sent="nothing", expected="port 4317", needs=("grpc",))
def _port(target: Target) -> str:
    return default_port(target, "grpc", target.grpc.port, 4317)


@SECTION.check(
    "8a",
    MUST,
    "serves Export of the Trace, Metrics and Logs services",
    sent="a record to each",
    expected="OK, and that service's response",
    needs=("grpc",),
)
def _services(target: Target) -> str:
    outcomes = {}
    for one in SIGNALS:
        outcomes[one.service] = grpc_outcome(one, target.grpc.call(method_of(one), target.payloads.body(one)))
    all_accepted(outcomes)
    return "three services answer"


@SECTION.check(
    "8b",
    MUST,
    "answers honestly for profiles: OK, or UNIMPLEMENTED",
    sent="an empty message to ProfilesService/Export, which is in development",
    expected="OK or UNIMPLEMENTED, nothing that clients retry",
    needs=("grpc",),
)
def _profiles(target: Target) -> str:
    answer = target.grpc.call(PROFILES, b"")
    require(answer.code in ("OK", "UNIMPLEMENTED"), answer.words())
    return answer.words()


@SECTION.check(
    "9a",
    SHOULD,
    "serves concurrent calls of one connection",
    sent=f"{CONCURRENT} calls at once",
    expected="OK to each",
    needs=("grpc",),
)
def _concurrent(target: Target) -> str:
    calls = [target.grpc.start(method_of(TRACES), target.payloads.body(TRACES, 10)) for _ in range(CONCURRENT)]
    answers = [target.grpc.finish(call) for call in calls]
    bad = [one for one in answers if one.code != "OK"]
    require(not bad, f"{len(bad)} of {CONCURRENT} failed; the first with {bad[0].words() if bad else ''}")
    return f"{CONCURRENT} times OK"


def _over_the_limit(target: Target, *, gzip: bool) -> GrpcAnswer:
    subject = target.limited()
    return subject.grpc.call(method_of(LOGS), large(subject, subject.limit_bytes + 64 * 1024), gzip=gzip)


@SECTION.check(
    "10a",
    MUST,
    "refuses a message over the size limit with RESOURCE_EXHAUSTED",
    sent="an uncompressed request just over the limit (--limit for a foreign server)",
    expected="RESOURCE_EXHAUSTED",
    needs=("grpc",),
)
def _too_large(target: Target) -> str:
    answer = _over_the_limit(target, gzip=False)
    require(answer.code == "RESOURCE_EXHAUSTED", answer.words())
    return answer.words()


@SECTION.check(
    "10b",
    MUST,
    "refuses a message that is over the size limit once it is decompressed",
    sent="the same request in gzip, a hundred times smaller",
    expected="RESOURCE_EXHAUSTED",
    needs=("grpc",),
)
def _too_large_inflated(target: Target) -> str:
    answer = _over_the_limit(target, gzip=True)
    require(answer.code == "RESOURCE_EXHAUSTED", answer.words())
    return answer.words()


@SECTION.check(
    "10c",
    MUST,
    "tells that a message over the limit is not to be sent again",
    sent="a request just over the limit, plain and in gzip",
    expected="no code that clients retry, and no RetryInfo",
    needs=("grpc",),
)
def _too_large_for_good(target: Target) -> str:
    for gzip in (False, True):
        answer = _over_the_limit(target, gzip=gzip)
        require(answer.code != "OK", "it was accepted")
        require(answer.code not in RETRYABLE, f"{answer.words()}; clients retry that")
        require(answer.retry_delay_s() is None, f"{answer.words()}, with RetryInfo")
    return "not retryable, no RetryInfo"


@SECTION.check(
    "10d",
    SHOULD,
    "accepts messages of nearly 64 MiB by default",
    sent="a valid request of 60 MiB, uncompressed",
    expected="OK",
    needs=("grpc",),
)
def _default_limit(target: Target) -> str:
    answer = target.grpc.call(method_of(LOGS), large(target, 60 * MIB))
    require(answer.code == "OK", answer.words())
    return all_accepted({"60 MiB": grpc_outcome(LOGS, answer)})


@SECTION.check(
    "10e",
    SHOULD,
    "lets the size limit be configured",
    sent="a request of 600 KiB, then one of 1088 KiB, to a server with a limit of 1 MiB",
    expected="OK, then RESOURCE_EXHAUSTED",
    needs=("grpc", "server"),
)
def _configurable_limit(target: Target) -> str:
    subject = target.limited()
    below = subject.grpc.call(method_of(LOGS), large(subject, 600 * 1024))
    require(below.code == "OK", f"below the limit: {below.words()}")
    above = _over_the_limit(target, gzip=False)
    require(above.code == "RESOURCE_EXHAUSTED", f"above the limit: {above.words()}")
    return "it holds as configured"


@SECTION.check(
    "11a",
    MUST,
    "limits the size of responses",
    sent="10,000 spans with invalid ids and long names, each of which could be complained about",
    expected="a response, or status message, of less than 4 MiB",
    needs=("grpc",),
)
def _response_limit(target: Target) -> str:
    spans = ({"trace_id": bytes([0]), "name": f"span {i} " + "x" * 200} for i in range(10_000))
    message = target.payloads.spans(*spans)
    answer = target.grpc.call(method_of(TRACES), message.SerializeToString())
    size = len(answer.body) + len(answer.message)
    require(size < RESPONSE_BYTES_MAX, f"a response of {size} bytes")
    return f"{answer.words()[:80]}; {size} bytes"


@SECTION.check(
    "12a",
    MUST,
    "leaves partial_success unset on success",
    sent="three valid records of each signal",
    expected="OK, partial_success unset",
    needs=("grpc",),
)
def _unset(target: Target) -> str:
    for one in SIGNALS:
        answer = target.grpc.call(method_of(one), target.payloads.body(one, 3))
        require(answer.code == "OK", f"{one.name}: {answer.words()}")
        partial = partial_of(one, answer.body)
        require(partial is None, f"{one.name}: partial_success is set: {partial}")
    return "unset for all signals"


def partial_spans(target: Target) -> tuple[int, Any]:
    """Return how many spans of a request are invalid, and the request."""
    bad = ({"trace_id": b""}, {"trace_id": bytes(16)}, {"span_id": b"\1\2\3"}, {"span_id": bytes(8)})
    return len(bad), target.payloads.spans({}, *bad, {}, {})


def partial_points(target: Target) -> tuple[int, Any]:
    """Return how many data points of a request are invalid, and the request."""
    return 2, target.payloads.gauge({}, {"time_unix_nano": 0}, {}, {"time_unix_nano": 0}, {})


def counted(outcome: Outcome, wanted: int) -> Partial:
    """Return the partial success of a request with `wanted` bad records, when the count is right."""
    if not outcome.accepted:
        raise Skipped(f"the server refuses the whole request: {outcome.words}")
    partial = outcome.partial
    if partial is None:
        raise Skipped("the server takes the records that are invalid; see lines 43 and 47")
    require(partial.rejected == wanted, f"rejected {partial.rejected} of {wanted}: {partial.message!r}")
    return partial


@SECTION.check(
    "13a",
    MUST,
    "counts rejected spans exactly",
    sent="seven spans, four of them with absent, short or zero ids",
    expected="OK, rejected_spans 4",
    needs=("grpc",),
)
def _rejected_spans(target: Target) -> str:
    wanted, message = partial_spans(target)
    outcome = grpc_outcome(TRACES, target.grpc.call(method_of(TRACES), message.SerializeToString()))
    counted(outcome, wanted)
    return outcome.words


@SECTION.check(
    "13b",
    MUST,
    "counts rejected data points exactly",
    sent="five data points, two of them without a time",
    expected="OK, rejected_data_points 2",
    needs=("grpc",),
)
def _rejected_points(target: Target) -> str:
    wanted, message = partial_points(target)
    outcome = grpc_outcome(METRICS, target.grpc.call(method_of(METRICS), message.SerializeToString()))
    counted(outcome, wanted)
    return outcome.words


@SECTION.check(
    "13c",
    SHOULD,
    "says in a message why records were rejected",
    sent="seven spans, four of them with invalid ids",
    expected="error_message in partial_success",
    needs=("grpc",),
)
def _rejection_message(target: Target) -> str:
    wanted, message = partial_spans(target)
    outcome = grpc_outcome(TRACES, target.grpc.call(method_of(TRACES), message.SerializeToString()))
    partial = counted(outcome, wanted)
    require(partial.message, "error_message is empty")
    return repr(partial.message)


@SECTION.check(
    "14a",
    MUST,
    "has a message wherever partial_success is set and nothing was rejected",
    sent="empty, ordinary and odd requests that may be warned about",
    expected="partial_success unset, or with a message",
    needs=("grpc",),
)
def _warnings(target: Target) -> str:
    odd = target.payloads.spans({})
    odd.resource_spans[0].resource.attributes.add(key_strindex=1).value.string_value_strindex = 2
    odd.resource_spans[0].scope_spans[0].spans[0].end_time_unix_nano = 1
    warned = ""
    for body in (b"", target.payloads.body(TRACES), odd.SerializeToString()):
        answer = target.grpc.call(method_of(TRACES), body)
        require(answer.code == "OK", answer.words())
        partial = partial_of(TRACES, answer.body)
        if partial is not None and not partial.rejected:
            require(partial.message, "partial_success is set, with nothing in it")
            warned = partial.message
    return f"warned of something: {warned!r}" if warned else "nothing was warned about"


def crowded(target: Target) -> GrpcAnswer:
    """Return the answer of a server that has no room at the moment."""
    subject = target.variant(CROWDED)
    with crowd(subject):
        return subject.grpc.call(method_of(LOGS), large(subject, 500_000))


@SECTION.check(
    "15a",
    SHOULD,
    "answers UNAVAILABLE for what may succeed later",
    sent="a call while requests in flight fill the server's budget",
    expected="UNAVAILABLE",
    needs=("grpc", "server"),
)
def _unavailable(target: Target) -> str:
    answer = crowded(target)
    require(answer.code == "UNAVAILABLE", answer.words())
    return answer.words()


@SECTION.check(
    "15b",
    MAY,
    "says with RetryInfo when to try again",
    sent="a call while requests in flight fill the server's budget",
    expected="RetryInfo in the details of the Status",
    needs=("grpc", "server"),
)
def _retry_info(target: Target) -> str:
    delay = crowded(target).retry_delay_s()
    require(delay is not None, "there is none")
    return f"retry_delay {delay} s"


@SECTION.check(
    "16a",
    SHOULD,
    "answers INVALID_ARGUMENT to what is no request",
    sent=", ".join(DAMAGED),
    expected="INVALID_ARGUMENT",
    needs=("grpc",),
)
def _invalid(target: Target) -> str:
    for name, body in DAMAGED.items():
        answer = target.grpc.call(method_of(TRACES), body)
        require(answer.code == "INVALID_ARGUMENT", f"{name}: {answer.words()}")
    return "INVALID_ARGUMENT to each"


@SECTION.check(
    "16b",
    MAY,
    "says with BadRequest what is wrong",
    sent="a message cut short",
    expected="BadRequest in the details of the Status",
    needs=("grpc",),
)
def _bad_request(target: Target) -> str:
    answer = target.grpc.call(method_of(TRACES), DAMAGED["a field cut short"])
    require(answer.has_bad_request(), f"{answer.words()}, without BadRequest")
    return f"BadRequest: {answer.message[:120]!r}"


@SECTION.check(
    "17a",
    MUST,
    "never asks for bad data to be sent again",
    sent=", ".join(DAMAGED),
    expected="an error that clients do not retry",
    needs=("grpc",),
)
def _never_again(target: Target) -> str:
    codes = set()
    for name, body in DAMAGED.items():
        answer = target.grpc.call(method_of(TRACES), body)
        require(answer.code != "OK", f"{name}: it was accepted")
        retried = answer.code in RETRYABLE or (answer.code == "RESOURCE_EXHAUSTED" and answer.retry_delay_s())
        require(not retried, f"{name}: {answer.words()}; clients retry that")
        codes.add(answer.code)
    return ", ".join(sorted(codes))


@SECTION.check(
    "17b",
    MUST,
    "answers with a code that clients retry when it could not take good data",
    sent="a call while requests in flight fill the server's budget",
    expected="a code that clients retry",
    needs=("grpc", "server"),
)
def _again(target: Target) -> str:
    answer = crowded(target)
    retried = answer.code in RETRYABLE or (answer.code == "RESOURCE_EXHAUSTED" and answer.retry_delay_s())
    require(retried, answer.words())
    return answer.words()


@SECTION.check(
    "18a",
    SHOULD,
    "asks for a delay that lets it recover and that exporters wait for",
    sent="a call while requests in flight fill the server's budget",
    expected=f"no RetryInfo, or a delay over 0 and up to {RETRY_DELAY_MAX_S:.0f} s",
    needs=("grpc", "server"),
)
def _delay(target: Target) -> str:
    answer = crowded(target)
    if answer.code == "OK":
        raise Failed("it was accepted")
    delay = answer.retry_delay_s()
    require(delay is None or 0 < delay <= RETRY_DELAY_MAX_S, f"retry_delay is {delay} s")
    return f"retry_delay {delay} s" if delay is not None else "UNAVAILABLE without RetryInfo"
