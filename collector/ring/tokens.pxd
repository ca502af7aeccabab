# What tokens.py needs of the processor.

from libc.stdint cimport uint64_t

cdef extern from *:
    """
    #include <stdint.h>
    static inline int ringtail_population(uint64_t bits) { return __builtin_popcountll(bits); }
    static inline int ringtail_lowest_bit(uint64_t bits) { return __builtin_ctzll(bits); }
    """
    int population "ringtail_population"(uint64_t bits) noexcept nogil
    int lowest_bit "ringtail_lowest_bit"(uint64_t bits) noexcept nogil
