"""What is hostile to stages: lines that nest deeply, pipelines that pile up, work that takes longer than the query may."""

from __future__ import annotations

import pytest

from collector.errors import InvalidQuery, QueryLimit, QueryTimeout
from collector.query.deadline import Deadline
from collector.query.logql.column import Column
from collector.query.logql.columns import Batch
from collector.query.logql.logs import read_lines
from collector.query.logql.members import NESTING_MAX, json_member, json_members
from collector.query.logql.plan import prepare
from collector.query.logql.source import Statistics
from collector.query.logql.steps import LAYERS_MAX, run
from tests.query.logql.logs import deadline, view_of
from tests.query.logql.test_stages import batch_of


def through(text: str, lines: list[str], limit: Deadline | None = None) -> Batch:
    """Run lines through the stages of a query."""
    [source] = prepare(f'{{service_name="s"}} {text}').sources.values()
    return run(source._steps, batch_of(lines), limit or deadline())


def texts(column: Column) -> list[str]:
    return [column.values[code] for code in column.codes]


def test_objects_nest_so_deep_and_no_deeper() -> None:
    for depth in (NESTING_MAX - 1, NESTING_MAX, 50_000):
        line = '{"a":' * depth + "{" + '"x":1' + "}" * (depth + 1)
        batch = through("| json", ['{"b":1,' + line[1:]])
        fits = depth < NESTING_MAX
        name = "_".join("a" * depth) + "_x"
        assert texts(batch.column("b")) == ["1"]
        assert texts(batch.column(name[:2000])) == ["1" if fits and len(name) < 2000 else ""]
        assert texts(batch.column("__error__")) == ["" if fits else "JSONParserErr"]
        assert ("nest deeper" in texts(batch.column("__error_details__"))[0]) != fits
    assert len(through('| json x="a.a"', ['{"a":' * 50_000]).rows) == 1


def test_brackets_without_an_end_are_quick() -> None:
    line = ('{"a":[' * 20_000).encode()
    assert json_members(line)[1] != 0
    line = b'{"a":"' + b"\\" * 100_001
    assert json_members(line)[1] != 0


def test_extents_outside_the_buffer_are_refused() -> None:
    import numpy as np

    with pytest.raises(ValueError, match="outside"):
        json_member(b"{}", np.array([1], np.uint32), np.array([2], np.uint32), b"a")


def test_pipelines_have_so_many_stages() -> None:
    through("| json " * LAYERS_MAX, ["{}"])
    for stages in ("| json " * (LAYERS_MAX + 1), "| label_format a=b, c=d " * (LAYERS_MAX // 2 + 1)):
        with pytest.raises(InvalidQuery, match="more than 100 stages"):
            prepare(f'{{a="b"}} {stages}')
    through('| a!="b" |= "" ' * 3000, ["x"])


def test_a_high_pile_of_stages_is_answered_once_for_each() -> None:
    stages = " ".join(f'| json | label_format a="{{{{.a}}}}{number % 10}"' for number in range(LAYERS_MAX // 2))
    batch = through(f'{stages} | level!="x" | a!="y"', ['{"a":"z"}'])
    assert texts(batch.column("a")) == ["z" + "0123456789" * 5]


def test_what_stages_make_is_bounded() -> None:
    grows = '| line_format "{{ repeat 1000 __line__ }}"'
    assert through(grows, ["x" * 500] * 20).lines.sizes().sum() == 10_000_000
    with pytest.raises(QueryLimit, match="more than 67108864 characters"):
        through(grows, ["x" * 500] * 150).lines.sizes()
    with pytest.raises(QueryLimit, match="out of 60 lines"):
        through(f"{grows} | label_format a=`{{{{ __line__ }}}}` | a=``", ["x" * 1000] * 60)
    batch = batch_of(["x" * 1000] * 100)
    [source] = prepare(f'{{service_name="s"}} {grows}').sources.values()
    view = view_of([bytes(batch.block.payload)])
    assert len(read_lines(deadline(), view, source, 0, 10**12, 60, False, Statistics())) == 60
    with pytest.raises(QueryLimit, match="lower the limit"):
        read_lines(deadline(), view, source, 0, 10**12, 70, False, Statistics())


class Slow:
    """A clock that goes on a second every time it is asked."""

    def __init__(self) -> None:
        self.asked = 0.0

    def now_ns(self) -> int:
        return 0

    def monotonic(self) -> float:
        self.asked += 1
        return self.asked


@pytest.mark.parametrize(
    "stages",
    [
        '| regexp "(?P<x>.)" | x="1"',
        '| line_format "{{__line__}}!" |= "y"',
        "| logfmt a | a=`1`",
        "| decolorize |= `y`",
    ],
)
def test_work_line_by_line_asks_the_deadline(stages: str) -> None:
    clock = Slow()
    limit = Deadline(6.0, clock)
    [source] = prepare(f'{{service_name="s"}} {stages}').sources.values()
    block = batch_of(["\x1b[0m"] * 3000)
    with pytest.raises(QueryTimeout):
        run(source._steps, Batch(block.block, block.rows, block.records, limit), limit)


def test_now_is_the_time_of_the_query() -> None:
    [source] = prepare('{service_name="s"} | line_format "{{ now | unixEpoch }}"').sources.values()
    batch = run(source._steps, batch_of(["a", "b"]), deadline())
    first, second = batch.lines.all()
    assert first == second
    assert int(first) > 1_700_000_000
