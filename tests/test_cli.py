"""The command line: output, exit status, and what it says when something is wrong."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner, Result
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from collector import __version__
from collector.cli import main
from collector.cli.connection import base_url
from collector.cli.table import size
from collector.config import Config
from collector.otlp.signals import SIGNALS
from collector.settings import load
from tests.daemon import COMMAND, Daemon, environment
from tests.security.certificates import Authority


def ringtail(*arguments: str, **variables: str) -> Result:
    return CliRunner().invoke(main, arguments, prog_name="ringtail", env=variables)


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["completion", "zsh"], ["wal", "--help"]])
def test_what_needs_nothing_imports_nothing(arguments: list[str]) -> None:
    program = (
        "import sys; from collector.cli import main\n"
        f"try: main({arguments!r})\n"
        "finally: print([m for m in ('numpy', 'grpc', 'google.protobuf', 'yaml', 'uvloop', 'asyncio') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment(), check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_module_and_script_are_the_same() -> None:
    done = subprocess.run([*COMMAND, "--version"], capture_output=True, text=True, env=environment(), check=True)
    assert done.stdout == f"ringtail, version {__version__}\n"


# Configuration


@pytest.mark.parametrize("command", ["validate", "print-config", "run"])
def test_mistakes_are_told_and_the_exit_status_is_2(tmp_path: Path, command: str) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text("wal:\n  sync: x\n  directry: y\n")
    result = ringtail(command, "--config", str(path), "--set", "query.threads=0")
    assert result.exit_code == 2
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert lines[0] == f"{path}:2: wal.sync: 'x' is not one of always, interval, never"
    assert lines[1].startswith(f"{path}:3: 'wal.directry': unknown key; did you mean directory?")
    assert lines[2].startswith("--set: query.threads: '0' is not")
    assert lines[3] == "Error: 3 mistakes in the configuration; `ringtail print-config` prints every key"


def test_a_file_that_is_not_there_is_a_mistake() -> None:
    result = ringtail("validate", "--config", "nowhere.yaml")
    assert result.exit_code == 2
    assert result.stderr.startswith("nowhere.yaml: cannot be read: No such file or directory\nError: 1 mistake in")


def test_a_valid_configuration(tmp_path: Path) -> None:
    path = tmp_path / "right.yaml"
    path.write_text("wal: {directory: '${env:DATA}'}")
    assert (
        ringtail("validate", "--settings-only", "--config", str(path), DATA="/data").output
        == "the configuration is valid\n"
    )
    printed = ringtail("print-config", "--config", str(path), "--set", "query.threads=3", DATA="/da$ta").output
    assert load([("printed", printed)], [], {}) == load([], ["wal.directory=/da$$ta", "query.threads=3"], {})
    assert load([("printed", ringtail("print-config").output)], [], {}) == Config()


def test_a_daemon_that_cannot_start_exits_with_1(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    arguments = [*COMMAND, "run", "--set", f"wal.directory={tmp_path}/file/data", "--set", "telemetry.logs.format=json"]
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert f"{tmp_path}/file/data" in done.stderr.splitlines()[-1]


# A running daemon


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, Result]]:
    """A daemon that has been sent the shop's last minute."""
    with Daemon(tmp_path_factory.mktemp("daemon")) as daemon:
        yield daemon, ringtail("send", "--endpoint", daemon.http, "--api", f"http://{daemon.api}", "--orders", "12")


def test_send_stores_what_it_says(sent: tuple[Daemon, Result]) -> None:
    daemon, result = sent
    assert result.exit_code == 0, result.output
    said = {noun: int(count) for count, noun in re.findall(r"^sent (\d+) (.+)$", result.output, re.MULTILINE)}
    stats = daemon.stats()
    assert said == {signal.noun: stats[signal.name]["records"] for signal in SIGNALS}
    assert "12 orders through frontend, orders, stock, payment, of which 2 failed" in result.output


def test_every_link_of_send_shows_something(sent: tuple[Daemon, Result]) -> None:
    daemon, result = sent
    links = dict(re.findall(r"^  (\S[^:]*\S)\s+(http://\S+)$", result.output, re.MULTILINE))
    bodies = {}
    for name, link in links.items():
        url = urlsplit(link)
        assert url.netloc == daemon.api
        answer = daemon.get(f"{url.path}?{url.query}")
        assert answer.code == 200, (name, answer)
        bodies[name] = answer.body
    assert len(json.loads(bodies["a failed order"])["batches"]) == 4
    assert len(json.loads(bodies["spans with errors"])["traces"]) == 2
    assert len(json.loads(bodies["log lines of the order"])["data"]["result"]) == 5
    assert len(json.loads(bodies["orders per second"])["data"]["result"]) == 2
    assert b"\nshop_orders_total{" in bodies["every metric"]


def test_stats(sent: tuple[Daemon, Result]) -> None:
    daemon, _ = sent
    result = ringtail("stats", "--endpoint", daemon.api)
    heads = result.output.splitlines()[0].split()
    assert heads[:4] == ["signal", "records", "capacity", "evicted"]
    rows = {line.split()[0]: line.split() for line in result.output.splitlines()[1:4]}
    for name, one in daemon.stats().items():
        assert rows[name][1:4] == [str(one["records"]), str(one["capacity"]), str(one["evicted"])]
        for index, figures in one["indexes"].items():
            assert re.search(
                rf"^{name} +{index} +{figures['keys']} +{figures['postings']} ", result.output, re.MULTILINE
            )
    raw = ringtail("stats", "--json", RINGTAIL_ENDPOINT=f"http://{daemon.api}/")
    assert json.loads(raw.output)["signals"] == daemon.stats()


def test_healthcheck(sent: tuple[Daemon, Result]) -> None:
    result = ringtail("healthcheck", "--endpoint", sent[0].api)
    assert (result.exit_code, result.output) == (0, "ready\n")


def test_the_ports_of_otlp_answer_no_queries(sent: tuple[Daemon, Result]) -> None:
    result = ringtail("stats", "--endpoint", sent[0].http)
    assert (result.exit_code, result.output) == (
        1,
        f"Error: {sent[0].http} is no Ringtail: it answers /api/stats with 404\n",
    )
    result = ringtail("healthcheck", "--endpoint", sent[0].grpc)
    assert (result.exit_code, result.output.count("\n")) == (1, 1)
    assert "OTLP/gRPC here" in result.output


def test_wal_commands_beside_a_running_daemon(sent: tuple[Daemon, Result]) -> None:
    daemon, _ = sent
    listed = ringtail("wal", "inspect", str(daemon.data)).output.splitlines()
    assert [line.split()[0] for line in listed] == ["signal", "traces", "logs", "metrics"]
    assert ringtail("wal", "verify", str(daemon.data)).exit_code == 0
    for name, one in daemon.stats().items():
        printed = ringtail("wal", "cat", str(daemon.data), "--signal", name).output
        keys = {"traces": "traceId", "logs": "timeUnixNano", "metrics": "dataPoints"}
        assert keys[name] in printed
        if name == "traces":
            assert len(re.findall(r'"traceId":"[0-9a-f]{32}"', printed)) == one["records"]
        assert all(json.loads(line) for line in printed.splitlines())


# A daemon that speaks TLS and asks who is there


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Daemon]:
    crt, key = authority.issue("server")
    tls = f"tls={{cert_file: {crt}, key_file: {key}, client_ca_file: {authority.path}}}"
    with Daemon(
        tmp_path_factory.mktemp("secure"),
        *(f"{one}.{tls}" for one in ("receivers.otlp.protocols.grpc", "receivers.otlp.protocols.http", "api")),
        "auth.credentials=[{name: a, rights: [write, read], tokens: '${env:A}'}, "
        "{name: b, rights: administer, tokens: '${env:B}'}]",
        variables={"A": TOKEN, "B": OTHER_TOKEN},
        tls=authority.client(authority.issue("client")),
        headers={"Authorization": f"Bearer {TOKEN}"},
    ) as running:
        yield running


TOKEN, OTHER_TOKEN = "token-token-token-1", "token-token-token-2"


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_a_secure_daemon(secure: Daemon, authority: Authority, protocol: str) -> None:
    crt, key = authority.issue("client")
    files = ["--cacert", str(authority.path), "--cert", str(crt), "--key", str(key)]
    address = secure.grpc if protocol == "grpc" else secure.http
    # gRPC's own client knows the name of the certificate only as a host's.
    endpoint = f"https://localhost:{address.rpartition(':')[2]}"
    before = secure.stats()["traces"]["records"]
    result = ringtail("send", "--protocol", protocol, "--endpoint", endpoint, *files, RINGTAIL_TOKEN=TOKEN)
    assert result.exit_code == 0, result.output
    assert secure.stats()["traces"]["records"] > before
    refused = ringtail("send", "--protocol", protocol, "--endpoint", endpoint, *files, "--token", OTHER_TOKEN)
    assert refused.exit_code == 1
    assert "refuses traces with" in refused.output
    assert "these credentials do not include the right to write" in refused.output
    api = ["--endpoint", f"https://{secure.api}", *files]
    assert ringtail("stats", *api, "--token", TOKEN).output.startswith("signal")
    assert ringtail("healthcheck", *api).output == "ready\n"
    for token, expected in (
        ("", "answers 401: the daemon does not know who asks"),
        (OTHER_TOKEN, "answers 403: these"),
    ):
        unknown = ringtail("stats", *api, RINGTAIL_TOKEN=token)
        assert (unknown.exit_code, expected in unknown.output) == (1, True)
    assert "TOKEN" not in refused.output
    assert OTHER_TOKEN not in refused.output


def test_what_is_wrong_with_tls_is_told(secure: Daemon, authority: Authority, tmp_path: Path) -> None:
    crt, key = authority.issue("client")
    endpoint = ["--endpoint", f"https://{secure.api}"]
    stranger = ringtail("healthcheck", *endpoint)
    assert stranger.exit_code == 1
    assert stranger.output.startswith(f"Error: no TLS with https://{secure.api}: ")
    assert "--cacert" in stranger.output
    plain = ringtail("healthcheck", "--endpoint", secure.api)
    assert (plain.exit_code, plain.output.count("\n")) == (1, 1)
    alone = ringtail("healthcheck", *endpoint, "--cert", str(crt))
    assert (alone.exit_code, "--cert and --key belong together" in alone.output) == (2, True)
    broken = ringtail("healthcheck", *endpoint, "--cert", str(key), "--key", str(crt))
    assert (broken.exit_code, "cannot be used" in broken.output) == (1, True)
    bad = ringtail(
        "stats", *endpoint, "--cacert", str(authority.path), "--cert", str(crt), "--key", str(key), "--token", "a\nb"
    )
    assert (bad.exit_code, "characters that no header may have" in bad.output) == (1, True)


# Without a daemon, or with another server


@contextmanager
def answering(answer: Callable[[str], tuple[int, bytes]]) -> Iterator[str]:
    """A server that answers each path with a status and a body; yields its address."""

    class Handler(BaseHTTPRequestHandler):
        def respond(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, body = answer(self.path)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = respond

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    with HTTPServer(("127.0.0.1", 0), Handler) as listener:
        thread = threading.Thread(target=listener.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{listener.server_port}"
        finally:
            listener.shutdown()
            thread.join()


def server(status: int, body: bytes) -> AbstractContextManager[str]:
    """A server that gives every request the same answer; yields its address."""
    return answering(lambda _: (status, body))


def test_a_daemon_that_is_not_ready_is_unhealthy() -> None:
    with server(503, b"not ready: the log of traces has failed\n") as endpoint:
        result = ringtail("healthcheck", "--endpoint", endpoint)
    assert (result.exit_code, result.output) == (1, "not ready: the log of traces has failed\n")


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"<html>", b'{"signals": null}'])
def test_another_server_is_told_from_a_ringtail(body: bytes) -> None:
    with server(200, body) as endpoint:
        result = ringtail("stats", "--endpoint", endpoint)
    assert (result.exit_code, result.output.count("\n")) == (1, 1)
    assert "is no Ringtail" in result.output


@pytest.mark.parametrize("command", ["stats", "healthcheck", "send"])
def test_no_daemon(command: str) -> None:
    with server(200, b"") as endpoint:
        pass
    result = ringtail(command, "--endpoint", endpoint)
    assert result.exit_code == 1
    assert result.output.startswith(
        f"Error: no daemon answers at http://{endpoint}: Connection refused; `ringtail run`"
    )
    assert result.output.count("\n") == 1


def test_a_refused_export_tells_why() -> None:
    with server(503, Status(message="the daemon is shutting down").SerializeToString()) as endpoint:
        result = ringtail("send", "--endpoint", endpoint)
    assert result.exit_code == 1
    assert result.output == f"Error: {endpoint} refuses traces with 503: the daemon is shutting down\n"
    with server(404, b"<html>not found</html>") as endpoint:
        result = ringtail("send", "--endpoint", endpoint)
    assert result.output == f"Error: {endpoint} refuses traces with 404: <html>not found</html>\n"


def test_a_partial_success_is_told() -> None:
    response = ExportTraceServiceResponse()
    response.partial_success.rejected_spans = 3
    response.partial_success.error_message = "3 spans were rejected"
    with server(200, response.SerializeToString()) as endpoint:
        result = ringtail("send", "--endpoint", endpoint)
    assert "traces: 3 spans were rejected\n" in result.stderr


@pytest.mark.parametrize(
    "endpoint", ["", "https://", "http://", "http://x:0", "x:port", "x:70000", "ftp://x", "http://[::1"]
)
def test_what_is_no_endpoint(endpoint: str) -> None:
    result = ringtail("stats", "--endpoint", endpoint)
    assert result.exit_code == 2
    assert "is not a URL like http://127.0.0.1:8888" in result.output


def test_endpoints() -> None:
    assert base_url("localhost:1") == "http://localhost:1"
    assert base_url("http://[::1]:1/") == "http://[::1]:1"
    assert base_url("http://proxy/ringtail/") == "http://proxy/ringtail"


# A log


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """The data of a daemon that has been sent two requests of each signal, and has stopped."""
    with Daemon(tmp_path) as daemon:
        for _ in range(2):
            assert ringtail("send", "--endpoint", daemon.http, "--orders", "1").exit_code == 0
    return daemon.data


def test_verify_finds_damage(log: Path) -> None:
    assert ringtail("wal", "verify", str(log)).output.endswith(": all is well\n")
    segment = next((log / "logs").glob("*.log"))
    content = bytearray(segment.read_bytes())
    content[content.index(b"order 1001")] ^= 1
    segment.write_bytes(content)
    result = ringtail("wal", "verify", str(log))
    assert result.exit_code == 1
    assert result.stderr.startswith(f"{segment}: offsets 0..")
    assert result.stdout.endswith(": 1 damaged\n")


def test_a_directory_without_a_log(tmp_path: Path) -> None:
    for command in ("inspect", "verify", "cat"):
        result = ringtail("wal", command, str(tmp_path))
        assert result.exit_code == 1
        assert result.output.startswith(f"Error: {tmp_path} holds no log")
    assert ringtail("wal", "inspect", str(tmp_path / "missing")).exit_code == 2


def test_cat_of_a_part(log: Path) -> None:
    everything = ringtail("wal", "cat", str(log), "--signal", "logs").output
    assert len(everything.splitlines()) == 2
    assert ringtail("wal", "cat", str(log), "--signal", "logs", "--limit", "1").output == everything.splitlines(True)[0]
    assert ringtail("wal", "cat", str(log), "--signal", "logs", "--from-offset", "1000").output == ""
    assert ringtail("wal", "cat", str(log), "--limit", "0").exit_code == 2


# Completion


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_name_the_command_and_the_variable(shell: str) -> None:
    script = ringtail("completion", shell).output
    assert "_RINGTAIL_COMPLETE" in script
    assert "ringtail" in script
    if shell == "bash":
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_completion_knows_commands_and_options() -> None:
    def complete(words: str, position: int) -> list[str]:
        variables = {"_RINGTAIL_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(position)}
        program = "from collector.cli import main; main(prog_name='ringtail')"
        arguments = [sys.executable, "-c", program]
        done = subprocess.run(
            arguments, capture_output=True, text=True, env={**environment(), **variables}, check=False
        )
        return [line.partition(",")[2] for line in done.stdout.splitlines()]

    assert set(complete("ringtail ", 1)) >= {"run", "validate", "print-config", "stats", "send", "wal"}
    assert set(complete("ringtail wal ", 2)) == {"inspect", "verify", "cat", "letters"}
    assert "--config" in complete("ringtail run --", 2)
    assert complete("ringtail completion f", 2) == ["fish"]


def test_sizes_for_people() -> None:
    assert [size(one) for one in (0, 1023, 1024, 1536, 5 << 30, 3 << 40)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "1.5 KiB",
        "5.0 GiB",
        "3.0 TiB",
    ]


def test_a_reader_that_leaves_early_causes_no_traceback(log: Path) -> None:
    arguments = [*COMMAND, "wal", "cat", str(log), "--signal", "traces"]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(arguments, stdout=write, stderr=subprocess.PIPE, text=True, env=environment(), check=False)
    os.close(write)
    assert "Traceback" not in done.stderr


def test_send_by_grpc(sent: tuple[Daemon, Result]) -> None:
    daemon, _ = sent
    before = daemon.stats()["traces"]["log"]["next_offset"]
    result = ringtail("send", "--protocol", "grpc", "--endpoint", f"http://{daemon.grpc}", "--orders", "1")
    assert result.exit_code == 0, result.output
    count = int(re.findall(r"^sent (\d+) spans$", result.output, re.MULTILINE)[0])
    assert daemon.stats()["traces"]["log"]["next_offset"] == before + count
    refused = ringtail("send", "--protocol", "grpc", "--endpoint", f"http://{daemon.http}")
    assert refused.exit_code == 1
    assert "refuses traces with UNAVAILABLE" in refused.output


@pytest.mark.parametrize("group", [(), ("backup",), ("query",), ("wal",)])
def test_the_list_of_commands_is_whole_on_a_narrow_terminal(group: tuple[str, ...]) -> None:
    shown = ringtail(*group, "--help", COLUMNS="80").output
    assert "Commands:" in shown
    assert not [line for line in shown.splitlines() if line.endswith("...") and "Usage" not in line]
