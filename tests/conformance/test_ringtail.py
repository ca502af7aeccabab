"""Ringtail, as a process of its own, does all that it must and should."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from collector.cli import main
from collector.conformance import kit
from collector.conformance.check import Level, Section, Verdict
from collector.conformance.target import Target

OPTIONS_NOT_TAKEN = {"6a", "23a"}
"""Two ports, and HTTP/1.1 on one of them."""


@pytest.mark.parametrize("section", kit.SECTIONS, ids=lambda one: one.title)
def test_ringtail_passes(section: Section, ringtail: Target) -> None:
    results = list(kit.run(ringtail, section.checks))
    failed = [f"{one.check.number} {one.check.title}: {one.seen}" for one in results if one.verdict is Verdict.FAIL]
    assert [one for one in failed if one.split()[0] not in OPTIONS_NOT_TAKEN] == []
    assert [one.check.number for one in results if one.verdict is Verdict.SKIP] == []


def test_every_line_of_the_list_has_checks() -> None:
    checks = [check for section in kit.SECTIONS for check in section.checks]
    assert {check.line for check in checks} >= {str(line) for line in range(1, 60)}
    numbers = [check.number for check in checks]
    assert len(numbers) == len(set(numbers))


def test_texts_are_sentences_about_the_server() -> None:
    for section in kit.SECTIONS:
        for check in section.checks:
            assert check.title[0].islower(), check.number
            assert not check.title.endswith("."), check.number
            assert check.sent, check.number
            assert check.expected, check.number


def test_the_command_on_a_given_endpoint(ringtail: Target) -> None:
    assert ringtail.own is not None
    found = ringtail.own.addresses
    arguments = ["conformance", "--grpc", found["otlp/grpc"], "--http", f"http://{found['otlp/http']}"]
    result = CliRunner().invoke(main, [*arguments, "--only", "1, 24e,48d"])
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert [line.split()[:3] for line in lines if line[:4].strip()] == [
        *[["Transport"]],
        *[[f"1{letter}", "MUST", "pass"] for letter in "abcd"],
        *[["HTTP", "requests"], ["24e", "SHOULD", "skip"]],
        *[["Data", "model"], ["48d", "MUST", "skip"]],
        *[["MUST", "4", "of"], ["SHOULD", "0", "of"], ["MAY", "0", "of"]],
    ]
    query = ["--query", f"http://{found['api']}", "--json"]
    result = CliRunner().invoke(main, [*arguments, *query, "--only", "48d"])
    report = json.loads(result.output)
    assert (result.exit_code, report["conformant"]) == (0, True)
    (check,) = report["checks"]
    assert (check["number"], check["level"], check["verdict"]) == ("48d", Level.MUST, "pass")
    assert report["score"]["MUST"] == {"pass": 1, "fail": 0, "skip": 0}


def test_mistakes_in_the_command_line() -> None:
    for arguments, complaint in ((["--only", "99z"], "there is no check"), (["--header", "x"], "NAME=VALUE")):
        result = CliRunner().invoke(main, ["conformance", *arguments])
        assert result.exit_code == 2
        assert complaint in result.output


def test_the_list() -> None:
    result = CliRunner().invoke(main, ["conformance", "--list"])
    assert result.exit_code == 0
    assert " 24b  MUST    refuses a chunked body over the size limit with 413" in result.output


def test_nobody_there() -> None:
    result = CliRunner().invoke(main, ["conformance", "--http", "http://127.0.0.1:1", "--only", "1c"])
    assert result.exit_code == 1
    assert "no connection to 127.0.0.1:1" in result.output
