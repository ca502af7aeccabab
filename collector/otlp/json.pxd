# The pass from JSON to protobuf. What it promises stands in json.py.

from collector.otlp.fields cimport Field, Message
from collector.otlp.text cimport Text
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef enum:  # sizes
    DEEPEST = 100    # messages nested below the request, as many as the protobuf library accepts
    SPARE = 1024     # bytes of room beyond the length of the text that is left: tags, lengths, a number

cdef enum:  # what is wrong with a value that its field cannot hold
    NO_OBJECT = 1
    NO_ARRAY = 2
    NO_STRING = 3
    NO_HEXADECIMAL = 4
    NO_BASE64 = 5
    NO_BOOL = 6
    NO_NUMBER = 7
    NO_INTEGER = 8
    NO_ENUM = 9
    OUT_OF_RANGE = 10
    EXCLUSIVE = 11
    TOO_DEEP = 12

cdef struct Pass:
    Text text
    const uint8_t* unfit       # where a value begins that its field cannot hold; NULL when the last one was fit
    const uint8_t* wanted      # the unfit value whose path is wanted, or NULL
    int reason                 # what is wrong with it,
    int steps                  # the length of its path,
    uint32_t given             # and the fields of the message that exclude each other
    uint8_t* base              # the protobuf bytes,
    uint8_t* out               # their end,
    uint8_t* limit             # and that of their room
    const Field* fields
    const Message* messages
    uint16_t next[512]         # of FIELDS: what came behind a field, or a message's beginning, last time
    uint8_t prefix[512]        # of FIELDS: bytes of a message's last length
    uint16_t path[102]         # at each depth the field being read
    Py_ssize_t element[102]    # and its element, or -1

cdef inline bint is_key(const uint8_t* at, const uint8_t* end, const Field* field) noexcept nogil:
    """Tell whether a field's key stands here. False says nothing near the end of the text."""
    cdef uint64_t word
    if end - at < 32:
        return False
    memcpy(&word, at, 8)
    if (word ^ field.key[0]) & field.mask[0]:
        return False
    if field.key_length <= 8:
        return True
    memcpy(&word, at + 8, 8)
    if (word ^ field.key[1]) & field.mask[1]:
        return False
    if field.key_length <= 16:
        return True
    memcpy(&word, at + 16, 8)
    if (word ^ field.key[2]) & field.mask[2]:
        return False
    memcpy(&word, at + 24, 8)
    return (word ^ field.key[3]) & field.mask[3] == 0
