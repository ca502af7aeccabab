# What messages are made of. What is promised stands in elements.py.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from collector.otlp.wire cimport Extent

cdef enum:  # tags of AnyValue
    STRING_VALUE = 10
    BOOL_VALUE = 16
    INT_VALUE = 24
    DOUBLE_VALUE = 33
    ARRAY_VALUE = 42
    KVLIST_VALUE = 50
    BYTES_VALUE = 58

cdef struct Repeated:  # a repeated field of messages, from its first element on
    const uint8_t* at
    const uint8_t* end  # of the message that it is in
    uint32_t tag
    uint32_t count  # how many there are, or no fewer than that

cdef struct KeyValue:
    Extent key
    Extent value  # an AnyValue

cdef struct AnyValue:
    uint32_t tag  # of the field that is set; 0 for none
    uint64_t number
    Extent content

cdef double as_double(uint64_t bits) noexcept nogil
cdef Repeated repeated(Extent message, uint32_t field) noexcept nogil
cdef bint next_of(Repeated* elements, Extent* content) noexcept nogil
cdef Extent field_of(Extent message, uint32_t field) noexcept nogil
cdef KeyValue read_key_value(Extent message) noexcept nogil
cdef AnyValue read_value(Extent message) noexcept nogil

cdef inline Extent extent(const uint8_t* at, const uint8_t* end) noexcept nogil:
    """Return a part of a message by its ends."""
    cdef Extent found
    found.at = at
    found.length = <uint32_t>(end - at)
    return found

cdef inline void none_of(Repeated* elements, const uint8_t* end, uint32_t field) noexcept nogil:
    """Begin to count the elements of a repeated field, in a message that ends there."""
    elements.at = end
    elements.end = end
    elements.tag = field << 3 | 2
    elements.count = 0

cdef inline void one_of(Repeated* elements, const uint8_t* at) noexcept nogil:
    """Count one, whose field begins there."""
    if elements.count == 0:
        elements.at = at
    elements.count += 1
