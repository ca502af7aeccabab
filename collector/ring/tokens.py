# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The keyword index of a ring of log records: for each word of a kind of text (`otlp/texts.py`), which live records have it.

Records are taken 64 at a time: a chunk is 64 consecutive offsets that begin at a multiple of 64.

    token      one word of one kind: its text, how many live records have it, and its newest posting
    posting    a token in a chunk: a bit for each record that has it, and how far back the token's posting before lies
    ordinal    a posting's place in the order they were made in, which is the order of their chunks

So a word that many records have costs a posting for 64 of them, a word that occurs twice in a record costs nothing
more, and records that have several words are found 64 at a time by `&`.

* Postings are `queue.py`'s: new ones at its head, those of the oldest chunk leave at its tail.
* Evicting records is adding to `first_offset`. When all of a chunk has gone, its postings are walked, each token loses as
  many records as its bits say, and a token that has none left goes, with its text. For a part of a chunk that is done
  when somebody asks what tokens there are. Who walks postings leaves out what is before `first_offset`.
* Tokens, their texts and the ways to find them are `dictionary.py`'s; what is asked of all of this is `lookup.py`.

Records repeat each other's texts: a function's name, a file's. While a block is taken, the tokens of texts are remembered,
so that a text that comes again is compared and not taken apart; which records of the chunk at hand have it is noted with
the text, and said of its tokens when the chunk is through.

What a record holds beside its words (`flags` of otlp/texts.py) are tokens without text, of kinds from FLAGS on.

Memory: 20 B a posting; some 60 B and its text a token. Cost: 0.3 µs for a record of 300 B with 32 words, of which many
repeat, a fifth of a microsecond for a word that is new, and as much when it goes.

Owned by the event loop's thread. `match` and `mark` may be called from any thread: they hold the GIL, so they are asked
for a part at a time. What has been evicted meanwhile they do not find, and `mark` tells since which offset it finds all.
"""

import cython
from cython.cimports.collector.otlp.texts import Text, Texts, record_texts, release_texts, resource_texts, scope_texts
from cython.cimports.collector.otlp.wire import MIX_1, SEED, mix
from cython.cimports.collector.otlp.words import Word, Words, release_words, text_words
from cython.cimports.collector.ring.dictionary import (
    NO_TOKEN,
    PAGE_BYTES,
    Dictionary,
    Page,
    Token,
    close_dictionary,
    drop_token,
    find_token,
    make_token,
    move_texts,
    open_dictionary,
    population,
    token_of,
)
from cython.cimports.collector.ring.lookup import items, mark, match
from cython.cimports.collector.ring.queue import (
    PAGE_POSTINGS,
    Posting,
    Queue,
    bits_of,
    close_queue,
    drop_oldest,
    make_room,
    open_queue,
    posting_at,
    set_bits,
)
from cython.cimports.cpython.bytes import PyBytes_AS_STRING
from cython.cimports.libc.stdint import int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from cython.cimports.libc.stdlib import calloc, free
from cython.cimports.libc.string import memcmp, memcpy

from collector.otlp.block import GROUPS, RECORDS
from collector.otlp.signals import LOGS

FLAGS = 2
"""The kind of the token for the first flag; the others follow."""

_Known = cython.struct(  # a text of the block at hand, and the tokens of its words
    at=cython.pointer(cython.const[uint8_t]),
    length=uint32_t,
    kind=uint32_t,
    flags=uint32_t,
    turn=uint32_t,
    first=uint32_t,
    count=uint32_t,
    bits=uint64_t,  # records of the chunk at hand that have it, of which its tokens have not been told
)
_KNOWN = cython.declare(cython.int, 256)  # texts that are remembered
_NUMBERS = cython.declare(uint32_t, 4096)  # and the tokens of all of them together
_KNOWN_BYTES = cython.declare(uint32_t, 1024)  # the longest such text

_START = cython.declare(cython.Py_ssize_t, RECORDS[LOGS].columns["start"][1])
_LENGTH = cython.declare(cython.Py_ssize_t, RECORDS[LOGS].columns["length"][1])
_GROUP = cython.declare(cython.Py_ssize_t, RECORDS[LOGS].columns["group"][1])
_RESOURCE_START = cython.declare(cython.Py_ssize_t, GROUPS[LOGS].columns["resource_start"][1])
_RESOURCE_LENGTH = cython.declare(cython.Py_ssize_t, GROUPS[LOGS].columns["resource_length"][1])
_SCOPE_START = cython.declare(cython.Py_ssize_t, GROUPS[LOGS].columns["scope_start"][1])
_SCOPE_LENGTH = cython.declare(cython.Py_ssize_t, GROUPS[LOGS].columns["scope_length"][1])


def empty_bytes() -> int:
    """Return the bytes of an index with the first few tokens in it."""
    return Tokens(0).nbytes + cython.sizeof(Page) + PAGE_POSTINGS * cython.sizeof(Posting) + 2 * PAGE_BYTES


@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def _place_of(text: cython.pointer(Text)) -> uint32_t:
    """Return where a text is remembered: by its length, its first and its last bytes."""
    first: uint64_t = 0
    last: uint64_t = 0
    if text.length >= 8:
        memcpy(cython.address(first), text.at, 8)
        memcpy(cython.address(last), text.at + text.length - 8, 8)
    else:
        memcpy(cython.address(first), text.at, text.length)
    return mix(first ^ SEED, last ^ MIX_1 ^ text.length) & (_KNOWN - 1)


@cython.cclass
class Tokens:
    """The words of a ring's live records. See the module's docstring."""

    first_offset = cython.declare(int64_t, visibility="readonly")
    _pairs: cython.Py_ssize_t  # of a token and a live record that has it
    _dictionary: Dictionary
    _queue: Queue
    _found: Texts
    _words: Words
    _held: Words  # of the group at hand
    _known: cython.pointer(_Known)
    _numbers: cython.pointer(uint32_t)
    _numbered: uint32_t
    _turn: uint32_t  # what was remembered in another one has been forgotten
    _noted: uint32_t[256]  # places of texts with bits
    _notes: cython.int

    def __cinit__(self, first_offset: int):
        self.first_offset = first_offset
        self._known = cython.cast(cython.pointer(_Known), calloc(_KNOWN, cython.sizeof(_Known)))
        self._numbers = cython.cast(cython.pointer(uint32_t), calloc(_NUMBERS, 4))
        if self._known == cython.NULL or self._numbers == cython.NULL:
            raise MemoryError
        open_queue(cython.address(self._queue))
        open_dictionary(cython.address(self._dictionary))

    def __dealloc__(self):
        free(self._known)
        free(self._numbers)
        close_queue(cython.address(self._queue))
        close_dictionary(cython.address(self._dictionary))
        release_texts(cython.address(self._found))
        release_words(cython.address(self._words))
        release_words(cython.address(self._held))

    @property
    def nbytes(self) -> int:
        """The bytes of all pages and tables."""
        return _KNOWN * cython.sizeof(_Known) + 4 * _NUMBERS + self._queue.nbytes + self._dictionary.nbytes

    @property
    def keys(self) -> int:
        """The number of tokens."""
        self._settle()
        return self._dictionary.keys

    @property
    def postings(self) -> int:
        """The number of pairs of a token and a live record that has it."""
        self._settle()
        return self._pairs

    @property
    def pages(self) -> int:
        """How many pages of tokens `match` may be asked for."""
        return self._dictionary.pages_end

    # --- taking records ------------------------------------------------------------------------------------

    def append(self, block, first: cython.Py_ssize_t) -> None:
        """Take the records of a block from number `first` on; the one before it has the offset before."""
        payload: cython.const[uint8_t][::1] = block.payload
        buffer: bytes = block.records.buffer
        groups: bytes = block.groups.buffer
        n: cython.Py_ssize_t = block.count
        group_count: cython.Py_ssize_t = block.groups.count
        offset: int64_t = block.base_offset
        i: cython.Py_ssize_t = first
        end: cython.Py_ssize_t
        k: cython.Py_ssize_t
        held: int64_t = -1
        bits: uint64_t
        chunk: uint32_t
        if i < 0 or i >= n:
            return
        base: cython.pointer(cython.const[uint8_t]) = cython.address(payload[0])
        column: cython.p_char = PyBytes_AS_STRING(buffer)
        start: cython.pointer(uint32_t) = cython.cast(cython.pointer(uint32_t), column + _START * n)
        length: cython.pointer(uint32_t) = cython.cast(cython.pointer(uint32_t), column + _LENGTH * n)
        group: cython.pointer(uint32_t) = cython.cast(cython.pointer(uint32_t), column + _GROUP * n)
        column = PyBytes_AS_STRING(groups)
        resource_start: cython.pointer(uint32_t) = cython.cast(
            cython.pointer(uint32_t), column + _RESOURCE_START * group_count
        )
        resource_length: cython.pointer(uint32_t) = cython.cast(
            cython.pointer(uint32_t), column + _RESOURCE_LENGTH * group_count
        )
        scope_start: cython.pointer(uint32_t) = cython.cast(
            cython.pointer(uint32_t), column + _SCOPE_START * group_count
        )
        scope_length: cython.pointer(uint32_t) = cython.cast(
            cython.pointer(uint32_t), column + _SCOPE_LENGTH * group_count
        )
        self._forget()
        while i < n:
            end = i + 1
            while end < n and group[end] == group[i] and (offset + end) & 63:
                end += 1
            if held != group[i]:
                held = group[i]
                self._found.count = 0
                self._found.flags = 0
                if not resource_texts(
                    cython.address(self._found), base + resource_start[held], resource_length[held]
                ) or not scope_texts(cython.address(self._found), base + scope_start[held], scope_length[held]):
                    raise MemoryError
                self._held.count = 0
                self._held.used = 0
                self._held.flags = self._found.flags
                for k in range(self._found.count):
                    if not text_words(
                        cython.address(self._held),
                        self._found.text[k].at,
                        self._found.text[k].length,
                        self._found.text[k].kind,
                    ):
                        raise MemoryError
            chunk = cython.cast(uint32_t, (offset + i) >> 6)
            bits = ~cython.cast(uint64_t, 0) >> (64 - (end - i)) << ((offset + i) & 63)
            self._add_words(cython.address(self._held), chunk, bits)
            for k in range(i, end):
                self._found.count = 0
                self._found.flags = 0
                if not record_texts(cython.address(self._found), base + start[k], length[k]):
                    raise MemoryError
                self._add_texts(chunk, cython.cast(uint64_t, 1) << ((offset + k) & 63))
            i = end
            if i == n or (offset + i) & 63 == 0:
                self._tell(chunk)
        move_texts(cython.address(self._dictionary))

    @cython.cfunc
    @cython.exceptval(check=False)
    def _forget(self) -> cython.void:
        """Remember no texts. No text has bits."""
        self._numbered = 0
        self._turn += 1

    @cython.cfunc
    @cython.exceptval(-1)
    def _tell(self, chunk: uint32_t) -> cython.int:
        """Say of the tokens of texts what has been noted with the texts."""
        i: cython.int
        k: uint32_t
        known: cython.pointer(_Known)
        for i in range(self._notes):
            known = self._known + self._noted[i]
            for k in range(known.count):
                self._mark(self._numbers[known.first + k], chunk, known.bits)
            known.bits = 0
        self._notes = 0
        return 0

    @cython.cfunc
    @cython.exceptval(-1)
    def _add_texts(self, chunk: uint32_t, bits: uint64_t) -> cython.int:
        """Say of a record of a chunk that it has the words of the texts found, and their flags."""
        i: cython.Py_ssize_t
        k: cython.Py_ssize_t
        text: cython.pointer(Text)
        known: cython.pointer(_Known)
        words: cython.pointer(Words) = cython.address(self._words)
        word: cython.pointer(Word)
        flags: cython.int = self._found.flags
        number: uint32_t
        is_known: cython.bint
        for i in range(self._found.count):
            text = self._found.text + i
            known = self._known + _place_of(text)
            if (
                known.turn == self._turn
                and known.length == text.length
                and known.kind == cython.cast(uint32_t, text.kind)
                and memcmp(known.at, text.at, text.length) == 0
            ):
                if known.bits == 0:
                    self._noted[self._notes] = cython.cast(uint32_t, known - self._known)
                    self._notes += 1
                known.bits |= bits
                flags |= known.flags
                continue
            if known.bits:
                self._tell(chunk)
            words.count = 0
            words.used = 0
            words.flags = 0
            if not text_words(words, text.at, text.length, text.kind):
                raise MemoryError
            flags |= words.flags
            if self._numbered + words.count > _NUMBERS:
                self._tell(chunk)
                self._forget()
            is_known = text.length <= _KNOWN_BYTES and words.count <= _NUMBERS
            if is_known:
                known.at = text.at
                known.length = text.length
                known.kind = text.kind
                known.flags = words.flags
                known.turn = self._turn
                known.first = self._numbered
                known.count = words.count
            for k in range(words.count):
                word = words.word + k
                number = self._number(word.hash, words.folded + word.begin, word.length, word.kind)
                self._mark(number, chunk, bits)
                if is_known:
                    self._numbers[self._numbered] = number
                    self._numbered += 1
        return self._add_flags(flags, chunk, bits)

    @cython.cfunc
    @cython.exceptval(-1)
    def _add_words(self, words: cython.pointer(Words), chunk: uint32_t, bits: uint64_t) -> cython.int:
        """Say of records of a chunk that they have these words and flags."""
        i: cython.Py_ssize_t
        word: cython.pointer(Word)
        for i in range(words.count):
            word = words.word + i
            self._mark(self._number(word.hash, words.folded + word.begin, word.length, word.kind), chunk, bits)
        return self._add_flags(words.flags, chunk, bits)

    @cython.cfunc
    @cython.exceptval(-1)
    def _add_flags(self, flags: cython.int, chunk: uint32_t, bits: uint64_t) -> cython.int:
        kind: uint16_t = 2
        while flags:
            if flags & 1:
                self._mark(self._number(0, cython.NULL, 0, kind), chunk, bits)
            flags >>= 1
            kind += 1
        return 0

    @cython.cfunc
    @cython.exceptval(0xFFFFFFFF)
    def _number(
        self, hash: uint64_t, text: cython.pointer(cython.const[uint8_t]), length: uint16_t, kind: uint16_t
    ) -> uint32_t:
        """Return the number of a token, which is made if need be."""
        number: uint32_t
        hash += kind * SEED
        number = find_token(cython.address(self._dictionary), hash, text, length, kind)
        return number if number != NO_TOKEN else make_token(cython.address(self._dictionary), hash, text, length, kind)

    @cython.cfunc
    @cython.exceptval(-1)
    def _mark(self, number: uint32_t, chunk: uint32_t, bits: uint64_t) -> cython.int:
        """Say of records of a chunk that they have a token."""
        token: cython.pointer(Token) = token_of(cython.address(self._dictionary), number)
        queue: cython.pointer(Queue) = cython.address(self._queue)
        posting: cython.pointer(Posting)
        new: cython.int
        if token.count and token.chunk == chunk:
            posting = posting_at(queue, token.newest)
            new = population(bits & ~bits_of(posting))
            if not new:
                return 0
            posting.low |= cython.cast(uint32_t, bits)
            posting.high |= cython.cast(uint32_t, bits >> 32)
        else:
            new = population(bits)
            make_room(queue)
            posting = posting_at(queue, queue.next)
            set_bits(posting, bits)
            posting.token = number
            posting.chunk = chunk
            posting.back = cython.cast(uint32_t, queue.next - token.newest) if token.count else 0
            token.newest = queue.next
            token.chunk = chunk
            queue.next += 1
        token.count += new
        self._pairs += new
        return 0

    # --- evicting ------------------------------------------------------------------------------------------

    def evict(self, n: int64_t) -> None:
        """Remove the `n` oldest live records."""
        queue: cython.pointer(Queue) = cython.address(self._queue)
        chunk: uint32_t
        self.first_offset += n
        chunk = cython.cast(uint32_t, self.first_offset >> 6)
        while queue.tail < queue.next and cython.cast(int32_t, posting_at(queue, queue.tail).chunk - chunk) < 0:
            self._lose(posting_at(queue, queue.tail), 0)
            drop_oldest(queue)
        move_texts(cython.address(self._dictionary))

    def restart(self, offset: int64_t) -> None:
        """Remove all records; the next one has this offset."""
        queue: cython.pointer(Queue) = cython.address(self._queue)
        while queue.tail < queue.next:
            self._lose(posting_at(queue, queue.tail), 0)
            drop_oldest(queue)
        move_texts(cython.address(self._dictionary))
        self.first_offset = offset

    @cython.cfunc
    @cython.exceptval(check=False)
    def _lose(self, posting: cython.pointer(Posting), kept: uint64_t) -> cython.void:
        """Take all bits but some from a posting, and what they stand for from its token."""
        bits: uint64_t = bits_of(posting)
        gone: cython.int = population(bits & ~kept)
        token: cython.pointer(Token)
        if posting.token == NO_TOKEN or not gone:
            return
        token = token_of(cython.address(self._dictionary), posting.token)
        token.count -= gone
        self._pairs -= gone
        if token.count == 0:
            drop_token(cython.address(self._dictionary), posting.token)
        bits &= kept
        set_bits(posting, bits)
        if bits == 0:
            posting.token = NO_TOKEN

    @cython.cfunc
    @cython.exceptval(check=False)
    def _settle(self) -> cython.void:
        """Take evicted records from the postings of the oldest chunk, of which others live."""
        chunk: uint32_t = cython.cast(uint32_t, self.first_offset >> 6)
        kept: uint64_t = ~cython.cast(uint64_t, 0) << (self.first_offset & 63)
        queue: cython.pointer(Queue) = cython.address(self._queue)
        ordinal: uint64_t = queue.tail
        if self.first_offset & 63 == 0:
            return
        while ordinal < queue.next and posting_at(queue, ordinal).chunk == chunk:
            self._lose(posting_at(queue, ordinal), kept)
            ordinal += 1

    # --- finding: lookup.py --------------------------------------------------------------------------------

    def match(
        self, kind: int, text: bytes, how: int, first: int = 0, end: int = 1 << 30, limit: int = 1 << 30
    ) -> object:
        """Return (where the postings of the words begin that a text stands in, how many records have them); see lookup.py."""
        return match(cython.address(self._dictionary), kind, text, how, first, end, limit)

    def mark(
        self, cursors: uint64_t[::1], begin: cython.Py_ssize_t, chunk: int64_t, out: uint64_t[::1], steps: int
    ) -> tuple:
        """Follow postings back; return the number of the cursor to go on with (see lookup.py), and the first offset whose
        records it finds."""
        return mark(cython.address(self._queue), cursors, begin, chunk, out, steps), self.first_offset

    def items(self) -> list:
        """Return (kind, text, count, offsets of its live records, newest first) of every token. For tests."""
        self._settle()
        return items(cython.address(self._dictionary), cython.address(self._queue), self.first_offset)
