"""Export, import and replay between real daemons: the same records arrive, whichever way they go."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import urlencode

from click.testing import CliRunner

from collector.cli import main
from collector.moving.source import Range, from_directory
from collector.otlp.scan import scan
from collector.otlp.signals import LOGS, SIGNALS, TRACES, Signal
from collector.testing import otlp
from collector.wal.files import OperatingSystemFiles
from tests.daemon import Daemon

FILES = OperatingSystemFiles()
SETTINGS = ("metrics_generator.enabled=false",)


def ringtail(*arguments: str, check: bool = True) -> str:
    """Run a command, in this process."""
    done = CliRunner().invoke(main, arguments)
    assert not check or done.exit_code == 0, done.output
    return done.stdout if check else done.output


def held(directory: Path, signal: Signal) -> list[bytes]:
    """The records of a data directory as the bytes of each, in order."""
    found = []
    for piece in from_directory(str(directory), signal, Range(), FILES):
        block = scan(signal, piece.payload, 0)
        for start, length in zip(block.column("start").tolist(), block.column("length").tolist(), strict=True):
            found.append(bytes(block.payload[start : start + length]))
    return found


def test_there_and_back(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    files = {"traces": "traces.jsonl.zst", "logs": "logs.binpb.gz", "metrics": "metrics.jsonl"}
    with Daemon(tmp_path / "one", *SETTINGS) as one, Daemon(tmp_path / "two", *SETTINGS) as two:
        for signal in SIGNALS:
            for seed in range(4):
                assert (
                    one.export(signal.http_path, otlp.BUILDERS[signal](50, seed=seed, service=f"s{seed}")).code == 200
                )
        for name, file in files.items():
            out = ringtail("export", str(tmp_path / file), "--signal", name, "--endpoint", one.queries)
            assert out.startswith("200 records")
        out = ringtail("import", *(str(tmp_path / file) for file in files.values()), "--target", f"http://{two.http}")
        assert out.count("200 records") == 3
        for signal in SIGNALS:
            assert held(two.data, signal) == held(one.data, signal)

        # A query, and a range.
        picked = tmp_path / "picked.jsonl"
        query = '{ resource.service.name = "s2" }'
        out = ringtail("export", str(picked), "--query", query, "--endpoint", one.queries, "--to", "150")
        assert out.startswith("50 records")
        assert {
            attribute["value"]["stringValue"]
            for line in picked.read_text().splitlines()
            for envelope in json.loads(line)["resourceSpans"]
            for attribute in envelope["resource"]["attributes"]
            if attribute["key"] == "service.name"
        } == {"s2"}
        out = ringtail("export", str(tmp_path / "some.pb"), "--endpoint", one.queries, "--from", "10", "--to", "120")
        assert out.startswith("110 records")
        assert "there already" in ringtail("export", str(picked), "--endpoint", one.queries, check=False)

        # Once more, and shifted; by gRPC.
        target = ("--target", f"grpc://{two.grpc}", "--speed", "max")
        out = ringtail("replay", "--endpoint", one.queries, *target, "--signal", "logs", "--from", "100")
        assert out.startswith("100 records")
        assert held(two.data, LOGS)[200:] == held(one.data, LOGS)[100:]
        out = ringtail("replay", "--directory", str(one.data), *target, "--signal", "traces", "--shift", "now")
        assert out.startswith("200 records")
        before, after = (times(held_payloads(where.data)) for where in (one, two))
        shift = after[200] - before[0]
        assert shift > 0
        assert after[200:] == [time + shift for time in before]

        # What Jaeger answers: our own API is a stranger to the reader.
        assert one.export(TRACES.http_path, otlp.traces(20, service="jaeger")).code == 200
        asked = urlencode({"service": "jaeger", "limit": 100, "start": 0, "end": 2**62 // 1000})
        document = one.get(f"/jaeger/api/traces?{asked}").body
        traces = json.loads(document)["data"]
        assert traces
        path = tmp_path / "jaeger.json"
        path.write_bytes(document)
        out = ringtail("import", str(path), "--target", f"http://{two.http}")
        assert f"{sum(len(trace['spans']) for trace in traces)} records" in out
        again = json.loads(two.get(f"/jaeger/api/traces?{asked}").body)["data"]
        assert spans(again) == spans(traces)


def held_payloads(directory: Path) -> list[bytes]:
    return [piece.payload for piece in from_directory(str(directory), TRACES, Range(), FILES)]


def times(payloads: list[bytes]) -> list[int]:
    return [time for payload in payloads for time in scan(TRACES, payload, 0).column("time").tolist()]


def spans(traces: list[dict[str, list[dict[str, object]]]]) -> dict[str, tuple[object, ...]]:
    return {
        str(span["spanID"]): (
            span["traceID"],
            span["operationName"],
            span["startTime"],
            span["duration"],
            span["references"],
            sorted(str(tag) for tag in span["tags"] if isinstance(tag, dict)),  # type: ignore[attr-defined]
            span["logs"],
        )
        for trace in traces
        for span in trace["spans"]
    }
