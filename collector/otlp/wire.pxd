# The wire format's primitives, for compiled modules. What they promise stands in wire.py.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef extern from *:
    """
    #include <stdint.h>
    #define RINGTAIL_HIGH_BITS 0x8080808080808080ULL
    #define RINGTAIL_SEED 0x9E3779B97F4A7C15ULL
    #define RINGTAIL_MIX_1 0xBF58476D1CE4E5B9ULL
    #define RINGTAIL_MIX_2 0x94D049BB133111EBULL
    #define RINGTAIL_MIX_3 0xD6E8FEB86659FD93ULL
    #define RINGTAIL_MIX_4 0xFF51AFD7ED558CCDULL
    /* Folded 64 x 64 -> 128 bit multiplication: the mixing step of multiplicative hashes. */
    static inline uint64_t ringtail_mix(uint64_t a, uint64_t b) {
        __uint128_t product = (__uint128_t)a * b;
        return (uint64_t)product ^ (uint64_t)(product >> 64);
    }
    """
    const uint64_t HIGH_BITS "RINGTAIL_HIGH_BITS"
    const uint64_t SEED "RINGTAIL_SEED"
    const uint64_t MIX_1 "RINGTAIL_MIX_1"
    const uint64_t MIX_2 "RINGTAIL_MIX_2"
    const uint64_t MIX_3 "RINGTAIL_MIX_3"
    const uint64_t MIX_4 "RINGTAIL_MIX_4"
    uint64_t mix "ringtail_mix"(uint64_t a, uint64_t b) nogil

cdef enum:
    DEPTH = 100  # messages or groups within messages, as the protobuf library allows by default

cdef struct Extent:
    const uint8_t* at     # NULL when absent
    uint32_t length

cdef inline const uint8_t* read_varint(const uint8_t* at, const uint8_t* end, uint64_t* value) noexcept nogil:
    """Read a varint of at most 10 bytes; NULL when it is cut short or longer."""
    cdef uint64_t result = 0
    cdef int shift = 0
    cdef uint8_t byte
    while at < end and shift < 70:
        byte = at[0]
        at += 1
        if shift < 64:
            result |= <uint64_t>(byte & 0x7F) << shift
        if byte < 0x80:
            value[0] = result
            return at
        shift += 7
    return NULL

cdef inline const uint8_t* read_tag(const uint8_t* at, const uint8_t* end, uint32_t* value) noexcept nogil:
    """Read a tag or a length: a varint of at most 5 bytes and 32 bits; NULL otherwise."""
    cdef uint64_t wide = 0
    if at < end and at[0] < 0x80:
        value[0] = at[0]
        return at + 1
    at = read_varint(at, at + 5 if end - at > 5 else end, &wide)
    if at == NULL or wide > 0xFFFFFFFFu:
        return NULL
    value[0] = <uint32_t>wide
    return at

cdef inline bint is_ascii(const uint8_t* at, Py_ssize_t length) noexcept nogil:
    """Tell whether all bytes are ASCII, as nearly all strings are, whole words at a time and without a call."""
    cdef uint64_t word
    cdef uint64_t last
    cdef uint32_t half
    cdef uint32_t other
    cdef const uint8_t* end = at + length
    if length >= 8:
        memcpy(&last, end - 8, 8)
        while end - at > 8:
            memcpy(&word, at, 8)
            last |= word
            at += 8
        return not last & HIGH_BITS
    if length >= 4:
        memcpy(&half, at, 4)
        memcpy(&other, end - 4, 4)
        return not (half | other) & 0x80808080u
    return length == 0 or not (at[0] | at[length >> 1] | end[-1]) & 0x80

cdef inline uint8_t* write_varint(uint8_t* out, uint64_t value) noexcept nogil:
    """Write a varint of at most 10 bytes; return what follows it."""
    while value > 0x7F:
        out[0] = <uint8_t>(value | 0x80)
        out += 1
        value >>= 7
    out[0] = <uint8_t>value
    return out + 1

cdef uint64_t key_of(const uint8_t* at, Py_ssize_t length) noexcept nogil
cdef bint is_utf8(const uint8_t* at, Py_ssize_t length) noexcept nogil
cdef const uint8_t* skip(const uint8_t* at, const uint8_t* end, uint32_t tag, int depth) noexcept nogil
cdef const uint8_t* next_field(
    const uint8_t* at, const uint8_t* end, uint32_t* tag, uint64_t* value, Extent* content) noexcept nogil
cdef bint find_attribute(
    const uint8_t* at, const uint8_t* end, uint32_t field,
    const uint8_t* key, Py_ssize_t key_length, Extent* value) noexcept nogil
