"""Golden scripts for LogQL's metric queries: a few lines, and answers that anyone can check by hand.

Commands: `line SERVICE SECOND BODY [key=value …]` adds one line, with attributes; `start` forgets them all;
`ask at=10,20 q='QUERY'` evaluates a query at these seconds and prints each series with a number for each, `-` where
there is none.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from collector.otlp.signals import LOGS
from collector.query.logql.metrics import evaluate
from collector.query.logql.plan import prepare
from collector.query.logql.source import Statistics
from tests import goldenscript
from tests.goldenscript import Command
from tests.query.logql.logs import SECOND, deadline, view_of


class MetricScript:
    """Some lines, asked about."""

    def __init__(self) -> None:
        self.payloads: list[bytes] = []

    def run(self, command: Command) -> str | list[str] | None:
        return getattr(self, command.name)(command)

    def start(self, command: Command) -> None:
        self.payloads.clear()

    def line(self, command: Command) -> None:
        service, second, body = (command.argument(at) for at in range(3))
        attributes = [{"key": key, "value": {"string_value": value}} for key, value in command.options.items()]
        resource = {"attributes": [{"key": "service.name", "value": {"string_value": service}}]}
        record = {
            "time_unix_nano": round(float(second) * SECOND),
            "body": {"string_value": body},
            "attributes": attributes,
        }
        request = LOGS.request_type(resource_logs=[{"resource": resource, "scope_logs": [{"log_records": [record]}]}])
        self.payloads.append(request.SerializeToString())

    def ask(self, command: Command) -> list[str]:
        plan = prepare(command.options["q"])
        view = view_of(self.payloads)
        steps = np.array([round(float(second) * SECOND) for second in command.options["at"].split(",")], np.int64)
        value = evaluate(deadline(), dict.fromkeys(plan.services, view), plan, steps, Statistics())
        if isinstance(value, float):
            return [f"{value:.6g}"]
        answer = []
        for labels, series in value.items():
            numbers = [
                f"{number:.6g}" if there else "-"
                for number, there in zip(series.values.tolist(), series.present.tolist(), strict=True)
            ]
            answer.append("{" + ", ".join(f'{name}="{text}"' for name, text in labels) + "} " + " ".join(numbers))
        return answer or ["nothing"]


@pytest.mark.parametrize("path", goldenscript.scripts("logql_metrics"), ids=goldenscript.script_id)
def test_script(path: Path) -> None:
    goldenscript.check(path, MetricScript().run)
