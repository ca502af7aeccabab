"""Log queries over a compacted log: which texts its key indexes know of changes no answer."""

from __future__ import annotations

import asyncio
import re
from random import Random
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from collector.otlp.scan import scan
from collector.otlp.signals import LOGS
from collector.query.logql import ast
from collector.query.logql.labels import flatten, value_text
from collector.query.logql.logs import read_lines
from collector.query.logql.source import Source, Statistics
from collector.ring.ring import Ring
from collector.store import Store
from collector.testing.files import MemoryFiles
from collector.wal import grams, merging
from tests.query.logql.logs import deadline
from tests.wal.logs import open_log
from tests.wal.test_compact import compact_all

WORDS = (
    "order",
    "ORDER",
    "Größe",
    "größe",
    "ticket-004711",
    "4711",
    "0.5",
    "10.1.2.3",
    "in",
    "KELVIN \u212a",
    "true",
    "null",
)
KEYS = ("customer.id", "level", "http.url", "flags")
END = 2**63


def drawn(chance: Random) -> str:
    """A text of some words."""
    return chance.choice((" ", ", ", '"', "-", "")).join(chance.choices(WORDS, k=chance.randint(0, 4)))


def value(chance: Random, depth: int = 0) -> dict[str, Any]:
    """An AnyValue; most are strings."""
    kind = chance.randrange(14)
    if kind == 0 and depth < 2:
        return {"array_value": {"values": [value(chance, depth + 1) for _ in range(2)]}}
    if kind == 1 and depth < 2:
        pairs = [{"key": drawn(chance), "value": value(chance, depth + 1)} for _ in range(2)]
        return {"kvlist_value": {"values": pairs}}
    if kind == 2:
        return chance.choice(({"int_value": 4711}, {"double_value": 0.5}, {"bool_value": True}, {}))
    if kind == 3 and chance.random() < 0.2:
        return {"bytes_value": drawn(chance).encode()}
    return {"string_value": drawn(chance)}


def request(chance: Random, second: int) -> Any:
    """An export request of a few records; the bodies of most requests are strings."""
    plain = chance.random() < 0.7
    records = [
        {
            "time_unix_nano": second * 10**9,
            "body": {"string_value": drawn(chance)} if plain else value(chance),
            "attributes": [{"key": chance.choice(KEYS), "value": value(chance)} for _ in range(chance.randrange(3))],
        }
        for _ in range(chance.randint(1, 3))
    ]
    resource = {"attributes": [{"key": "service.name", "value": {"string_value": "shop"}}]}
    resource["attributes"].append({"key": "host", "value": value(chance)})
    return LOGS.request_type(resource_logs=[{"resource": resource, "scope_logs": [{"log_records": records}]}])


class Corpus:
    """A log without a ring, all of it compacted but its end, of a seed."""

    def __init__(self, seed: int) -> None:
        chance = Random(f"corpus {seed}")
        files = MemoryFiles()
        log = open_log(files, signal=LOGS, segment_bytes=3000)
        self.lines: list[str] = []
        self.labels: list[tuple[str, str]] = []
        for second in range(1, 40):
            made = request(chance, second)
            block = scan(LOGS, made.SerializeToString(), log.next_offset)
            log.append([block.payload], block.count, block.min_time, block.max_time)
            for one in made.resource_logs:
                self.labels += flatten(one.resource.attributes)
                for record in one.scope_logs[0].log_records:
                    self.lines.append(value_text(record.body))
                    self.labels += flatten(record.attributes)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(merging, "FRAME_RECORDS", 4)
            compact_all(files, log)
        loop = asyncio.new_event_loop()
        loop.close()
        self.store = Store(LOGS, Ring(LOGS, 1, 1 << 24, log.next_offset), log, loop)
        assert sum(one.compacted for one in log.sealed_segments) > 1


def answer(corpus: Corpus, query: ast.LogQuery, *, pruned: bool) -> tuple[list[int], int]:
    """The offsets of the lines that a query finds, and how many lines it looked at."""
    source, statistics = Source(query), Statistics()
    if not pruned:
        source.terms = ()
    with corpus.store.view() as view:
        lines = read_lines(deadline(), view, source, 0, END, 1000, False, statistics)
    return [line.offset for line in lines], statistics.log_lines


CORPORA = [Corpus(seed) for seed in range(3)]


@st.composite
def stages(draw: st.DrawFn, corpus: Corpus) -> ast.Stage:
    """A stage that asks for something of the corpus."""
    kind = draw(st.sampled_from(["|=", "|~", "(?i)", "|>", "label", "either"]))
    if kind == "label":
        return ast.LabelStage(draw(conditions(corpus)))
    if kind == "either":
        return ast.LabelStage(ast.Or((draw(conditions(corpus)), draw(conditions(corpus)))))
    line = draw(st.sampled_from(corpus.lines))
    begin = draw(st.integers(0, len(line)))
    part = line[begin : draw(st.integers(begin, len(line)))]
    if kind == "(?i)":
        part = f"(?i){re.escape(draw(st.sampled_from([part, part.upper(), part.lower()])))}"
    elif kind == "|~":
        part = f"{re.escape(part)}.*|{re.escape(draw(st.sampled_from(WORDS)))}"
    elif kind == "|>":
        part = f"{draw(st.sampled_from(['', '<_>']))}{part or 'order'}<_>{draw(st.sampled_from(['', *WORDS]))}"
    others = draw(st.lists(st.sampled_from(WORDS), max_size=1)) if kind == "|=" else []
    op = "|~" if kind == "(?i)" else kind
    return ast.LineFilter(op, tuple(ast.LineOperand(text) for text in (part, *others)))


@st.composite
def conditions(draw: st.DrawFn, corpus: Corpus) -> ast.LabelFilter:
    """A label that some record has."""
    label, text = draw(st.sampled_from(corpus.labels))
    return ast.Matcher(label, "=", text)


def same_answer(data: st.DataObject) -> None:
    """A query finds the same with its terms and without."""
    corpus = data.draw(st.sampled_from(CORPORA))
    chosen = data.draw(st.lists(stages(corpus), min_size=1, max_size=2))
    query = ast.LogQuery(ast.Selector((ast.Matcher("service_name", "=", "shop"),)), tuple(chosen))
    expected, everything = answer(corpus, query, pruned=False)
    found, looked_at = answer(corpus, query, pruned=True)
    assert found == expected
    assert looked_at <= everything


test_terms_change_no_answer = given(st.data())(same_answer)


def test_terms_spare_lines() -> None:
    query = ast.LogQuery(
        ast.Selector((ast.Matcher("service_name", "=", "shop"),)),
        (ast.LineFilter("|=", (ast.LineOperand("nowhere"),)),),
    )
    for corpus in CORPORA:
        found, looked_at = answer(corpus, query, pruned=True)
        assert found == []
        assert looked_at < answer(corpus, query, pruned=False)[1] / 2


def test_grams_that_do_not_fold_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The canary."""
    monkeypatch.setattr(grams, "rows_of", lambda needle: (hash(needle) % 65536,) if len(needle) > 3 else ())
    with pytest.raises(AssertionError):
        settings(max_examples=300, phases=[Phase.generate], database=None)(given(st.data())(same_answer))()
