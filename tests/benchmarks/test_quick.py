"""The benchmark runs and checks itself: figures of such a run mean nothing."""

from __future__ import annotations

import json
from pathlib import Path

from tests.benchmarks.report import BEGIN, END, update
from tests.benchmarks.run import main
from tests.benchmarks.workload import workloads


def test_a_quick_run_leaves_its_figures(tmp_path: Path) -> None:
    chosen = ("traces/http", "logs/grpc", "traces/grpc/1x64", "traces/json")
    arguments = [word for name in chosen for word in ("--only", name)]
    assert main(["--quick", *arguments, "--output", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("*.jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    measured = {line["workload"] for line in lines if line["kind"] == "figure" and line["server"] == "ringtail"}
    assert measured == set(chosen)
    assert all(line["median_us"] > 0 for line in lines if line["kind"] == "figure")
    (table,) = tmp_path.glob("*.md")
    assert "512 spans by HTTP/JSON" in table.read_text()
    assert main(["--only", "traces/pigeon"]) == 2


def test_workloads_have_names_of_their_own() -> None:
    names = [one.name for one in workloads(3)]
    assert len(set(names)) == len(names)


def test_the_table_is_put_between_its_marks(tmp_path: Path) -> None:
    page, other = tmp_path / "page.md", tmp_path / "other.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    other.write_text("nothing\n")
    assert update([page, other, tmp_path / "missing.md"], "new\n") == [page]
    assert page.read_text() == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
    assert other.read_text() == "nothing\n"
