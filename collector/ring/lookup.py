# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Looking records up in a keyword index (tokens.py): which of its words a text stands in, and which records have them.

Two steps, for they are as long as the words that are found are many, and can be taken a part at a time: `match` goes
through the dictionary and gives the newest posting of each word, `mark` goes back from there and gathers bits. Both
hold the GIL, so that nothing is taken or evicted meanwhile.

Cost: a whole word is one lookup; of other parts, each token's signature is compared, 256 to a page.
"""

import cython
import numpy as np
from cython.cimports.collector.otlp.wire import SEED, key_of
from cython.cimports.collector.ring.dictionary import (
    NO_TOKEN,
    PAGE_TOKENS,
    Dictionary,
    Page,
    Token,
    find_token,
    signature_of,
    text_of,
    token_of,
)
from cython.cimports.collector.ring.queue import Posting, Queue, bits_of, posting_at
from cython.cimports.cpython.bytes import PyBytes_AS_STRING
from cython.cimports.libc.stdint import int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from cython.cimports.libc.string import memcmp


@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def _stands(
    text: cython.pointer(cython.const[uint8_t]),
    length: cython.Py_ssize_t,
    part: cython.pointer(cython.const[uint8_t]),
    part_length: cython.Py_ssize_t,
    how: cython.int,
) -> cython.bint:
    """Tell whether a part stands in a text in the way that is meant."""
    i: cython.Py_ssize_t
    if length < part_length:
        return False
    if how == 1:  # PREFIX
        return memcmp(text, part, part_length) == 0
    if how == 2:  # SUFFIX
        return memcmp(text + length - part_length, part, part_length) == 0
    for i in range(length - part_length + 1):
        if memcmp(text + i, part, part_length) == 0:
            return True
    return False


@cython.cfunc
def match(
    dictionary: cython.pointer(Dictionary),
    kind: uint16_t,
    text: bytes,
    how: cython.int,
    first: uint32_t,
    end: uint32_t,
    limit: cython.Py_ssize_t,
) -> object:
    """Return where the postings of the words of a kind begin in which a folded text stands as `how` says (terms.py).

    That is (ordinals u64, how many records those words have together, each counted once a word), for `mark`. But
    for WHOLE only the words on the pages from `first` to before `end` are looked at. None: there are more than
    `limit`.
    """
    chars: cython.p_char = PyBytes_AS_STRING(text)
    part: cython.pointer(cython.const[uint8_t]) = cython.cast(cython.pointer(cython.const[uint8_t]), chars)
    length: cython.Py_ssize_t = len(text)
    number: uint32_t
    last: uint32_t = min(end, dictionary.pages_end)
    records: cython.Py_ssize_t = 0
    token: cython.pointer(Token)
    page: cython.pointer(Page)
    needed: uint64_t
    i: cython.Py_ssize_t
    found: list = []
    if how == 0:  # WHOLE
        if length <= 255:
            # Flags are words without text.
            number = find_token(dictionary, (key_of(part, length) if length else 0) + kind * SEED, part, length, kind)
            if number != NO_TOKEN:
                token = token_of(dictionary, number)
                found.append(token.newest)
                records = token.count
        return np.array(found, np.uint64), records
    needed = signature_of(part, length)
    for number in range(first, last):
        page = dictionary.pages[number]
        if page == cython.NULL:
            continue
        for i in range(PAGE_TOKENS):
            if page.signature[i] & needed != needed:
                continue
            token = cython.address(page.token[i])
            if (
                token.count != 0
                and token.kind == kind
                and _stands(text_of(dictionary, token), token.length, part, length, how)
            ):
                found.append(token.newest)
                records += token.count
        if len(found) > limit:
            return None
    return np.array(found, np.uint64), records


@cython.cfunc
@cython.exceptval(check=False)
def mark(
    queue: cython.pointer(Queue),
    cursors: uint64_t[::1],
    begin: cython.Py_ssize_t,
    chunk: int64_t,
    out: uint64_t[::1],
    steps: cython.Py_ssize_t,
) -> cython.Py_ssize_t:
    """Follow postings back from the cursors, as `match` returns them, from number `begin` on, down to a chunk.

    `out` has an entry for each of the chunks from there on: it gets the bits of their records. Cursors move to the
    postings before. At most `steps` postings are looked at: it returns the number of the cursor to go on with, which
    is that of the cursors when all is done.
    """
    n: cython.Py_ssize_t = out.shape[0]
    low: uint32_t = cython.cast(uint32_t, chunk)
    ordinal: uint64_t
    posting: cython.pointer(Posting)
    distance: int32_t
    i: cython.Py_ssize_t = begin
    while i < cursors.shape[0]:
        ordinal = cursors[i]
        while ordinal >= queue.tail and steps > 0:
            posting = posting_at(queue, ordinal)
            distance = cython.cast(int32_t, posting.chunk - low)
            if distance < 0:
                break
            if distance < n:
                out[distance] |= bits_of(posting)
            ordinal = ordinal - posting.back if posting.back else 0
            steps -= 1
        cursors[i] = ordinal
        if steps <= 0:
            break
        steps -= 1
        i += 1
    return i


@cython.cfunc
def items(dictionary: cython.pointer(Dictionary), queue: cython.pointer(Queue), first_offset: int64_t) -> list:
    """Return (kind, text, count, offsets of its live records, newest first) of every token. For tests."""
    number: uint32_t
    i: cython.Py_ssize_t
    bit: cython.int
    token: cython.pointer(Token)
    ordinal: uint64_t
    posting: cython.pointer(Posting)
    bits: uint64_t
    found: list = []
    base: int64_t = first_offset >> 6
    for number in range(dictionary.pages_end):
        for i in range(PAGE_TOKENS):
            if dictionary.pages[number] == cython.NULL:
                continue
            token = cython.address(dictionary.pages[number].token[i])
            if token.count == 0:
                continue
            offsets: list = []
            ordinal = token.newest
            while ordinal >= queue.tail:
                posting = posting_at(queue, ordinal)
                bits = bits_of(posting)
                chunk: int64_t = base + cython.cast(uint32_t, posting.chunk - cython.cast(uint32_t, base))
                for bit in range(63, -1, -1):
                    if bits >> bit & 1:
                        offsets.append(64 * chunk + bit)
                if not posting.back:
                    break
                ordinal -= posting.back
            text = bytes(cython.cast(cython.p_char, text_of(dictionary, token))[: token.length])
            found.append((token.kind, text, token.count, offsets))
    return found
