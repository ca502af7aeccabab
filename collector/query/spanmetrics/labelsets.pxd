# Tables of label sets, for compiled modules. What they promise stands in labelsets.py.

from libc.stdint cimport int32_t, uint32_t, uint64_t

cdef struct Key:
    uint64_t first
    uint64_t second
    uint64_t rest

cdef class LabelSets:
    cdef readonly object counts
    cdef readonly object sums
    cdef readonly uint64_t folded
    cdef readonly Py_ssize_t capacity
    cdef uint32_t[:, ::1] _count
    cdef double[:, ::1] _sum
    cdef Key* _keys          # by slot
    cdef int32_t* _places    # hash table of slots; 0 is an empty place
    cdef uint64_t _mask
    cdef int32_t* _free
    cdef Py_ssize_t _free_count
    cdef int32_t* _fresh
    cdef uint32_t* _notes
    cdef Py_ssize_t _fresh_count

    cdef uint64_t _place(self, uint64_t first, uint64_t second, uint64_t rest) noexcept nogil
    cdef int32_t _slot(self, uint64_t first, uint64_t second, uint64_t rest, uint32_t note) noexcept nogil
