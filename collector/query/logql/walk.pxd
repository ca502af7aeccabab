# The walk over a line of JSON, for compiled modules. What it promises stands in walk.py.

from libc.stdint cimport uint8_t

cdef enum:
    NESTING = 64  # objects in objects

ctypedef const uint8_t* Bytes

cdef struct Value:
    int kind
    Bytes at              # of a text: behind its quote
    Py_ssize_t length
    Bytes end             # behind it all

cdef struct Walk:
    Bytes at
    int depth
    bint after            # a value was just read, and not a key
    Bytes[NESTING] ends   # of the objects around
    Py_ssize_t[NESTING] names  # how long their names are
    uint8_t* name
    uint8_t* key          # room for a key without its escapes
    Py_ssize_t length     # of the name of the member just found
    int status

cdef Bytes token(Bytes at, Bytes end) noexcept nogil
cdef Bytes string(Bytes at, Bytes end, bint* escaped) noexcept nogil
cdef int read_value(Bytes at, Bytes end, Value* value) noexcept nogil
cdef int hex4(Bytes at, Bytes end) noexcept nogil
cdef Py_ssize_t unescape(Bytes at, Py_ssize_t length, uint8_t* out) noexcept nogil
cdef Py_ssize_t append_key(uint8_t* name, Py_ssize_t length, Bytes key, Py_ssize_t key_length) noexcept nogil
cdef bint begin(Walk* walk, Bytes at, Bytes end) noexcept nogil
cdef bint next_member(Walk* walk, Value* value) noexcept nogil
