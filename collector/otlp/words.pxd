# Words of texts. What they promise stands in words.py.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    WORD_BYTES = 64  # of a folded word that is one; longer ones are only told of

cdef struct Word:
    uint64_t hash      # wire.key_of its bytes
    uint32_t begin     # its folded bytes, in `folded`
    uint16_t length
    uint16_t kind

cdef struct Words:  # to be zeroed first; `release_words` gives back what it holds
    Word* word
    Py_ssize_t count
    Py_ssize_t room
    uint8_t* folded
    Py_ssize_t used
    Py_ssize_t bytes_room
    int flags

cdef bint text_words(Words* words, const uint8_t* at, Py_ssize_t length, int kind) noexcept nogil
cdef void release_words(Words* words) noexcept nogil
cdef Py_ssize_t fold_text(const uint8_t* at, Py_ssize_t length, uint8_t* out) noexcept nogil
