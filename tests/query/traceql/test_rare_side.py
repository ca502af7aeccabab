"""Which side of a query over whole traces is begun at, by what key indexes say of the log."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from collector.query.traceql.candidates import rare_side
from collector.query.traceql.parser import parse
from collector.query.traceql.plan import plan

RARE, OTHER = '{ .customer = "4711" } >> { status = error }', '{ .customer = "4711" } >> { .shop = "one" }'


@pytest.mark.parametrize(
    ("query", "shares", "expected"),
    [
        (RARE, {b"4711": 0.01}, True),
        (
            RARE,
            {b"4711": 0.3},
            True,
        ),  # a few traces in each of many frames: reading all for errors takes three times as long
        (RARE, {b"4711": 0.9}, False),
        (OTHER, {b"4711": 0.3, b"one": 0.2}, False),  # what every span of the answer has is rarer
        (OTHER, {b"4711": 0.2, b"one": 0.3}, True),
    ],
)
def test_what_is_rarer_is_begun_at(query: str, shares: dict[bytes, float], expected: bool) -> None:
    def share(terms: Any, *_: int) -> float:
        [(sought,)] = terms
        return shares[sought.text]

    ring = SimpleNamespace(blocks=(), next_offset=0)
    view: Any = SimpleNamespace(log=SimpleNamespace(share=share), ring=ring)
    found = rare_side(view, plan(parse(query)), 0, 1)
    assert (found is not None) == expected
