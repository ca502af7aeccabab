"""The table from causes to answers."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf import json_format
from google.rpc import code_pb2, error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from collector import errors
from collector.errors import Malformed, Overloaded, TooLarge, Unavailable, Unsupported
from collector.otlp import status
from collector.otlp.status import Answer, answer, shortened, status_json, status_of, trailing_metadata

CASES: list[tuple[Exception, str, int, bool]] = [
    (Malformed("m"), "INVALID_ARGUMENT", 400, False),
    (TooLarge("m"), "RESOURCE_EXHAUSTED", 413, False),
    (Unsupported("m"), "UNIMPLEMENTED", 415, False),
    (Overloaded("m", 2.5), "UNAVAILABLE", 503, True),
    (Unavailable("m", 2.5), "UNAVAILABLE", 503, True),
    (KeyError("m"), "UNAVAILABLE", 503, True),
    (errors.QueryTimeout("m"), "UNAVAILABLE", 503, True),
    (status.unknown_path("m"), "NOT_FOUND", 404, False),
    (status.wrong_method("m", "POST"), "UNIMPLEMENTED", 405, False),
    (status.too_slow("m"), "DEADLINE_EXCEEDED", 408, False),
    (status.head_too_large("m"), "RESOURCE_EXHAUSTED", 431, False),
]
cases = pytest.mark.parametrize(("error", "code", "http", "retryable"), CASES)


@cases
def test_codes(error: Exception, code: str, http: int, retryable: bool) -> None:
    found = answer(error)
    assert (found.grpc, found.http) == (code_pb2.Code.Value(code), http)
    assert (found.retry_after_s is not None) == retryable
    assert found.outcome in status.OUTCOMES
    assert found.http in status.PHRASES
    assert grpc.StatusCode[code].value[0] == found.grpc


@cases
def test_only_what_may_be_retried_looks_so_to_exporters(
    error: Exception, code: str, http: int, retryable: bool
) -> None:
    retried_http = {429, 502, 503, 504}
    retried_grpc = {"CANCELLED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"}
    has_retry_info = any(
        detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR) for detail in status_of(answer(error)).details
    )
    assert (http in retried_http) == retryable == has_retry_info
    if http != 408:  # which gRPC never answers
        assert (code in retried_grpc) == retryable


def test_a_defect_is_not_explained_to_the_client() -> None:
    assert "secret" not in answer(KeyError("secret")).message


@cases
def test_the_json_form_is_the_protobuf_one(error: Exception, code: str, http: int, retryable: bool) -> None:
    found = answer(error)
    assert json_format.Parse(status_json(found), status_pb2.Status()) == status_of(found)


@given(seconds=st.floats(0, 1e6), message=st.text(st.characters(codec="utf-8")))
def test_any_answer_has_one_json_form(seconds: float, message: str) -> None:
    for found in (answer(Overloaded(message, seconds)), answer(Malformed(message))):
        assert json_format.Parse(status_json(found), status_pb2.Status()) == status_of(found)


def test_trailers() -> None:
    found = answer(Unavailable("m", 1.25))
    trailers = dict(trailing_metadata(found))
    assert status_pb2.Status.FromString(trailers["grpc-status-details-bin"]) == status_of(found)
    retry = error_details_pb2.RetryInfo.FromString(trailers["google.rpc.retryinfo-bin"])
    assert (retry.retry_delay.seconds, retry.retry_delay.nanos) == (1, 250_000_000)
    assert list(dict(trailing_metadata(answer(Malformed("m"))))) == ["grpc-status-details-bin"]


@given(message=st.text())
def test_messages_are_cut_to_whole_characters(message: str) -> None:
    for text in (message, message * 300, "x" * 1020 + message):
        cut = shortened(text)
        assert len(cut.encode(errors="replace")) <= status.MESSAGE_BYTES_MAX
        assert cut == text or (cut.endswith("…") and text.encode(errors="replace").startswith(cut[:-1].encode()))


def test_answers_say_what_is_allowed() -> None:
    assert status.wrong_method("m", "POST").answer == Answer(12, 405, "unsupported", "m", None, "Allow: POST\r\n")
