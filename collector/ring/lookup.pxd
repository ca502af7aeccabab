# Looking records up in a keyword index. What the functions promise stands in lookup.py.

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t

from collector.ring.dictionary cimport Dictionary
from collector.ring.queue cimport Queue

cdef object match(
    Dictionary* dictionary, uint16_t kind, bytes text, int how, uint32_t first, uint32_t end, Py_ssize_t limit)
cdef Py_ssize_t mark(
    Queue* queue, uint64_t[::1] cursors, Py_ssize_t begin, int64_t chunk, uint64_t[::1] out, Py_ssize_t steps) noexcept
cdef list items(Dictionary* dictionary, Queue* queue, int64_t first_offset)
