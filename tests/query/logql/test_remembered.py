"""Remembered labels change no answer, while records come and go, and keep to their bounds."""

from __future__ import annotations

import asyncio
from random import Random

import numpy as np
import pytest

from collector.otlp.scan import scan
from collector.otlp.signals import LOGS
from collector.query.logql import matches, remembered
from collector.query.logql.known import STREAM
from collector.query.logql.labels import Records
from collector.query.logql.metrics import evaluate
from collector.query.logql.original import Original
from collector.query.logql.parser import parse_selector
from collector.query.logql.plan import prepare
from collector.query.logql.remembered import Remembered
from collector.query.logql.source import Statistics
from collector.query.logql.volumes import volumes
from collector.ring.ring import Ring
from collector.store import Memo, Store, View
from collector.testing.files import MemoryFiles
from tests.query.logql.logs import SECOND, deadline, store_of
from tests.wal.logs import open_log

QUERIES = [
    "sum by (level) (count_over_time({S}[30s]))",
    'sum by (level, x) (count_over_time({S} | level != "a" | drop level="b" [7s]))',
    "sum by (service_name) (bytes_over_time({S}[30s]))",
    'sum by (level) (bytes_rate({S} |= "line" [30s]))',
    'sum by (x, level) (rate({S} |~ "l.n" | keep x [10s]))',
    "quantile_over_time(0.5, {S} | unwrap x [30s]) by (level)",
    "last_over_time({S} | unwrap x | x > 2 [30s]) by (level)",
    'absent_over_time({S} | level="a" [3s])',
]
SELECTORS = ['service_name=~".+"', 'service_name="a"', 'service_name=~"b|c", k8s_pod_name!="p"']


def request(chance: Random, count: int) -> bytes:
    """Return a request of random records."""
    records = [
        {
            "time_unix_nano": chance.randint(1, 90) * SECOND,
            "body": {"string_value": chance.choice(["a line", "another"])},
            "attributes": [
                {"key": key, "value": {"string_value": value}}
                for key, value in (("level", chance.choice("abcd")), ("x", chance.choice("1234567")))
                if chance.random() < 0.8
            ],
        }
        for _ in range(count)
    ]
    attributes = [
        {"key": "service.name", "value": {"string_value": chance.choice("abc")}},
        {"key": "k8s.pod.name", "value": {"string_value": chance.choice("pq")}},
    ]
    return LOGS.request_type(
        resource_logs=[{"resource": {"attributes": attributes}, "scope_logs": [{"log_records": records}]}]
    ).SerializeToString()


def answer(view: View, text: str, *, remembers: bool) -> dict:
    """Evaluate a query over one view, with what the store remembers or with nothing."""
    memo, view.memo = view.memo, view.memo if remembers else None
    plan = prepare(text)
    steps = np.arange(5, 100, 10) * SECOND
    statistics = Statistics()
    value = evaluate(deadline(), dict.fromkeys(plan.services, view), plan, steps, statistics)
    view.memo = memo
    assert isinstance(value, dict)
    found = {
        labels: [each if there else None for each, there in zip(series.values, series.present, strict=True)]
        for labels, series in value.items()
    }
    if "|" not in text:  # what the keyword index spares is not looked at
        found["looked at"] = [statistics.ring_lines, statistics.log_lines, statistics.ring_bytes, statistics.log_bytes]
    return found


@pytest.mark.parametrize(("distinct", "bytes_max"), [(3, 1 << 20), (1000, 1 << 20), (1000, 0)])
def test_what_is_remembered_changes_no_answer(monkeypatch: pytest.MonkeyPatch, distinct: int, bytes_max: int) -> None:
    monkeypatch.setattr(remembered, "DISTINCT_MAX", distinct)
    monkeypatch.setattr(matches, "BLOCKS_TRIED", 2)
    monkeypatch.setattr(matches, "RECORDS_AT_ONCE", 20)
    chance = Random(distinct + bytes_max)
    texts = [query.replace("S", selector, 1) for query in QUERIES for selector in SELECTORS]
    chance.shuffle(texts)
    loop = asyncio.new_event_loop()
    loop.close()
    log = open_log(MemoryFiles(), signal=LOGS, segment_bytes=4000)
    store = Store(LOGS, Ring(LOGS, 40, 1 << 24, log.next_offset), log, loop)
    store.memo.bytes_max = bytes_max
    old: list[View] = []
    for _ in range(8):
        for _ in range(chance.randint(3, 7)):
            payload = request(chance, chance.randint(1, 9))
            block = scan(LOGS, payload, log.next_offset)
            log.append([payload], block.count, block.min_time, block.max_time)
            store.ring.append(block)
        text = texts.pop()
        narrowed = store.view("service", b"a") if 'service_name="a"' in text else store.view()
        for view in (narrowed, store.view(ring_only=True), *old[-1:]):
            assert answer(view, text, remembers=True) == answer(view, text, remembers=False), text
        for targets in ((), ("k8s_pod_name",)):
            selector = parse_selector("{" + chance.choice(SELECTORS) + "}")
            view = store.view()
            found = volumes(deadline(), view, selector, 0, 90 * SECOND, 20 * SECOND, targets)
            view.memo = None
            assert found == volumes(deadline(), view, selector, 0, 90 * SECOND, 20 * SECOND, targets)
        if chance.random() < 0.2:
            old.append(store.view())
        if chance.random() < 0.1:
            store.memo.forget()
        assert store.memo.kept("logql", Remembered).nbytes <= bytes_max


def test_a_label_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_of([request(Random(1), 9), request(Random(2), 9)])
    text = 'sum by (level) (count_over_time({service_name=~".+"}[1m]))'
    first = answer(store.view(), text, remembers=True)

    def unexpected(self: Original, name: str) -> None:
        raise AssertionError(f"{name} is read again")

    monkeypatch.setattr(Original, "_entry", unexpected)
    assert answer(store.view(), text, remembers=True) == first
    with pytest.raises(AssertionError, match="level is read again"):
        answer(store.view(), text, remembers=False)


def test_what_is_remembered_is_small() -> None:
    store = store_of([request(Random(seed), 100) for seed in range(50)], 5000)
    known = Remembered(store.memo).known(deadline(), store.view(), ("level", STREAM), 5000)
    assert known is not None
    assert {name: one.codes.dtype.itemsize for name, one in known.items()} == {"level": 1, STREAM: 1}
    assert known["level"].values[0] == ""
    assert sorted(known["level"].values) == ["", "a", "b", "c", "d"]
    assert len(known[STREAM].streams) == 6


def test_codes_grow_with_the_texts() -> None:
    view = store_of([_numbered(range(begin, begin + 100)) for begin in range(0, 1000, 100)]).view()
    fields = Remembered(Memo()).known(deadline(), view, ("x",), 1000)
    assert fields is not None
    assert fields["x"].codes.dtype == np.uint16
    assert [fields["x"].values[code] for code in fields["x"].codes.tolist()] == list(map(str, range(1000)))


def _numbered(numbers: range) -> bytes:
    return LOGS.request_type(
        resource_logs=[
            {
                "scope_logs": [
                    {
                        "log_records": [
                            {
                                "time_unix_nano": SECOND,
                                "attributes": [{"key": "x", "value": {"string_value": str(number)}}],
                            }
                            for number in numbers
                        ]
                    }
                ]
            }
        ]
    ).SerializeToString()


def test_little_is_not_worth_reading_much() -> None:
    view = store_of([request(Random(seed), 10) for seed in range(20)]).view()
    fields = Remembered(Memo())
    assert fields.known(deadline(), view, ("level",), 24) is None
    assert fields.known(deadline(), view, ("level",), 25) is not None
    assert fields.known(deadline(), view, ("level",), 0) is not None


def test_a_view_of_before_is_not_answered_from_what_came_after() -> None:
    store = store_of([request(Random(1), 9)], 10)
    before = store.view()
    store.ring.append(scan(LOGS, request(Random(2), 9), store.ring.next_offset))
    fields = Remembered(store.memo)
    assert fields.known(deadline(), store.view(), ("level",), 100) is not None
    known = fields.known(deadline(), before, ("level",), 100)
    block = before.ring.blocks[0]
    entry = Original(block, np.arange(block.count), Records(), None).entry("level")
    if known is not None:
        found = known["level"].entry(np.arange(block.count))
        assert [found.values[code] for code in found.codes] == [entry.values[code] for code in entry.codes]
