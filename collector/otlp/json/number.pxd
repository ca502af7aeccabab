# Decimal numbers. What these promise stands in number.py.

from libc.stdint cimport int64_t, uint8_t, uint64_t

cdef extern from *:
    """
    #include <stdint.h>
    #define ringtail_leading_zeros(word) __builtin_clzll(word)
    static inline void ringtail_multiply(uint64_t a, uint64_t b, uint64_t *high, uint64_t *low) {
        const unsigned __int128 product = (unsigned __int128)a * b;
        *high = (uint64_t)(product >> 64);
        *low = (uint64_t)product;
    }
    /* a * 2^63 / b, and whether something is left. */
    static inline uint64_t ringtail_divide(uint64_t a, uint64_t b, int *rest) {
        const unsigned __int128 dividend = (unsigned __int128)a << 63;
        *rest = dividend % b != 0;
        return (uint64_t)(dividend / b);
    }
    """
    int leading_zeros "ringtail_leading_zeros"(uint64_t word) nogil
    void multiply "ringtail_multiply"(uint64_t a, uint64_t b, uint64_t* high, uint64_t* low) nogil
    uint64_t divide "ringtail_divide"(uint64_t a, uint64_t b, int* rest) nogil

cdef extern from "Python.h":
    double PyOS_string_to_double(const char* text, char** behind, void* overflow) noexcept

cdef enum:
    POWERS = 28  # powers of 5 below 2 to the 63rd

cdef struct Number:  # ± mantissa · 10 ** exponent
    uint64_t mantissa
    int64_t exponent
    bint negative
    bint cut  # the mantissa had no room for the last digits, and they are not all 0

cdef const uint8_t* read_number(const uint8_t* at, const uint8_t* end, bint loose, Number* number) noexcept nogil
cdef bint settle(Number* number) noexcept nogil
cdef bint nearest(const Number* number, double* value) noexcept nogil
cdef double nearest_slowly(const uint8_t* at, const uint8_t* behind, uint8_t* room) noexcept
