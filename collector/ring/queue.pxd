# The postings of a keyword index. What the functions promise stands in queue.py.

from libc.stdint cimport uint32_t, uint64_t

cdef enum:
    PAGE_POSTINGS = 512

cdef struct Posting:
    uint32_t low          # bits of the chunk's first 32 records
    uint32_t high
    uint32_t token        # its number; NO_TOKEN: nothing is left of it
    uint32_t back         # how far back the token's posting before lies; 0: there is none
    uint32_t chunk        # the low bits of its number

cdef struct Queue:
    Posting** pages       # the page of an ordinal is its high bits, modulo `room`
    uint64_t room
    uint64_t tail         # the ordinal of the oldest posting
    uint64_t next         # that of the next one
    Py_ssize_t nbytes     # of everything

cdef inline Posting* posting_at(Queue* queue, uint64_t ordinal) noexcept nogil:
    return queue.pages[ordinal // PAGE_POSTINGS & (queue.room - 1)] + ordinal % PAGE_POSTINGS

cdef inline uint64_t bits_of(Posting* posting) noexcept nogil:
    return posting.low | <uint64_t>posting.high << 32

cdef inline void set_bits(Posting* posting, uint64_t bits) noexcept nogil:
    posting.low = <uint32_t>bits
    posting.high = <uint32_t>(bits >> 32)

cdef inline int make_room(Queue* queue) except -1:
    # Makes sure that there is a page for the next posting; raises MemoryError.
    cdef uint64_t page = queue.next // PAGE_POSTINGS
    if page - queue.tail // PAGE_POSTINGS < queue.room and queue.pages[page & (queue.room - 1)] != NULL:
        return 0
    return add_page(queue)

cdef int open_queue(Queue* queue) except -1
cdef void close_queue(Queue* queue) noexcept
cdef int add_page(Queue* queue) except -1
cdef void drop_oldest(Queue* queue) noexcept
