"""Parts of a range: all of it, each second once, in order, and not many."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from collector.exporters.base import END_OF_TIME, Wanted
from collector.exporters.clickhouse.windows import FEW, MANY, Held, Windows
from collector.otlp.signals import TRACES

S = 10**9
times = st.integers(0, 100 * S) | st.sampled_from([0, S - 1, S, 2**63 - 1, END_OF_TIME])


@given(st.data(), st.booleans(), times, times, times, times, st.integers(0, 10**7))
def test_they_are_the_whole_in_order(
    data: st.DataObject, newest_first: bool, a: int, b: int, c: int, d: int, rows: int
) -> None:
    wanted = Wanted(TRACES, start_ns=min(a, b), end_ns=max(a, b), newest_first=newest_first)
    windows = Windows(wanted, Held(rows, min(c, d, 2**63 - 1), min(max(c, d), 2**63 - 1)))
    found = []
    for one in windows:
        found.append(one)
        windows.came(data.draw(st.sampled_from([0, FEW, 2 * MANY])) if len(found) < 20 else 0)
    assert len(found) < 60
    inside = found[::-1] if newest_first else found
    assert inside[0][0] == wanted.start_ns
    assert inside[-1][1] == wanted.end_ns
    for (_, before), (after, _) in itertools.pairwise(inside):
        assert after == before + 1
        assert after % S == 0


def test_they_have_a_few_blocks_each() -> None:
    """Of what comes evenly."""
    day = 86_400 * S
    windows = Windows(Wanted(TRACES), Held(86_400_000, 0, day - 1))
    first = next(windows)
    assert first == ((86_400 - 8) * S, END_OF_TIME)
    windows.came(2 * FEW)
    assert next(windows) == ((86_400 - 16) * S, (86_400 - 8) * S - 1)
    windows.came(MANY + 1)
    assert next(windows) == ((86_400 - 20) * S, (86_400 - 16) * S - 1)


def test_what_is_rare_takes_few() -> None:
    windows = Windows(Wanted(TRACES), Held(10**12, 0, 365 * 86_400 * S))
    count = 0
    for _ in windows:
        windows.came(3)
        count += 1
    assert count < 15
