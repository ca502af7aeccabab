"""The level that a line tells: the compiled rules against plain ones, and lines as programs write them."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.query.levels import LEVELS, level_of, levels

NAMES = {
    "trace": "trace",
    "trc": "trace",
    "debug": "debug",
    "dbg": "debug",
    "info": "info",
    "inf": "info",
    "information": "info",
    "warn": "warn",
    "wrn": "warn",
    "warning": "warn",
    "error": "error",
    "err": "error",
    "critical": "critical",
    "fatal": "fatal",
}
WORDS = ("trace", "debug", "fatal", "critical", "error", "err", "warning", "warn", "info")
KEYS = ("level", "log.level", "severity", "severitytext", "lvl", "severity_text")
JSON_KEYS = {"log.level", "SeverityText", "Severity_Text", "severity_text", "SEVERITY_TEXT"} | {
    form for key in ("level", "severity", "lvl") for form in (key, key.upper(), key.capitalize())
}
SPACE = " \t\n\v\f\r"


def word(line: str) -> str:
    """The level of the first word between bounds, by a regular expression."""
    lower = "".join(chr(ord(each) | 32) if "A" <= each <= "Z" else each for each in line)
    found = re.search(
        f"(?:^|(?<=[ \\t\\n\\[({{\"'=|]))({'|'.join(WORDS)})(?=\\Z|[ \\t\\n\\[\\](){{}}:,!\"'=|])",
        lower,
    )
    return NAMES[found.group(1)] if found else "unknown"


def strings(text: str, at: int) -> int:
    """Where a string ends that begins behind its quotation mark, or -1."""
    while at < len(text):
        if text[at] == "\\":
            at += 1
        elif text[at] == '"':
            return at
        at += 1
    return -1


def json_value(text: str) -> str:
    """The first text under a level's name, two objects deep, in a JSON text that may end anywhere."""
    at, depth = 1, 1
    while at < len(text):
        if text[at] in SPACE + ",":
            at += 1
        elif text[at] == "}":
            depth, at = depth - 1, at + 1
            if depth == 0:
                return ""
        elif text[at] != '"':
            return ""
        else:
            end = strings(text, at + 1)
            if end < 0:
                return ""
            key, at = text[at + 1 : end], end + 1
            while at < len(text) and text[at] in SPACE:
                at += 1
            if at >= len(text) or text[at] != ":":
                return ""
            at += 1
            while at < len(text) and text[at] in SPACE:
                at += 1
            if at >= len(text):
                return ""
            if text[at] == '"':
                end = strings(text, at + 1)
                if end < 0:
                    return ""
                if key in JSON_KEYS:
                    return text[at + 1 : end]
                at = end + 1
            elif text[at] == "{" and depth < 2:
                depth, at = depth + 1, at + 1
            elif text[at] in "{[":
                inner = 0
                while at < len(text):
                    if text[at] == '"':
                        at = strings(text, at + 1)
                        if at < 0:
                            return ""
                    inner += (text[at] in "{[") - (text[at] in "}]")
                    at += 1
                    if inner == 0:
                        break
            else:
                while at < len(text) and text[at] not in ",}":
                    at += 1
    return ""


PAIR = re.compile(
    r'[\x00-\x20]*([^\x00-\x20="]+)(=("(?:[^"\\]|\\.)*"|(?!")[^\x00-\x20="]*)|(?=[\x00-\x20]|$))', re.DOTALL
)


def logfmt_value(line: str) -> str:
    """The value of the pair with the best key, up to the first thing that is no pair."""
    best, value, at = len(KEYS), "", 0
    while match := PAIR.match(line, at):
        at = match.end()
        if match.group(2) and match.group(3) is not None:
            quoted = match.group(3).startswith('"')
            if not quoted and at < len(line) and line[at] > " ":
                break
            key = match.group(1).lower() if match.group(1).isascii() else match.group(1)
            if key in KEYS[:best]:
                best, value = KEYS.index(key), match.group(3)[1:-1] if quoted else match.group(3)
    return value


def expected(line: str) -> str:
    stripped = line.strip(SPACE)
    value = ""
    if len(stripped) > 1 and stripped[0] == "{" and stripped[-1] == "}":
        value = json_value(stripped)
    elif "=" in line:
        value = logfmt_value(line)
    return NAMES.get(value.lower() if value.isascii() else "", "") or word(line)


CHARACTERS = " \t\n\\=:,!|\"'[](){}"
TOGETHER = ['":"', '", "', '{"', '"}', '="', '" ', " level=", '"level":"']
PIECES = st.sampled_from([*WORDS, *KEYS, "WRN", "Info", "INFORMATION", "x", "é", "Level", "9", *CHARACTERS, *TOGETHER])


@given(st.lists(PIECES, max_size=12).map("".join))
def test_as_the_plain_rules(line: str) -> None:
    assert LEVELS[level_of(line.encode())] == expected(line)


@given(st.lists(st.lists(PIECES, max_size=6).map("".join), max_size=5))
def test_many_at_once(lines: list[str]) -> None:
    raw = [line.encode() for line in lines]
    lengths = np.array([len(line) for line in raw], np.uint32)
    starts = np.cumsum(lengths, dtype=np.uint32) - lengths
    found = levels(b"".join(raw), starts.astype(np.uint32), lengths)
    assert [LEVELS[code] for code in found.tolist()] == [
        expected(line) if b"".join(raw) else "unknown" for line in lines
    ]


def test_an_extent_outside_is_refused() -> None:
    with pytest.raises(ValueError, match="outside"):
        levels(b"abc", np.array([1], np.uint32), np.array([3], np.uint32))


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("2024-01-01 12:00:00 [ERROR] it broke", "error"),
        ("INFO:     127.0.0.1:5000 - GET /", "info"),
        ("main.go: debug: starting, no errors", "debug"),
        ("terror in the information age", "unknown"),
        ('ts=1 caller=x.go:5 level=warn msg="level=error"', "warn"),
        ('ts=1 LVL=dbg msg="an error"', "debug"),
        ('msg="a = b" severity=fatal', "fatal"),
        ('msg="not closed level=warn', "warn"),
        ('{"msg":"an error","level":"Info"}', "info"),
        ('{"attributes":{"deep":{"level":"warn"}},"msg":"error: x"}', "warn"),
        ('{"log":{"level":"trace"}}', "trace"),
        ('{"list":[{"level":"warn"}],"lvl":"critical"}', "critical"),
        ('{"level":5,"severity":"ERR"}', "error"),
        ("{", "unknown"),
        ("", "unknown"),
    ],
)
def test_lines_of_programs(line: str, level: str) -> None:
    assert LEVELS[level_of(line.encode())] == level
