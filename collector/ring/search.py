"""Which of a ring's records can have given words: the terms of a query (`otlp/terms.py`) over the ring's tokens.

The words of a term are bits, 64 records at a time, and combined by `|` and `&`, the rarest first, newest chunks first: a
query that needs twenty lines of a common word stops after the first few thousand records. Words are followed only as far
as that saves more than it costs: of a rare word with a common one, only the rare one's records are looked up.

A search runs in a worker thread and asks the tokens, which the event loop's thread changes meanwhile, for a part at a
time. Records that were evicted since the snapshot are not found: that stretch is told of as not searched.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import numpy as np

from collector.otlp.terms import TRACE, WHOLE, in_doubt, pieces
from collector.ring.postings import key_of_column
from collector.ring.tokens import FLAGS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from collector.otlp.terms import Piece, Sought, Term, Terms
    from collector.ring.postings import Postings
    from collector.ring.ring import Snapshot
    from collector.ring.tokens import Tokens

CHUNK: Final = 64
"""Records in a chunk."""
WORDS_MAX: Final = 16_384
"""Words that a piece may be in; one that is in more says nothing."""
LENGTH_MIN: Final = 2
"""Bytes of a piece that is looked for inside of words; a shorter one says nothing."""
PAGES_AT_ONCE: Final = 128
"""Pages of 256 tokens that are looked at while nothing else runs: some 50 us."""
STEPS_AT_ONCE: Final = 8192
"""Postings that are followed while nothing else runs: half a millisecond."""
FIRST_CHUNKS: Final = 64
"""Chunks that are searched first; then four times as many, and so on."""
RARE: Final = 2000
"""Records that are so few that all chunks are searched at once."""
WORTH: Final = 300
"""Postings that may be followed to spare looking at one record."""


Needed = Callable[[int, int], bool]
"""Tells whether the records from one offset to before another are of interest."""


class Stretch(NamedTuple):
    """A part of a ring: the offsets from `first` to before `end`."""

    first: int
    end: int
    offsets: NDArray[np.int64] | None
    """The records in it that can be meant, ascending. None: nothing is known of them."""


class _Bits(Protocol):
    """Records, as bits of chunks."""

    records: int
    """How many there are, at most."""

    def bits(self, chunk: int, chunks: int) -> NDArray[np.uint64]:
        """Return the bits of the records in some chunks, which lie before those asked for last."""
        ...


class _Words:
    """Records with one of the words that a piece can stand in, which have been followed so far."""

    def __init__(self, tokens: Tokens, cursors: NDArray[np.uint64], records: int) -> None:
        self._tokens = tokens
        self._cursors = cursors
        self.records = records

    def bits(self, chunk: int, chunks: int) -> NDArray[np.uint64]:
        """See `_Bits`."""
        out = np.zeros(chunks, np.uint64)
        at = 0
        while at < len(self._cursors):
            at, _ = self._tokens.mark(self._cursors, at, chunk, out, STEPS_AT_ONCE)
        return out


class _Trace:
    """The records of a trace."""

    def __init__(self, offsets: NDArray[np.int64]) -> None:
        self._offsets = offsets
        self.records = len(offsets)

    def bits(self, chunk: int, chunks: int) -> NDArray[np.uint64]:
        """See `_Bits`."""
        out = np.zeros(chunks, np.uint64)
        offsets = self._offsets[(self._offsets >= chunk * CHUNK) & (self._offsets < (chunk + chunks) * CHUNK)]
        bits = np.left_shift(np.uint64(1), (offsets % CHUNK).astype(np.uint64))
        np.bitwise_or.at(out, offsets // CHUNK - chunk, bits)
        return out


_All = list[_Bits]
"""Of these, all must be there."""


class Search:
    """The keyword index of a ring, with its index of traces, for queries in other threads."""

    def __init__(self, tokens: Tokens, traces: Postings) -> None:
        """Records are to be evicted from the tokens before they are from the traces."""
        self._tokens = tokens
        self._traces = traces

    def stretches(
        self, terms: Terms, snapshot: Snapshot, needed: Needed = lambda first, end: True, *, newest_first: bool
    ) -> Iterator[Stretch] | None:
        """Return the stretches of a snapshot, newest or oldest first, with the records that can fulfil the terms.

        Those that are not `needed` when it is their turn are left out. None: the terms say nothing that the index knows.
        """
        known = [one for one in map(self._term, terms) if one is not None]
        if not known:
            return None
        known.sort(key=_estimate)
        return self._walk(known, snapshot, needed, newest_first)

    def counts(self, sought: Sought) -> list[tuple[Piece, int | None]]:
        """Return each word of a text, and how many records can have it, at most; None where the index says nothing."""
        found = [(piece, self._words(piece)) for piece in pieces(sought)]
        return [(piece, known.records if known is not None else None) for piece, known in found]

    def _walk(
        self, terms: list[list[_All]], snapshot: Snapshot, needed: Needed, newest_first: bool
    ) -> Iterator[Stretch]:
        first, end = snapshot.first_offset // CHUNK, -(-snapshot.next_offset // CHUNK)
        whole = not newest_first or _estimate(terms[0]) <= RARE
        size = end - first if whole else FIRST_CHUNKS
        while end > first:
            begin = max(first, end - size)
            low, high = max(begin * CHUNK, snapshot.first_offset), min(end * CHUNK, snapshot.next_offset)
            if not needed(low, high):
                end = begin
                size *= 4
                continue
            offsets = _offsets(self._bits(terms, begin, end - begin), begin)
            found_from = min(max(self._tokens.first_offset, low), high)
            cut = np.searchsorted(offsets, (found_from, high))
            found = Stretch(found_from, high, offsets[cut[0] : cut[1]])
            if found_from > low:
                lost = Stretch(snapshot.first_offset, found_from, None)
                yield from (found, lost) if newest_first else (lost, found)
                return
            yield found
            end = begin
            size *= 4

    def _bits(self, terms: list[list[_All]], chunk: int, chunks: int) -> NDArray[np.uint64]:
        """Return the bits of records that can fulfil all terms."""
        found: NDArray[np.uint64] | None = None
        for term in terms:
            if found is not None and chunks > WORTH * int(np.bitwise_count(found).sum()):
                break
            either = np.zeros(chunks, np.uint64)
            for alternative in term:
                either |= self._all(alternative, chunk, chunks)
            found = either if found is None else found & either
        assert found is not None
        return found

    def _all(self, words: _All, chunk: int, chunks: int) -> NDArray[np.uint64]:
        found = words[0].bits(chunk, chunks)
        for one in words[1:]:
            if chunks > WORTH * int(np.bitwise_count(found).sum()):
                break
            found &= one.bits(chunk, chunks)
        return found

    def _term(self, term: Term) -> list[_All] | None:
        """Return the alternatives of a term, and of each the words that must be there, the rarest first."""
        alternatives = []
        for sought in term:
            known = [words for words in map(self._words, pieces(sought)) if words is not None]
            if not known:
                return None
            alternatives.append(sorted(known, key=lambda words: words.records))
        return alternatives

    def _words(self, piece: Piece) -> _Bits | None:
        """Return the records with words that a piece can stand in; None when it says nothing."""
        if piece.kind == TRACE:
            return _Trace(self._traces.find(key_of_column(memoryview(piece.text), 16, 0), 0))
        found: list[NDArray[np.uint64]] = []
        records = 0
        if piece.how == WHOLE:
            wholes = [self._tokens.match(piece.kind, piece.text, WHOLE)]
        elif len(piece.text) < LENGTH_MIN:
            return None
        else:
            wholes = [
                self._tokens.match(piece.kind, piece.text, piece.how, page, page + PAGES_AT_ONCE, WORDS_MAX)
                for page in range(0, self._tokens.pages, PAGES_AT_ONCE)
            ]
        flags = in_doubt(piece)
        wholes += [self._tokens.match(FLAGS + bit, b"", WHOLE) for bit in range(flags.bit_length()) if flags >> bit & 1]
        for one in wholes:
            if one is None:
                return None
            found.append(one[0])
            records += one[1]
        cursors = np.concatenate(found)
        return _Words(self._tokens, cursors, records) if len(cursors) <= WORDS_MAX else None


def _estimate(term: Sequence[_All]) -> int:
    """Return how many records can fulfil a term, at most."""
    return sum(alternative[0].records for alternative in term)


def _offsets(bits: NDArray[np.uint64], chunk: int) -> NDArray[np.int64]:
    """Return the offsets that bits stand for, ascending."""
    places = np.flatnonzero(bits)
    rows = np.unpackbits(bits[places].astype("<u8").view(np.uint8), bitorder="little").reshape(-1, CHUNK)
    which, bit = np.nonzero(rows)
    return (places[which] + chunk) * CHUNK + bit
