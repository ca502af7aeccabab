# JSON text: white space, strings and values. What these promise stands in text.py.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    /* A bit for each of 16 bytes that a string's scan stops at: '"', '\\\\', below 0x20, above 0x7F. */
    #if defined(__SSE2__) && !defined(RINGTAIL_PORTABLE)
    #include <emmintrin.h>
    static inline uint32_t ringtail_stops(const uint8_t *at) {
        const __m128i text = _mm_loadu_si128((const __m128i *)at);
        const __m128i quote = _mm_cmpeq_epi8(text, _mm_set1_epi8(0x22));
        const __m128i slash = _mm_cmpeq_epi8(text, _mm_set1_epi8(0x5C));
        const __m128i outside = _mm_cmplt_epi8(text, _mm_set1_epi8(0x20)); /* signed: above 0x7F too */
        return (uint32_t)_mm_movemask_epi8(_mm_or_si128(_mm_or_si128(quote, slash), outside));
    }
    #else
    static inline uint32_t ringtail_stops8(const uint8_t *at) {
        const uint64_t low = 0x7F7F7F7F7F7F7F7FULL, ones = 0x0101010101010101ULL;
        uint64_t text, quote, slash, inside;
        memcpy(&text, at, 8);
        quote = text ^ ones * 0x22;
        slash = text ^ ones * 0x5C;
        /* The high bit of each byte: it is no quote, it is no backslash, it is 0x20 or above. */
        inside = (((quote & low) + low) | quote) & (((slash & low) + low) | slash) & ((text & low) + ones * 0x60);
        return (uint32_t)((((~inside | text) >> 7 & ones) * 0x0102040810204080ULL) >> 56);
    }
    static inline uint32_t ringtail_stops(const uint8_t *at) {
        return ringtail_stops8(at) | ringtail_stops8(at + 8) << 8;
    }
    #endif
    #define ringtail_first_bit(bits) __builtin_ctz(bits)
    """
    uint32_t stops "ringtail_stops"(const uint8_t* at) nogil
    int first_bit "ringtail_first_bit"(uint32_t bits) nogil

cdef enum:  # sizes
    STRIDE = 16      # bytes that a string's scan reads at once, and `copy_string` may write beyond its end
    NESTING = 1024   # arrays and objects within each other in a value that is stepped over; 16 words of bits

cdef enum:  # failures
    ENDED = 1
    EXPECTED_VALUE = 2
    EXPECTED_KEY = 3
    EXPECTED_COLON = 4
    EXPECTED_COMMA = 5
    BAD_NUMBER = 6
    BAD_ESCAPE = 7
    BAD_SURROGATE = 8
    BAD_CONTROL = 9
    NOT_UTF8 = 10
    TOO_NESTED = 11
    TRAILING = 12
    NO_MEMORY = 13

cdef struct Text:
    const uint8_t* end    # where a byte of 0 stands
    const uint8_t* where  # of the failure
    int failure

cdef const uint8_t* broken(Text* text, const uint8_t* at, int failure) noexcept nogil
cdef const uint8_t* skip_blank(const uint8_t* at) noexcept nogil
cdef const uint8_t* copy_rest(Text* text, const uint8_t* at, uint8_t** out) noexcept nogil
cdef const uint8_t* skip_string(Text* text, const uint8_t* at) noexcept nogil
cdef const uint8_t* skip_value(Text* text, const uint8_t* at) noexcept nogil

cdef inline const uint8_t* blank(const uint8_t* at) noexcept nogil:
    """Step over white space."""
    return at if at[0] > 32 else skip_blank(at)

cdef inline bint is_literal(Text* text, const uint8_t* at, const char* word, Py_ssize_t length) noexcept nogil:
    """Tell whether these bytes stand here."""
    return text.end - at >= length and memcmp(at, word, length) == 0

cdef inline const uint8_t* copy_plain(Text* text, const uint8_t* at, uint8_t** out) noexcept nogil:
    """Copy characters up to one that a string's scan stops at, and return where that is; NULL near the end."""
    cdef uint8_t* to = out[0]
    cdef uint32_t found
    while text.end - at >= STRIDE:
        found = stops(at)
        memcpy(to, at, STRIDE)
        if found:
            out[0] = to + first_bit(found)
            return at + first_bit(found)
        at += STRIDE
        to += STRIDE
    return NULL

cdef inline const uint8_t* copy_string(Text* text, const uint8_t* at, uint8_t** out) noexcept nogil:
    """Copy a string whose opening quote was just read, unescaped; return what follows its closing quote, or NULL."""
    cdef uint8_t* to = out[0]
    cdef uint32_t found
    cdef int plain
    while text.end - at >= STRIDE:
        found = stops(at)
        memcpy(to, at, STRIDE)
        if found:
            plain = first_bit(found)
            at += plain
            out[0] = to + plain
            return at + 1 if at[0] == c'"' else copy_rest(text, at, out)
        at += STRIDE
        to += STRIDE
    out[0] = to
    return copy_rest(text, at, out)
