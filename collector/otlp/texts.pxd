# Texts of records. What they promise stands in texts.py.

from libc.stdint cimport uint8_t, uint32_t

cdef enum:  # kinds of text
    BODY = 0
    ATTRIBUTE = 1

cdef enum:  # what a record holds beside its texts, a bit each
    BODY_NUMBER = 1
    BODY_OPAQUE = 2
    ATTRIBUTE_OPAQUE = 4
    BODY_LONG = 8
    ATTRIBUTE_LONG = 16

cdef struct Text:
    const uint8_t* at
    uint32_t length
    int kind

cdef struct Texts:  # to be zeroed first; `release_texts` gives back what it holds
    Text* text
    Py_ssize_t count
    Py_ssize_t room
    int flags

cdef enum:  # what `_message_texts` is of
    _OTHER = 0
    _LOG_RECORD = 1
    _SPAN = 2

cdef bint record_texts(Texts* texts, const uint8_t* at, Py_ssize_t length) noexcept nogil
cdef bint span_texts(Texts* texts, const uint8_t* at, Py_ssize_t length) noexcept nogil
cdef bint resource_texts(Texts* texts, const uint8_t* at, Py_ssize_t length) noexcept nogil
cdef bint scope_texts(Texts* texts, const uint8_t* at, Py_ssize_t length) noexcept nogil
cdef void release_texts(Texts* texts) noexcept nogil
