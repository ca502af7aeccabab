# What receivers/push.py takes from here. What it promises stands in levels.py.

from libc.stdint cimport uint8_t

cdef uint8_t named(const uint8_t* at, Py_ssize_t length) noexcept nogil
cdef bint is_key(const uint8_t* at, Py_ssize_t length) noexcept nogil
