"""HTTP/2 connections under sequences of frames, good and bad: answers do not depend on how bytes are cut, accounts
close, every wait ends."""

from __future__ import annotations

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import http2

SEEDS = tuple(next(target for target in http2.TARGETS if target.name == "http2").seeds())


@settings(max_examples=200)
@given(st.lists(st.sampled_from(SEEDS), min_size=1, max_size=3), st.integers(0, 2**32), st.integers(0, 6))
def test_sequences_of_frames(parts: list[bytes], seed: int, changes: int) -> None:
    chance = Random(seed)
    data = parts[0] + b"".join(part[1:] for part in parts[1:])
    for _ in range(changes):
        data = http2.mutate(data, 1 << 16, chance.getrandbits(32))
    http2.check(data)
