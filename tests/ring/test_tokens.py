"""The keyword index beside a naive search through a list of records, over long random sequences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from collector.otlp.scan import scan
from collector.otlp.signals import LOGS
from collector.otlp.terms import TRACE, Sought, Terms
from collector.otlp.texts import ATTRIBUTE, BODY
from collector.otlp.words import WORD_BYTES_MAX
from collector.query.logql.labels import value_text
from collector.ring import ring as module
from collector.ring import search
from collector.ring.ring import Ring, Snapshot
from collector.ring.tokens import Tokens
from tests.otlp import words_oracle as oracle

MIB = 1 << 20
LONG = "z" * WORD_BYTES_MAX
BODIES: list[dict[str, Any]] = [
    *({"string_value": text} for text in ("order 17 failed", "Order_17 OK", "ORDER-17", "no order", "", "Größe 17")),
    *({"string_value": text} for text in ("GRÖSSE", "ſtart Kelvin", "五 中文", f"{LONG}order x", f"{LONG} order")),
    {"kvlist_value": {"values": [{"key": "order", "value": {"int_value": 17}}]}},
    {"kvlist_value": {"values": [{"key": "text", "value": {"string_value": "a\norder"}}]}},
    {"array_value": {"values": [{"string_value": "no order"}, {"bool_value": True}]}},
    *({"double_value": 17.5}, {"bytes_value": b"\xa2\xb7\x9d"}),
]
VALUES: list[dict[str, Any]] = [
    *({"string_value": text} for text in ("order 17", "Order", "17", "no-order", LONG, LONG + "z")),
    *({"int_value": 17}, {"bytes_value": b"\xa2\xb7\x9d"}, {"array_value": {"values": [{"string_value": "order"}]}}),
    {"kvlist_value": {"values": [{"key": "k", "value": {"string_value": "order 17"}}]}},
]
NEEDLES = [
    "order",
    "ORDER",
    "order 17",
    "17",
    "rde",
    "7",
    " order",
    "order\n",
    "no order ",
    "größe",
    "straſt",
    "中",
    "z",
]
NEEDLES += [LONG, LONG + "order", f"{LONG} o", '"order":17', "true", "norder", "kelvin", "ord", "r_1", "absent", ""]
RECORDS = st.tuples(st.sampled_from(BODIES), st.lists(st.sampled_from(VALUES), max_size=2), st.integers(0, 2))
SOUGHT = st.one_of(
    st.builds(lambda text: Sought(BODY, text.encode(), whole=False), st.sampled_from(NEEDLES)),
    st.builds(lambda trace: Sought(TRACE, bytes([trace]) * 16, whole=True), st.integers(1, 3)),
    st.builds(
        lambda value: Sought(ATTRIBUTE, value["string_value"].encode(), whole=True),
        st.sampled_from([value for value in VALUES if "string_value" in value]),
    ),
)
TERMS = st.lists(st.lists(SOUGHT, min_size=1, max_size=2).map(tuple), min_size=1, max_size=3).map(tuple)


def request(records: list[tuple], service: str) -> Any:
    made = LOGS.request_type()
    for at, (body, attributes, *trace) in enumerate(records):
        if at % 3 == 0:
            envelope = made.resource_logs.add()
            envelope.resource.attributes.add(key="service.name").value.string_value = service
            scope = envelope.scope_logs.add()
        scope.log_records.add(
            body=body,
            attributes=[{"key": f"k{place}", "value": value} for place, value in enumerate(attributes)],
            trace_id=bytes(trace) * 16 if any(trace) else b"",
        )
    return made


def folded(text: str) -> str:
    return "".join(map(oracle.fold, text))


def has(record: Any, sought: Sought) -> bool:
    """Whether a record has the text, as a line filter or a label filter would tell, blind to case; or is of the trace."""
    if sought.kind == TRACE:
        return bool(record.trace_id == sought.text)
    text = folded(sought.text.decode())
    if sought.kind == BODY:
        return text in folded(value_text(record.body))
    return any(text == folded(found) for kind, found in oracle.of_record(record)[0] if kind == ATTRIBUTE)


def fulfils(record: Any, terms: Terms) -> bool:
    return all(any(has(record, sought) for sought in term) for term in terms)


class TokensMachine(RuleBasedStateMachine):
    """A ring of log records beside a list of them."""

    @initialize(capacity=st.sampled_from([1, 5, 63, 64, 65, 150, 400]), merged=st.sampled_from([0, 40]))
    def start(self, capacity: int, merged: int) -> None:
        merging = module.Limits(merged, MIB, merged, MIB, 4)
        self.ring = Ring(LOGS, capacity, MIB, 61, merging=merging)
        self.records: dict[int, Any] = {}
        self.snapshots: list[Snapshot] = [self.ring.snapshot()]

    @rule(
        records=st.lists(RECORDS, min_size=1, max_size=12),
        times=st.sampled_from([1, 1, 5, 20]),
        service=st.sampled_from(["", "order", "other"]),
    )
    def append(self, records: list[tuple], times: int, service: str) -> None:
        payload = request(records, service).SerializeToString()
        for _ in range(times):
            block = scan(LOGS, payload, self.ring.next_offset)
            made = [one for each in LOGS.request_type.FromString(payload).resource_logs for one in each.scope_logs]
            for offset, record in enumerate((one for scope in made for one in scope.log_records), block.base_offset):
                self.records[offset] = record
            self.ring.append(block)

    @rule(share=st.sampled_from([1, 2, 20]))
    def resize(self, share: int) -> None:
        least = module.bytes_min(LOGS, self.ring.capacity)
        self.ring.resize(MIB if share == 1 else max(least, self.ring.total_bytes // share))

    @rule(capacity=st.sampled_from([1, 30, 64, 200]))
    def change_capacity(self, capacity: int) -> None:
        self.ring.resize(max(self.ring.max_bytes, module.bytes_min(LOGS, capacity)), capacity)

    @rule(further=st.sampled_from([0, 1, 64, 1000, 1 << 38]))
    def restart(self, further: int) -> None:
        self.snapshots.clear()
        self.ring.restart(self.ring.next_offset + further)

    @rule()
    def keep(self) -> None:
        self.snapshots.append(self.ring.snapshot())

    @rule(terms=TERMS, newest_first=st.booleans(), data=st.data())
    def find(self, terms: Terms, newest_first: bool, data: st.DataObject) -> None:
        snapshot = data.draw(st.sampled_from([*self.snapshots, self.ring.snapshot()]))
        found = self.ring.search()
        assert found is not None
        stretches = found.stretches(terms, snapshot, newest_first=newest_first)
        if stretches is None:
            return
        at = snapshot.next_offset if newest_first else snapshot.first_offset
        for first, end, offsets in stretches:
            assert at == (end if newest_first else first)
            at = first if newest_first else end
            if offsets is None:
                assert end <= self.ring.first_offset
                continue
            named = offsets.tolist()
            assert named == sorted(set(named))
            assert all(first <= offset < end for offset in named)
            for offset in range(first, end):
                if fulfils(self.records[offset], terms):
                    assert offset in named, (self.records[offset], terms)
        assert at == (snapshot.first_offset if newest_first else snapshot.next_offset)

    @invariant()
    def counts(self) -> None:
        if hasattr(self, "ring"):
            self.ring.check()


TestTokens = TokensMachine.TestCase
TestTokens.settings = settings(stateful_step_count=15, deadline=None, max_examples=40)


@pytest.fixture(autouse=True)
def _small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "FIRST_CHUNKS", 1)
    monkeypatch.setattr(search, "RARE", 20)
    monkeypatch.setattr(search, "STEPS_AT_ONCE", 3)
    monkeypatch.setattr(search, "PAGES_AT_ONCE", 1)


def block_of(texts: list[str], offset: int) -> Any:
    return scan(LOGS, request([({"string_value": text}, []) for text in texts], "s").SerializeToString(), offset)


def names(ring: Ring, *terms: Sought) -> list[int] | None:
    found = ring.search()
    assert found is not None
    stretches = found.stretches(tuple((term,) for term in terms), ring.snapshot(), newest_first=False)
    if stretches is None:
        return None
    return [offset for one in stretches if one.offsets is not None for offset in one.offsets.tolist()]


def line(text: str) -> Sought:
    return Sought(BODY, text.encode(), whole=False)


def test_only_records_with_the_words_are_named() -> None:
    ring = Ring(LOGS, 1000, MIB)
    ring.append(block_of(["the Quick fox", "quickly done", "a fox_quick", "fox, quick!", "slow"] * 100, 0))
    assert names(ring, line(" quick ")) == [at for at in range(500) if at % 5 in (0, 3)]
    assert names(ring, line("quick")) == [at for at in range(500) if at % 5 != 4]
    assert names(ring, line("quick!")) == [at for at in range(500) if at % 5 in (0, 2, 3)]
    assert names(ring, line("fox, quick")) == [at for at in range(500) if at % 5 in (0, 1, 3) and at % 5 != 1]
    assert names(ring, line("nowhere")) == []
    assert names(ring, line("q")) is None
    assert names(ring, line("--")) is None


def test_a_word_goes_with_its_last_record_and_its_memory_with_it() -> None:
    ring = Ring(LOGS, 3000, 64 * MIB)
    ring.append(block_of(["always"] * 3000, 0))
    ring.check()
    before, keys = ring.index_bytes, ring.stats()["indexes"]["tokens"]["keys"]
    for start in range(0, 30_000, 3000):
        ring.append(
            block_of(
                [f"always word{number} only{number}once" for number in range(start, start + 3000)], ring.next_offset
            )
        )
    assert ring.stats()["indexes"]["tokens"]["keys"] == keys + 6000
    ring.check()
    for _ in range(2):
        ring.append(block_of(["always"] * 3000, ring.next_offset))
    assert ring.stats()["indexes"]["tokens"]["keys"] == keys
    assert ring.index_bytes < before * 1.2
    ring.check()


def test_a_ring_without_the_index() -> None:
    ring = Ring(LOGS, 100, MIB, keyword_index=False)
    ring.append(block_of(["a word"] * 10, 0))
    assert ring.search() is None
    assert "tokens" not in ring.stats()["indexes"]
    ring.check()


@given(
    st.lists(st.sampled_from(["ab", "abc", "bc", "xabcx", "c"]), min_size=1, max_size=150),
    st.sampled_from(["ab", "bc", "abc"]),
)
@settings(max_examples=20)
def test_words_are_found_by_what_is_inside_them(texts: list[str], part: str) -> None:
    tokens = Tokens(0)
    tokens.append(block_of(texts, 0), 0)
    for how, test in enumerate([str.__eq__, str.startswith, str.endswith, str.__contains__]):
        ordinals, records = tokens.match(BODY, part.encode(), how)  # type: ignore[misc]
        assert records == sum(test(text, part) for text in texts)
        assert len(ordinals) == len({text for text in texts if test(text, part)})


class Forgetful(Ring):
    """The canary: a ring that forgets to tell the keyword index what is evicted."""

    def _evict_records(self, count: int) -> None:
        kept, self._tokens = self._tokens, None
        super()._evict_records(count)
        self._tokens = kept


def test_check_catches_a_ring_that_forgets_the_index() -> None:
    ring = Forgetful(LOGS, 100, MIB)
    ring.append(block_of(["a"] * 100, 0))
    ring.check()
    ring.append(block_of(["b"] * 3, 100))
    with pytest.raises(AssertionError):
        ring.check()


def test_a_search_that_loses_a_stretch_would_be_caught() -> None:
    """The canary: an index that knows nothing of the evicted, and does not say so."""
    ring = Ring(LOGS, 10, MIB)
    ring.append(block_of(["word"] * 10, 0))
    snapshot = ring.snapshot()
    ring.append(block_of(["other"] * 4, 10))
    found = ring.search()
    assert found is not None
    stretches = list(found.stretches(((line("word"),),), snapshot, newest_first=True) or ())
    assert [(one.first, one.end, one.offsets is None) for one in stretches] == [(4, 10, False), (0, 4, True)]
    assert np.array_equal(stretches[0].offsets, np.arange(4, 10))  # type: ignore[arg-type]
