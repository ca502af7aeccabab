# The state of a pass from JSON to protobuf, and its scalars. What they promise stands in scalar.py.

from collector.otlp.json.fields cimport Field, Message
from collector.otlp.json.text cimport Text, copy_string
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcpy

cdef enum:  # sizes
    DEEPEST = 100   # messages nested below the request, as many as the protobuf library accepts
    LEVELS = 102    # entries for the request, those below it, and a field of the last
    SPARE = 1024    # bytes of room beyond the length of the text that is left: see `has_room`
    SCRATCH = 16    # bytes between what is written and what is unescaped beyond it

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
    const uint8_t* unfit       # where the last value begins when its field cannot hold it, or NULL
    const uint8_t* wanted      # the unfit value that the pass shall end at, or NULL; and then
    int reason                 #   what is wrong with it,
    int steps                  #   the length of its path,
    const Message* message     #   and the message whose fields
    uint32_t exclusive         #   exclude each other, a bit each
    uint8_t* base              # the protobuf bytes,
    uint8_t* out               # their end,
    uint8_t* limit             # and that of their room
    const Field* fields
    const Message* messages
    uint16_t next[512]         # of fields.FIELDS: the field that came behind a field last time
    uint16_t path[102]         # of LEVELS: at each depth the field being read
    Py_ssize_t element[102]    # of LEVELS: and its element, or -1

cdef bint grow(Pass* p, Py_ssize_t least) noexcept nogil
cdef const uint8_t* misfit(Pass* p, const uint8_t* at, int reason, int steps) noexcept nogil
cdef const uint8_t* unescape(
    Pass* p, const uint8_t* at, const uint8_t** start, const uint8_t** stop) noexcept nogil
cdef void lengthen(Pass* p, uint8_t* body) noexcept nogil
cdef const uint8_t* read_scalar(Pass* p, const uint8_t* at, const Field* field, int steps) noexcept

cdef inline bint has_room(Pass* p, const uint8_t* at) noexcept nogil:
    """Make room for all that is written before the next call; false when there is no memory.

    Strings take no more than the text that is left. Everything else is within SPARE: a tag, a number, a length,
    up to 4 bytes for the length of each message that ends, and what a string's copy overshoots.
    """
    return p.limit - p.out >= p.text.end - at + SPARE or grow(p, p.text.end - at + SPARE)

cdef inline void put_tag(Pass* p, const Field* field) noexcept nogil:
    memcpy(p.out, &field.tag, 4)
    p.out += field.tag_length

cdef inline const uint8_t* read_string(Pass* p, const uint8_t* at) noexcept nogil:
    """Read a string, from its quote on, into its length and its bytes."""
    cdef uint8_t* body = p.out + 1
    cdef uint8_t* out = body
    at = copy_string(&p.text, at + 1, &out)
    p.out = out
    if out - body < 128:
        body[-1] = <uint8_t>(out - body)
    else:
        lengthen(p, body)
    return at
