# Rows under construction. What they promise stands in columns.py.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

cdef struct Rows:
    Py_ssize_t count
    Py_ssize_t room
    int columns
    int width[24]
    uint8_t* column[24]

cdef int shape(Rows* rows, layout) except? -1
cdef bint reserve(Rows* rows, Py_ssize_t least) noexcept nogil
cdef void release(Rows* rows) noexcept nogil
cdef table_of(Rows* rows, layout)

cdef inline void put64(Rows* rows, int column, uint64_t value) noexcept nogil:
    (<uint64_t*>rows.column[column])[rows.count] = value

cdef inline void put32(Rows* rows, int column, uint64_t value) noexcept nogil:
    (<uint32_t*>rows.column[column])[rows.count] = <uint32_t>value

cdef inline void put8(Rows* rows, int column, uint64_t value) noexcept nogil:
    rows.column[column][rows.count] = <uint8_t>value

cdef inline void put_double(Rows* rows, int column, double value) noexcept nogil:
    (<double*>rows.column[column])[rows.count] = value
