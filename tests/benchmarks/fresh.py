"""Requests without end that cost little to make: a template's bytes with other trace ids, and at another time.

Building a request costs 10 us a record, exchanging its ids and times some 0.1 us. What is sent is then as distinct as in
life: a trace id is met in one request and never again, and time goes on. All else comes again with every round of the
templates, which compression does not see, for it looks at 256 KiB at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collector.otlp.block import Block
from collector.otlp.scan import scan
from collector.otlp.signals import Signal
from tests.benchmarks.workload import build_payloads

TEMPLATES = 32
"""Distinct requests; what is sent differs also in its trace ids and times."""
STEP_NS = 1_000_000_000
"""From one request's time to the next one's."""
_TIMES = ("time", "end_time")


class Template:
    """One request, and where in it the trace ids and times stand."""

    def __init__(self, signal: Signal, payload: bytes) -> None:
        self._payload = np.frombuffer(payload, np.uint8)
        self.size = len(payload)
        block = scan(signal, payload, 0)
        self.records = block.count
        self.min_time, self.max_time = block.min_time, block.max_time
        # Places in rows of the bytes that one value has, and of each id, which of the distinct ones it is.
        self._times = _times(block)
        self._ids, self._numbers = _trace_ids(block)
        self.traces = int(self._numbers.max()) + 1 if self._numbers.size else 0

    def fresh(self, chance: np.random.Generator, later_ns: int = 0) -> tuple[bytes, bytes]:
        """Return the request with other trace ids, `later_ns` later, and the ids, 16 bytes each."""
        made = self._payload.copy()
        ids = chance.integers(0, 256, (self.traces, 16), np.uint8)
        made[self._ids] = ids[self._numbers]
        if later_ns:
            made[self._times] = (made[self._times].view("<u8") + np.uint64(later_ns)).view(np.uint8)
        return made.tobytes(), ids.tobytes()


def _times(block: Block) -> NDArray[np.intp]:
    """Where the records' times stand: eight bytes, somewhere in the record."""
    starts = block.column("start").tolist()
    lengths = block.column("length").tolist()
    places = []
    for name in _TIMES:
        if name in block.records.layout.columns:
            for start, length, time in zip(starts, lengths, block.column(name).tolist(), strict=True):
                place = bytes(block.payload).find(time.to_bytes(8, "little"), start, start + length)
                assert place >= 0, "a time of the columns is in the payload"
                places.append(place)
    return np.array(places, np.intp)[:, None] + np.arange(8)


def _trace_ids(block: Block) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Where trace ids stand, and which of the distinct ones."""
    payload = bytes(block.payload)
    places, numbers = [], []
    ids = block.column("trace_id") if "trace_id" in block.records.layout.columns else ()
    for number, trace in enumerate(dict.fromkeys(one.tobytes() for one in ids)):
        place = payload.find(trace)
        while place >= 0:
            places.append(place)
            numbers.append(number)
            place = payload.find(trace, place + 1)
    return np.array(places, np.intp)[:, None] + np.arange(16), np.array(numbers, np.intp)


class Source:
    """Requests of a signal, all of one size, without end."""

    def __init__(self, signal: Signal, records: int, seed: int = 0, templates: int = TEMPLATES) -> None:
        self._templates = self.make(signal, records, templates)
        self._chance = np.random.default_rng([records, seed])

    @staticmethod
    def make(signal: Signal, records: int, templates: int) -> Sequence[Template]:
        """Return the templates, one second apart."""
        return [Template(signal, payload) for payload in build_payloads(signal, records, templates)]

    @property
    def sizes(self) -> list[int]:
        """Return the bytes of the payloads, in the order in which they come again."""
        return [template.size for template in self._templates]

    def requests(self) -> Iterator[Request]:
        """Yield them, `STEP_NS` apart."""
        number = 0
        while True:
            template = self._templates[number % len(self._templates)]
            later = number // len(self._templates) * len(self._templates) * STEP_NS
            payload, ids = template.fresh(self._chance, later)
            yield Request(payload, template.records, template.min_time + later, template.max_time + later, ids)
            number += 1


class Request:
    """What `Source` makes: a payload, what a log wants to know of it, and its trace ids one after the other."""

    __slots__ = ("max_time", "min_time", "payload", "records", "trace_ids")

    def __init__(self, payload: bytes, records: int, min_time: int, max_time: int, trace_ids: Any) -> None:
        self.payload = payload
        self.records = records
        self.min_time = min_time
        self.max_time = max_time
        self.trace_ids = trace_ids
