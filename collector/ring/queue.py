# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The postings of a keyword index, in the order they were made in: a queue of pages.

    ordinal    a posting's place in that order, from 1 on

New postings come at the head, and the oldest leave at the tail. Pages are made when the head comes to them, and freed when
the tail has passed them. `make_room`, `posting_at` and the bits of a posting are in queue.pxd, to stand in loops without
a call.

Memory: 20 B a posting, in pages of 10 KiB; 8 B a page, in a table that doubles.
"""

import cython
from cython.cimports.collector.ring.queue import *  # noqa: F403
from cython.cimports.libc.stdint import uint64_t
from cython.cimports.libc.stdlib import calloc, free, malloc

_ROOM = cython.declare(uint64_t, 16)


@cython.cfunc
@cython.exceptval(-1, check=False)
def open_queue(queue: cython.pointer(Queue)) -> cython.int:
    """Make an empty queue of what is zeroed; raises MemoryError."""
    queue.tail = queue.next = 1
    queue.pages = cython.cast(cython.pointer(cython.pointer(Posting)), calloc(_ROOM, 8))
    if queue.pages == cython.NULL:
        raise MemoryError
    queue.room = _ROOM
    queue.nbytes = 8 * _ROOM
    return 0


@cython.cfunc
@cython.exceptval(check=False)
def close_queue(queue: cython.pointer(Queue)) -> cython.void:
    """Free all pages."""
    i: uint64_t
    for i in range(queue.room):
        free(queue.pages[i])
    free(queue.pages)
    queue.pages = cython.NULL
    queue.room = 0


@cython.cfunc
@cython.exceptval(-1, check=False)
def add_page(queue: cython.pointer(Queue)) -> cython.int:
    """Make a page for the next posting; raises MemoryError."""
    page: uint64_t = queue.next // PAGE_POSTINGS
    first: uint64_t = queue.tail // PAGE_POSTINGS
    grown: cython.pointer(cython.pointer(Posting))
    if page - first >= queue.room:
        grown = cython.cast(cython.pointer(cython.pointer(Posting)), calloc(2 * queue.room, 8))
        if grown == cython.NULL:
            raise MemoryError
        while first < page:
            grown[first & (2 * queue.room - 1)] = queue.pages[first & (queue.room - 1)]
            first += 1
        free(queue.pages)
        queue.pages = grown
        queue.nbytes += 8 * queue.room
        queue.room *= 2
    queue.pages[page & (queue.room - 1)] = cython.cast(
        cython.pointer(Posting), malloc(PAGE_POSTINGS * cython.sizeof(Posting))
    )
    if queue.pages[page & (queue.room - 1)] == cython.NULL:
        raise MemoryError
    queue.nbytes += PAGE_POSTINGS * cython.sizeof(Posting)
    return 0


@cython.cfunc
@cython.exceptval(check=False)
def drop_oldest(queue: cython.pointer(Queue)) -> cython.void:
    """Let go of the oldest posting, of which there is one."""
    page: uint64_t = queue.tail // PAGE_POSTINGS & (queue.room - 1)
    queue.tail += 1
    if queue.tail % PAGE_POSTINGS == 0:
        free(queue.pages[page])
        queue.pages[page] = cython.NULL
        queue.nbytes -= PAGE_POSTINGS * cython.sizeof(Posting)
