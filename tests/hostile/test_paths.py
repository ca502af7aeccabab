"""S8: names that become files, or look as if they did: nothing outside the data directory is opened or changed."""

from __future__ import annotations

import ast
import itertools
import sys
from pathlib import Path
from urllib.parse import quote

import grpc
import pytest
from click.testing import CliRunner

from collector.cli import main
from collector.errors import Malformed, Unauthenticated
from collector.otlp.signals import TRACES
from collector.tenants import NAME, NAME_MAX, Tenants
from collector.testing import otlp
from tests.daemon import ROOT, Daemon

STEPS = ("..", "../..", "..\\..", "....//", "%2e%2e", "%252e%252e", "..%2f", "..%c0%af", ".%00.", "..;", "\uff0e\uff0e")
TARGETS = ("etc/passwd", "etc/shadow", "proc/self/environ", "traces", "data", "tmp/x", "ringtail.lock", "\0", "a\nb")
PREFIXES = ("", "/", "//", "./", "a/", "C:\\", "file:///", "\\\\host\\", "~/", "$HOME/", ".", "-")
NAMES = list(
    dict.fromkeys(
        f"{prefix}{step}{joint}{target}"
        for prefix, step, joint, target in itertools.product(PREFIXES, STEPS, ("", "/"), TARGETS)
    )
)
ODD = [
    "",
    ".",
    "..",
    "...",
    "a/b",
    "a\\b",
    "a\0b",
    " a",
    "a ",
    "CON",
    "a" * 65,
    "\u212a",
    "\u0661",
    "a\u0301",
    "\u202ea",
    "a:b",
]


def tenants() -> Tenants:
    return Tenants(3, lambda name: pytest.fail(f"{name!r} was made"), lambda: None, None, None)  # type: ignore[arg-type]


def test_names_of_tenants() -> None:
    assert len(NAMES) >= 1000
    for name in [*NAMES, *ODD]:
        if name == "CON":
            continue
        if NAME.fullmatch(name) and len(name) <= NAME_MAX:
            assert not set(name) & set("/\\\0%"), name
            assert not name.startswith("."), name
            continue
        with pytest.raises((Malformed, Unauthenticated)):
            tenants().written(name)


def test_nothing_outside_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = tmp_path / "paths"
    monkeypatch.setenv("RINGTAIL_TEST_PATHS", str(paths))
    command = (sys.executable, "-m", "tests.hostile.audited")
    with Daemon(tmp_path, "tenants.enabled=true", "tenants.max=5", command=command) as daemon:
        good = {"X-Scope-OrgID": "good"}
        while daemon.export("/v1/traces", otlp.traces(1), good).code != 200:
            pass  # the tenant is being opened
        warm = daemon.get("/api/search?q=%7B%7D", good)
        assert warm.code == 200
        begin = paths.stat().st_size
        sent = 0
        body = otlp.traces(1)
        with grpc.insecure_channel(daemon.grpc) as channel:
            export = channel.unary_unary(f"/{TRACES.service}/Export")
            for number, name in enumerate([*NAMES, *ODD]):
                header = name if name.isascii() and name.isprintable() else quote(name)
                if NAME.fullmatch(header.strip()):
                    continue
                sent += 1
                assert daemon.export("/v1/traces", body, {"X-Scope-OrgID": header}).code in (400, 401)
                assert daemon.get("/api/stats", {"X-Scope-OrgID": header}).code in (400, 401)
                if number % 10 == 0:
                    with pytest.raises(grpc.RpcError):
                        export(body, metadata=[("x-scope-orgid", header)], timeout=30)
                    for path in (f"/{name}", f"/api/traces/{name}", f"/api/search/tag/{name}/values",
                                 f"/loki/api/v1/label/{name}/values", f"/api/v1/label/{name}/values"):  # fmt: skip
                        assert daemon.get(quote(path), good).code < 500
                        assert daemon.export(quote(path), body).code in (400, 404, 405)
        assert sent >= 1000
        opened = [line.split(" ", 1) for line in paths.read_text()[begin:].splitlines()]
        data = str(daemon.data)
        for kind, text in opened:
            path = ast.literal_eval(text)
            inside = path == data or path.startswith(f"{data}/")
            known = ("/proc/self/", "/sys/fs/cgroup", sys.prefix, sys.base_prefix, str(ROOT / "collector"))
            harmless = kind == "r" and path.startswith(known)
            assert inside or harmless, (kind, path)
    assert sorted(path.name for path in (tmp_path / "data" / "tenants").iterdir()) == ["good"]
    assert {path.name for path in tmp_path.iterdir()} <= {"data", "paths"}


def test_a_link_in_the_log_is_no_way_out(tmp_path: Path) -> None:
    """`ringtail wal` reads what lies under the names of segments; of what is no segment it shows nothing."""
    secret = tmp_path / "secret"
    secret.write_text("top secret " * 100)
    log = tmp_path / "data" / "traces"
    log.mkdir(parents=True)
    (log / "00000000000000000000.log").symlink_to(secret)
    (log / "..\\..\\x.log").write_text("x")
    (log / "00000000000000000000.log\n").write_text("x")
    for command in ("inspect", "verify", "cat"):
        done = CliRunner().invoke(main, ["wal", command, str(tmp_path / "data")])
        assert "top secret" not in done.output
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert secret.read_text() == "top secret " * 100
    for directory in ("../../etc", "/etc/passwd", ""):
        done = CliRunner().invoke(main, ["wal", "cat", directory])
        assert done.exit_code != 0 or not done.output
        assert done.exception is None or isinstance(done.exception, SystemExit), (directory, done.exception)
    done = CliRunner().invoke(main, ["wal", "cat", str(tmp_path / "data"), "--signal", "../secret"])
    assert done.exit_code == 2
