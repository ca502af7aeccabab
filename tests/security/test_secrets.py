"""No secret is ever printed (S16): canaries in every place that holds one, and a search of everything that comes out."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import traceback
from base64 import b64encode
from pathlib import Path

import bcrypt
import pytest

from collector.exposure import known_credentials
from collector.security.secret import REDACTED, Secret
from collector.settings import load
from tests.daemon import ANY_PORT, COMMAND, Daemon, environment
from tests.security.certificates import Authority

CANARY = "canary"
LITERAL, VARIABLE, IN_FILE, WRONG = (f"{CANARY}-{name}-0123456789" for name in ("literal", "variable", "file", "wrong"))
PASSWORD = f"{CANARY}-password"


def test_a_secret_does_not_show_itself() -> None:
    secret = Secret(LITERAL)
    shown = [str(secret), repr(secret), f"{secret}", f"{secret!r}", "%s" % secret, repr({"a": [secret]})]  # noqa: UP031
    assert all(CANARY not in text and REDACTED in text for text in shown)
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        json.dumps(secret)
    assert secret == Secret(LITERAL) != Secret(WRONG)
    assert secret.reveal() == LITERAL


def test_neither_settings_nor_credentials_show_them() -> None:
    option = f"auth.credentials=[{{name: a, rights: read, tokens: [{LITERAL}]}}]"
    config = load([], [option], {})
    assert CANARY not in repr(config) + repr(known_credentials(config))
    try:
        assert config.auth.credentials == ()
    except AssertionError:
        assert CANARY not in traceback.format_exc().replace("assert config", "")


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    """A file with every kind of secret, beside the files that it names."""
    authority = Authority(tmp_path)
    crt, key = authority.issue("server")
    tokens, htpasswd = tmp_path / "tokens", tmp_path / "htpasswd"
    tokens.write_text(f"{IN_FILE}\n")
    htpasswd.write_text(f"ann:{bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()}\n")
    path = tmp_path / "collector.yaml"
    path.write_text(
        f"""
receivers: {{otlp: {{protocols: {{http: {{tls: {{cert_file: {crt}, key_file: {key}}}}}}}}}}}
auth:
  reload_interval: 100ms
  credentials:
    - {{name: literal, rights: [read, write], tokens: "{LITERAL}"}}
    - {{name: variable, rights: [read], tokens: ["${{env:CANARY_TOKEN}}"]}}
    - {{name: file, rights: [read], token_file: {tokens}}}
    - {{name: people, rights: [read], htpasswd_file: {htpasswd}}}
telemetry: {{logs: {{level: debug}}}}
"""
    )
    return path


def secrets_in(configuration: Path) -> list[bytes]:
    """Return what must not be found: the canaries, as they are and in base64, and what the key file holds."""
    key = next(configuration.parent.glob("*.key")).read_bytes().splitlines()[1]
    bcrypt_hash = (configuration.parent / "htpasswd").read_bytes().strip().partition(b":")[2]
    return [CANARY.encode(), b64encode(f"ann:{PASSWORD}".encode()), key, bcrypt_hash]


def assert_clean(configuration: Path, text: bytes, what: str) -> None:
    # The directory of the test may be named after it.
    text = text.replace(str(configuration.parent).encode(), b"")
    for secret in secrets_in(configuration):
        assert secret not in text.replace(b"CANARY_TOKEN", b""), what


def test_no_answer_and_no_log_repeats_one(configuration: Path) -> None:
    paths = [
        *(
            "/",
            "/metrics",
            "/metrics/received",
            "/api/stats",
            "/readyz",
            "/api/search?q=%7B%7D",
            "/api/v1/query?query=up",
        ),
        *("/loki/api/v1/query_range?query=%7Ba%3D%22b%22%7D", "/nothing", "/api/v1/query?query=(", "/-/reload"),
    ]
    headers = [f"Bearer {one}" for one in (LITERAL, VARIABLE, IN_FILE, WRONG)]
    headers += [f"Basic {b64encode(f'ann:{one}'.encode()).decode()}" for one in (PASSWORD, WRONG)]
    headers += [f"{CANARY} {CANARY}", "Basic " + CANARY]
    answers: list[bytes] = []
    with Daemon(
        configuration.parent,
        "telemetry.logs.format=json",
        files=[str(configuration)],
        variables={"CANARY_TOKEN": VARIABLE},
        allow={"credentials not reloaded, the old ones stay", "request failed", "library"},
    ) as daemon:
        for header in headers:
            for path in paths:
                answer = daemon.get(path, {"Authorization": header})
                answers += [answer.body, repr(answer.headers).encode()]
        (configuration.parent / "tokens").write_text(f"{CANARY} with spaces\n")
        daemon.wait_for("credentials not reloaded, the old ones stay")
        reload_log = "\n".join(daemon.lines)
        assert "tokens:1: is no token" in reload_log
    for answer in answers:
        assert_clean(configuration, answer, "an answer")
    log = "\n".join(daemon.lines).encode()
    assert_clean(configuration, log, "the log")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["print-config"], 0),
        (["validate", *(word for one in ANY_PORT for word in ("--set", one))], 0),
        (["print-config", "--set", f"auth.credentials=[{{name: a, rights: read, tokens: ['{CANARY}']}}]"], 2),
        (["validate", "--set", f"auth.credentials=[{{name: a, rights: read, tokens: {{a: {LITERAL}}}}}]"], 2),
        (["validate", "--set", f"auth.credentials=[{{name: a, rights: none, tokens: [{LITERAL}, [{LITERAL}]]}}]"], 2),
        (["run", "--set", "auth.credentials=[{name: a, rights: read, token_file: broken}]"], 2),
        (["run", "--set", "auth.credentials=[{name: a, rights: read, htpasswd_file: broken}]"], 2),
    ],
)
def test_no_command_prints_one(configuration: Path, arguments: list[str], code: int) -> None:
    (configuration.parent / "broken").write_text(f"{CANARY} {PASSWORD}\n")
    command, *more = arguments
    done = subprocess.run(
        [*COMMAND, command, "--config", str(configuration), *more],
        capture_output=True,
        cwd=configuration.parent,
        env={**environment(), "CANARY_TOKEN": VARIABLE},
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert_clean(configuration, done.stdout + done.stderr, command)
    if command == "print-config" and code == 0:
        assert REDACTED.encode() in done.stdout
        assert b"${env:CANARY_TOKEN}" in done.stdout


def test_a_canary_would_be_found(configuration: Path) -> None:
    """The canary of the tests above."""
    for secret in secrets_in(configuration):
        with pytest.raises(AssertionError):
            assert_clean(configuration, b"x" + secret + os.urandom(3), "anything")
