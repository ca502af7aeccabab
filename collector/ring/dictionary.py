# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The tokens of a keyword index (tokens.py): found by their text, kept in places that do not change, all of them walked.

A token is one word of one kind. A dictionary has

* tables of open addressing over hashes, 64 of them, chosen by a hash's highest bits. Each is doubled when three quarters are
  taken and halved when seven eighths are free, on its own: tens of microseconds with a million tokens.
* pages of 256 tokens. A token stays where it was made, so postings name it by number. A new one is made on the first page
  with room, which a bit for each page tells, and a page without tokens goes: what a wave of rare words has taken is given
  back when they have gone.
* signatures, one for each token, a bit for each pair of neighbouring bytes in its text. Who looks for words with a text
  inside looks at texts only whose signature has all its bits.
* pages of texts, a queue: number of the token, length, bytes. When more than half of it belonged to tokens that are gone,
  what is left of the oldest page is moved to the newest.

Memory: 40 B a token, 8 B and what is free of a table, 5 B and its text. Owned by one thread, or whoever holds the GIL.
"""

import cython
from cython.cimports.collector.ring.dictionary import *  # noqa: F403
from cython.cimports.libc.stdint import uint8_t, uint16_t, uint32_t, uint64_t
from cython.cimports.libc.stdlib import calloc, free, malloc
from cython.cimports.libc.string import memcmp, memcpy

_LEAST = cython.declare(uint32_t, 8)  # slots in the smallest table
_MOVED_PAGES = cython.declare(cython.int, 64)  # pages of texts that are moved at once at most


@cython.cfunc
@cython.exceptval(-1)
def open_dictionary(dictionary: cython.pointer(Dictionary)) -> cython.int:
    """Make an empty dictionary of zeroed bytes. After MemoryError, too, it is to be closed."""
    i: cython.int
    dictionary.pages_room = 64
    dictionary.texts_room = 16
    dictionary.tables = cython.cast(cython.pointer(Table), calloc(TABLES, cython.sizeof(Table)))
    dictionary.pages = cython.cast(cython.pointer(cython.pointer(Page)), calloc(dictionary.pages_room, 8))
    dictionary.open = cython.cast(cython.pointer(uint64_t), calloc(dictionary.pages_room // 64, 8))
    dictionary.texts = cython.cast(cython.pointer(cython.pointer(uint8_t)), calloc(dictionary.texts_room, 8))
    if (
        dictionary.tables == cython.NULL
        or dictionary.pages == cython.NULL
        or dictionary.open == cython.NULL
        or dictionary.texts == cython.NULL
    ):
        raise MemoryError
    dictionary.open[0] = ~cython.cast(uint64_t, 0)
    dictionary.nbytes = TABLES * cython.sizeof(Table) + 8 * (
        dictionary.pages_room + dictionary.pages_room // 64 + dictionary.texts_room
    )
    for i in range(TABLES):
        dictionary.tables[i].slot = cython.cast(cython.pointer(Slot), calloc(_LEAST, cython.sizeof(Slot)))
        if dictionary.tables[i].slot == cython.NULL:
            raise MemoryError
        dictionary.tables[i].mask = _LEAST - 1
        dictionary.nbytes += _LEAST * cython.sizeof(Slot)
    return 0


@cython.cfunc
@cython.exceptval(check=False)
def close_dictionary(dictionary: cython.pointer(Dictionary)) -> cython.void:
    """Give back what it holds."""
    i: cython.Py_ssize_t
    if dictionary.tables != cython.NULL:
        for i in range(TABLES):
            free(dictionary.tables[i].slot)
    if dictionary.pages != cython.NULL:
        for i in range(dictionary.pages_room):
            free(dictionary.pages[i])
    if dictionary.texts != cython.NULL:
        for i in range(dictionary.texts_room):
            free(dictionary.texts[i])
    free(dictionary.tables)
    free(dictionary.pages)
    free(dictionary.open)
    free(dictionary.texts)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def signature_of(at: cython.pointer(cython.const[uint8_t]), length: cython.Py_ssize_t) -> uint64_t:
    """Return a bit for each pair of neighbouring bytes."""
    bits: uint64_t = 0
    i: cython.Py_ssize_t
    for i in range(length - 1):
        bits |= cython.cast(uint64_t, 1) << ((at[i] * 37 + at[i + 1] * 11) & 63)
    return bits


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def find_token(
    dictionary: cython.pointer(Dictionary),
    hash: uint64_t,
    text: cython.pointer(cython.const[uint8_t]),
    length: uint16_t,
    kind: uint16_t,
) -> uint32_t:
    """Return the number of a token, NO_TOKEN when there is no such."""
    table: cython.pointer(Table) = dictionary.tables + (hash >> 58)
    at: uint32_t = hash & table.mask
    tag: uint32_t = cython.cast(uint32_t, hash >> 26)
    token: cython.pointer(Token)
    while table.slot[at].token != 0:
        if table.slot[at].tag == tag:
            token = token_of(dictionary, table.slot[at].token - 1)
            if (
                token.hash == hash
                and token.length == length
                and token.kind == kind
                and (length == 0 or memcmp(text_of(dictionary, token), text, length) == 0)
            ):
                return table.slot[at].token - 1
        at = (at + 1) & table.mask
    return NO_TOKEN


@cython.cfunc
@cython.exceptval(0xFFFFFFFF)
def make_token(
    dictionary: cython.pointer(Dictionary),
    hash: uint64_t,
    text: cython.pointer(cython.const[uint8_t]),
    length: uint16_t,
    kind: uint16_t,
) -> uint32_t:
    """Make a token that is not there, without records; return its number."""
    table: cython.pointer(Table) = dictionary.tables + (hash >> 58)
    number: uint32_t
    token: cython.pointer(Token)
    page: cython.pointer(Page)
    at: uint32_t
    if (table.used + 1) * 4 > (table.mask + 1) * 3:
        _resize(dictionary, table, 2 * (table.mask + 1))
    page_number: uint32_t = _page_with_room(dictionary)
    _room_for_text(dictionary, length)
    page = dictionary.pages[page_number]
    number = page_number * PAGE_TOKENS + page.free - 1
    token = token_of(dictionary, number)
    page.free = token.place
    page.live += 1
    if page.free == 0:
        dictionary.open[page_number // 64] &= ~(cython.cast(uint64_t, 1) << (page_number % 64))
    token.hash = hash
    token.count = 0
    token.length = length
    token.kind = kind
    token.place = _put_text(dictionary, number, text, length)
    page.signature[number % PAGE_TOKENS] = signature_of(text, length)
    at = hash & table.mask
    while table.slot[at].token != 0:
        at = (at + 1) & table.mask
    table.slot[at].token = number + 1
    table.slot[at].tag = cython.cast(uint32_t, hash >> 26)
    table.used += 1
    dictionary.keys += 1
    dictionary.text_bytes += TEXT_HEAD + length
    return number


@cython.cfunc
@cython.exceptval(0xFFFFFFFF)
def _page_with_room(dictionary: cython.pointer(Dictionary)) -> uint32_t:
    """Return the first page of tokens with room, which may be a new one."""
    word: uint32_t = 0
    number: uint32_t
    i: uint32_t
    page: cython.pointer(Page)
    pages: cython.pointer(cython.pointer(Page))
    is_open: cython.pointer(uint64_t)
    while word < dictionary.pages_room // 64 and dictionary.open[word] == 0:
        word += 1
    if word == dictionary.pages_room // 64:
        pages = cython.cast(cython.pointer(cython.pointer(Page)), calloc(2 * dictionary.pages_room, 8))
        is_open = cython.cast(cython.pointer(uint64_t), calloc(2 * dictionary.pages_room // 64, 8))
        if pages == cython.NULL or is_open == cython.NULL:
            free(pages)
            free(is_open)
            raise MemoryError
        memcpy(pages, dictionary.pages, 8 * dictionary.pages_room)
        memcpy(is_open, dictionary.open, dictionary.pages_room // 8)
        for i in range(dictionary.pages_room // 64, dictionary.pages_room // 32):
            is_open[i] = ~cython.cast(uint64_t, 0)
        free(dictionary.pages)
        free(dictionary.open)
        dictionary.pages = pages
        dictionary.open = is_open
        dictionary.nbytes += 8 * dictionary.pages_room + dictionary.pages_room // 8
        dictionary.pages_room *= 2
    number = 64 * word + lowest_bit(dictionary.open[word])
    if dictionary.pages[number] == cython.NULL:
        page = cython.cast(cython.pointer(Page), calloc(1, cython.sizeof(Page)))
        if page == cython.NULL:
            raise MemoryError
        for i in range(PAGE_TOKENS - 1):
            page.token[i].place = i + 2
        page.free = 1
        dictionary.pages[number] = page
        dictionary.pages_end = max(dictionary.pages_end, number + 1)
        dictionary.nbytes += cython.sizeof(Page)
    return number


@cython.cfunc
@cython.exceptval(check=False)
def drop_token(dictionary: cython.pointer(Dictionary), number: uint32_t) -> cython.void:
    """Let go of a token without records."""
    token: cython.pointer(Token) = token_of(dictionary, number)
    page: cython.pointer(Page) = dictionary.pages[number // PAGE_TOKENS]
    table: cython.pointer(Table) = dictionary.tables + (token.hash >> 58)
    hole: uint32_t = token.hash & table.mask
    at: uint32_t
    home: uint32_t
    while table.slot[hole].token != number + 1:
        hole = (hole + 1) & table.mask
    at = hole
    while True:
        at = (at + 1) & table.mask
        if table.slot[at].token == 0:
            break
        home = token_of(dictionary, table.slot[at].token - 1).hash & table.mask
        if ((at - home) & table.mask) >= ((at - hole) & table.mask):
            table.slot[hole] = table.slot[at]
            hole = at
    table.slot[hole].token = 0
    table.used -= 1
    dictionary.keys -= 1
    dictionary.text_bytes -= TEXT_HEAD + token.length
    token.place = page.free
    page.signature[number % PAGE_TOKENS] = 0
    page.free = number % PAGE_TOKENS + 1
    page.live -= 1
    dictionary.open[number // PAGE_TOKENS // 64] |= cython.cast(uint64_t, 1) << (number // PAGE_TOKENS % 64)
    if page.live == 0:
        free(page)
        dictionary.pages[number // PAGE_TOKENS] = cython.NULL
        dictionary.nbytes -= cython.sizeof(Page)
        while dictionary.pages_end and dictionary.pages[dictionary.pages_end - 1] == cython.NULL:
            dictionary.pages_end -= 1
    if table.mask + 1 > _LEAST and table.used * 8 < table.mask + 1:
        _shrink(dictionary, table)


@cython.cfunc
@cython.exceptval(-1)
def _resize(dictionary: cython.pointer(Dictionary), table: cython.pointer(Table), slots: uint32_t) -> cython.int:
    """Give a table another number of slots."""
    made: cython.pointer(Slot) = cython.cast(cython.pointer(Slot), calloc(slots, cython.sizeof(Slot)))
    i: uint32_t
    at: uint32_t
    if made == cython.NULL:
        raise MemoryError
    for i in range(table.mask + 1):
        if table.slot[i].token != 0:
            at = token_of(dictionary, table.slot[i].token - 1).hash & (slots - 1)
            while made[at].token != 0:
                at = (at + 1) & (slots - 1)
            made[at] = table.slot[i]
    free(table.slot)
    dictionary.nbytes += (cython.cast(cython.Py_ssize_t, slots) - (table.mask + 1)) * cython.sizeof(Slot)
    table.slot = made
    table.mask = slots - 1
    return 0


@cython.cfunc
@cython.exceptval(check=False)
def _shrink(dictionary: cython.pointer(Dictionary), table: cython.pointer(Table)) -> cython.void:
    """Halve a table; without memory for that it stays."""
    try:
        _resize(dictionary, table, (table.mask + 1) // 2)
    except MemoryError:
        pass


@cython.cfunc
@cython.exceptval(-1)
def _room_for_text(dictionary: cython.pointer(Dictionary), length: uint32_t) -> cython.int:
    """Make sure that the newest page of texts has room for one of this length."""
    page: cython.pointer(uint8_t)
    used: uint32_t = 0
    i: uint32_t
    grown: cython.pointer(cython.pointer(uint8_t))
    if dictionary.texts_end != dictionary.texts_tail:
        memcpy(cython.address(used), dictionary.texts[(dictionary.texts_end - 1) & (dictionary.texts_room - 1)], 4)
        if used + TEXT_HEAD + length <= PAGE_BYTES:
            return 0
    if dictionary.texts_end - dictionary.texts_tail == dictionary.texts_room:
        grown = cython.cast(cython.pointer(cython.pointer(uint8_t)), calloc(2 * dictionary.texts_room, 8))
        if grown == cython.NULL:
            raise MemoryError
        i = dictionary.texts_tail
        while i != dictionary.texts_end:
            grown[i & (2 * dictionary.texts_room - 1)] = dictionary.texts[i & (dictionary.texts_room - 1)]
            i += 1
        free(dictionary.texts)
        dictionary.texts = grown
        dictionary.nbytes += 8 * dictionary.texts_room
        dictionary.texts_room *= 2
    page = cython.cast(cython.pointer(uint8_t), malloc(PAGE_BYTES))
    if page == cython.NULL:
        raise MemoryError
    used = 4
    memcpy(page, cython.address(used), 4)
    dictionary.texts[dictionary.texts_end & (dictionary.texts_room - 1)] = page
    dictionary.texts_end += 1
    dictionary.nbytes += PAGE_BYTES
    return 0


@cython.cfunc
@cython.exceptval(check=False)
def _put_text(
    dictionary: cython.pointer(Dictionary),
    number: uint32_t,
    text: cython.pointer(cython.const[uint8_t]),
    length: uint8_t,
) -> uint32_t:
    """Write a token's text to the newest page, which has room; return its place."""
    page: cython.pointer(uint8_t) = dictionary.texts[(dictionary.texts_end - 1) & (dictionary.texts_room - 1)]
    used: uint32_t = 0
    after: uint32_t
    memcpy(cython.address(used), page, 4)
    memcpy(page + used, cython.address(number), 4)
    page[used + 4] = length
    if length:
        memcpy(page + used + TEXT_HEAD, text, length)
    after = used + TEXT_HEAD + length
    memcpy(page, cython.address(after), 4)
    return (dictionary.texts_end - 1) * PAGE_BYTES + used


@cython.cfunc
@cython.exceptval(-1)
def move_texts(dictionary: cython.pointer(Dictionary)) -> cython.int:
    """Free the oldest pages of texts, moving what lives there, while more than half of all is of the dead."""
    page: cython.pointer(uint8_t)
    at: uint32_t
    used: uint32_t = 0
    number: uint32_t = 0
    place: uint32_t
    moved: cython.int = 0
    token: cython.pointer(Token)
    while (
        moved < _MOVED_PAGES
        and cython.cast(cython.Py_ssize_t, dictionary.texts_end - dictionary.texts_tail) * PAGE_BYTES
        > 2 * dictionary.text_bytes + 2 * PAGE_BYTES
    ):
        moved += 1
        page = dictionary.texts[dictionary.texts_tail & (dictionary.texts_room - 1)]
        place = dictionary.texts_tail * PAGE_BYTES
        memcpy(cython.address(used), page, 4)
        at = 4
        while at < used:
            memcpy(cython.address(number), page + at, 4)
            if dictionary.pages[number // PAGE_TOKENS] != cython.NULL:
                token = token_of(dictionary, number)
                if token.count != 0 and token.place == place + at:
                    _room_for_text(dictionary, token.length)
                    token.place = _put_text(dictionary, number, page + at + TEXT_HEAD, page[at + 4])
            at += TEXT_HEAD + page[at + 4]
        dictionary.texts[dictionary.texts_tail & (dictionary.texts_room - 1)] = cython.NULL
        dictionary.texts_tail += 1
        dictionary.nbytes -= PAGE_BYTES
        free(page)
    return 0
