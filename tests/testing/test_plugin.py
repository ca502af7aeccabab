"""The pytest plugin as users have it: in a pytest of its own, in a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.e2e.requirements import do_without

pytest_plugins = "pytester"

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "flask"
PLUGIN = "collector.testing.plugin"

TESTS = """
import socket, urllib.error, urllib.request
import pytest
from collector.otlp.signals import BY_NAME
from collector.testing import otlp as builders
from time import time_ns

def post(otlp, path, body, kind="application/x-protobuf"):
    request = urllib.request.Request(otlp.endpoint + path, body, {"Content-Type": kind})
    try:
        urllib.request.urlopen(request).read()
    except urllib.error.HTTPError:
        pass

def test_received(otlp):
    post(otlp, "/v1/traces", builders.traces(16, time_ns=time_ns()))
    assert len(otlp.traces.all('{ resource.service.name = "checkout" }', count=16)) == 16

def test_nothing_is_left_of_the_test_before(otlp):
    otlp.traces.none("{}")

def test_without_a_match_shows_what_there_is(otlp):
    post(otlp, "/v1/traces", builders.traces(8, time_ns=time_ns()))
    otlp.traces.one('{ name = "missing" }', wait=0)

def test_a_wrong_path(otlp):
    post(otlp, "/v1/trace", b"")

def test_a_malformed_export(otlp):
    post(otlp, "/v1/logs", b"\\xff\\xff\\xff")

def test_rejected_records(otlp):
    data = BY_NAME["traces"].request_type.FromString(builders.traces(2))
    data.resource_spans[0].scope_spans[0].spans[0].trace_id = b"short"
    post(otlp, "/v1/traces", data.SerializeToString())
    assert "trace" in str(otlp.violations[0])

def test_forgiven(otlp):
    post(otlp, "/v1/nothing", b"")
    assert [one.outcome for one in otlp.forgive()] == ["unsupported"]

def call(otlp, method):
    import grpc
    with grpc.insecure_channel(otlp.grpc_endpoint.removeprefix("http://")) as channel:
        with pytest.raises(grpc.RpcError):
            channel.unary_unary("/opentelemetry.proto.collector.trace.v1.TraceService/" + method)(b"", timeout=20)

def test_a_wrong_method(otlp):
    call(otlp, "Exprot")

def test_of_something_else():
    pass
"""


@pytest.fixture
def outer(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A pytest that loads this plugin and no other, from this tree."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *sys.path[1:]]))
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    return pytester


def test_tests_pass_and_fail_as_they_should(outer: pytest.Pytester) -> None:
    outer.makepyfile(TESTS)
    outer.makeini("[pytest]\notlp_wait = 0.5\n")
    result = outer.runpytest_subprocess("-p", PLUGIN, "-W", "error")
    result.assert_outcomes(passed=8, failed=1, errors=4)
    text = result.stdout.str()
    assert 'no spans match { name = "missing" }' in text
    assert re.search(r"trace [0-9a-f]{32}: 8 spans, [\d.]+ m?s\nE +checkout: ", text), "the tree is shown"
    assert "OTLP/HTTP: unsupported: nothing is received at '/v1/trace'" in text
    assert (
        "OTLP/gRPC: unsupported: there is no method '/opentelemetry.proto.collector.trace.v1.TraceService/Exprot'"
        in text
    )
    assert "OTLP/HTTP, logs: malformed: not a valid ExportLogsServiceRequest: at byte 0" in text
    assert "OTLP/HTTP, traces: partial: 1 spans rejected: 1 because" in text
    assert "assertions.py" not in text, "the traceback ends in the test"


def test_the_example_of_the_documentation_passes(outer: pytest.Pytester) -> None:
    for path in EXAMPLE.glob("*.py"):
        outer.path.joinpath(path.name).write_text(path.read_text())
    if subprocess.run([sys.executable, "-c", "import flask"], check=False, capture_output=True).returncode:
        do_without("flask is not installed")
    result = outer.runpytest_subprocess("-p", PLUGIN, "-W", "error")
    result.assert_outcomes(passed=3)
    assert "Transient error" not in result.stderr.str(), "what SDKs send at the end is received"


def test_the_documentation_has_the_example_as_it_is() -> None:
    page = (ROOT / "docs" / "testing.md").read_text()
    for name in ("shop.py", "conftest.py", "test_shop.py"):
        assert f"```python\n{(EXAMPLE / name).read_text()}```" in page, name


def test_it_costs_nothing_where_it_is_not_used() -> None:
    heavy = ("numpy", "google", "opentelemetry", "starlette", "uvicorn", "grpc", "uvloop", "prometheus_client")
    code = f"import sys, {PLUGIN}; print([one for one in {heavy} if one in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_package_declares_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"ringtail": PLUGIN}
