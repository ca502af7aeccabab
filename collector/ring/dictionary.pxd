# The tokens of a keyword index. What the functions promise stands in dictionary.py.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from *:
    """
    #include <stdint.h>
    static inline int ringtail_population(uint64_t bits) { return __builtin_popcountll(bits); }
    static inline int ringtail_lowest_bit(uint64_t bits) { return __builtin_ctzll(bits); }
    """
    int population "ringtail_population"(uint64_t bits) noexcept nogil
    int lowest_bit "ringtail_lowest_bit"(uint64_t bits) noexcept nogil

cdef enum:
    TABLES = 64
    PAGE_TOKENS = 256
    PAGE_BYTES = 8192     # of texts
    TEXT_HEAD = 5         # bytes before a text: its token's number, and its length

cdef extern from *:
    """
    #define RINGTAIL_NO_TOKEN 0xFFFFFFFFu
    """
    const uint32_t NO_TOKEN "RINGTAIL_NO_TOKEN"

cdef struct Token:
    uint64_t hash
    uint64_t newest       # the ordinal of its newest posting
    uint32_t count        # live records; 0: there is no token here
    uint32_t chunk        # of its newest posting, the low bits
    uint32_t place        # of its text; of what is no token the next such on its page, plus 1
    uint16_t length
    uint16_t kind

cdef struct Page:
    Token token[256]
    uint64_t signature[256]
    uint32_t live
    uint32_t free

cdef struct Slot:
    uint32_t tag
    uint32_t token        # its number plus 1; 0: nothing

cdef struct Table:
    Slot* slot
    uint32_t mask
    uint32_t used

cdef struct Dictionary:
    Table* tables
    Page** pages          # page p has the tokens from 256 p on
    uint32_t pages_room
    uint32_t pages_end    # beyond the last page there is
    uint64_t* open        # a bit for each page: it has room, or is not there
    uint8_t** texts       # a page begins with how many of its bytes are used
    uint32_t texts_room
    uint32_t texts_tail   # pages of texts from this one to before `texts_end`
    uint32_t texts_end
    Py_ssize_t text_bytes # of tokens
    Py_ssize_t keys       # tokens
    Py_ssize_t nbytes     # of everything

cdef inline Token* token_of(Dictionary* dictionary, uint32_t number) noexcept nogil:
    return &dictionary.pages[number // PAGE_TOKENS].token[number % PAGE_TOKENS]

cdef inline const uint8_t* text_of(Dictionary* dictionary, Token* token) noexcept nogil:
    cdef uint32_t page = token.place // PAGE_BYTES & (dictionary.texts_room - 1)
    return dictionary.texts[page] + token.place % PAGE_BYTES + TEXT_HEAD

cdef int open_dictionary(Dictionary* dictionary) except? -1
cdef void close_dictionary(Dictionary* dictionary) noexcept
cdef uint64_t signature_of(const uint8_t* at, Py_ssize_t length) noexcept nogil
cdef uint32_t find_token(
    Dictionary* dictionary, uint64_t hash, const uint8_t* text, uint16_t length, uint16_t kind) noexcept nogil
cdef uint32_t make_token(
    Dictionary* dictionary, uint64_t hash, const uint8_t* text, uint16_t length, uint16_t kind) except? 0xFFFFFFFF
cdef void drop_token(Dictionary* dictionary, uint32_t number) noexcept
cdef int move_texts(Dictionary* dictionary) except? -1
