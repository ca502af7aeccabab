"""How far a command is, where somebody looks."""

from __future__ import annotations

import io
import sys

import pytest

from collector.cli.backup import Progress, duration


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, now = Terminal(), [0.0]
    monkeypatch.setattr(sys, "stderr", terminal)
    progress = Progress("", lambda: now[0])
    for done in (40, 50, 60, 100):
        progress.bar(done, 100, f"{done} spans")
        now[0] += 3.0
    progress.end()
    shown = terminal.getvalue().split("\r\x1b[K")
    assert shown == [
        "",
        "[########            ]  40% 40 spans",
        "[##########          ]  50% 50 spans, 15 s left",
        "[############        ]  60% 60 spans, 12 s left",
        "[####################] 100% 100 spans",
        "",
    ]
    monkeypatch.setattr(sys, "stderr", quiet := io.StringIO())
    Progress("").bar(1, 2, "x")
    assert quiet.getvalue() == ""
    assert [duration(one) for one in (5, 600, 7200)] == ["5 s", "10 min", "2.0 h"]
