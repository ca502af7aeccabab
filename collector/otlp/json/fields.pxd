# OTLP's fields by their JSON names. What this promises stands in fields.py.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:  # kinds of field
    MESSAGE = 0
    STRING = 1
    HEXADECIMAL = 2
    BASE64 = 3
    BOOL = 4
    DOUBLE = 5
    ENUM = 6
    VARINT = 7
    ZIGZAG = 8
    FIXED32 = 9
    FIXED64 = 10

cdef enum:  # sizes
    FIELDS = 512          # fields in the table, and an entry for the beginning of each message
    MESSAGES = 64         # message types
    MESSAGE_FIELDS = 32   # one more than the fields of a message type: each has a bit in 32
    KEY_BYTES = 32        # a key with its quotes
    ONEOFS = 4            # oneofs of a message type
    SLOTS = 64            # of a message type's table of keys
    WORDS = 128           # names of the values of enums

cdef struct Field:
    uint64_t key[4]       # the JSON name in quotes, padded with 0
    uint64_t mask[4]      # its bytes
    uint32_t key_length
    uint32_t tag          # the wire form's tag; of repeated numbers that of the packed form
    uint64_t lowest       # how far below 0 an integer may be
    uint64_t highest
    uint16_t chained      # the next field in the same slot of the table of keys, or 0
    uint8_t tag_length
    uint8_t kind
    uint8_t child         # the message type of a message
    bint repeated
    bint is_pair          # its message is a KeyValue
    bint explicit         # it may be there with its type's default value
    uint16_t words        # of an enum: where the names of its values begin, from 0 on,
    uint16_t word_count   #   and how many there are

cdef struct Message:
    uint16_t first        # the entry of its beginning; its fields follow
    uint32_t oneofs[5]    # bits of the fields of which only one may be given, and then a 0
    uint16_t slot[64]     # by `slot_of` a key: its first field, or 0
    uint8_t place[32]     # by its number: a field's place behind the first entry, or 0
    uint8_t count         # its fields

cdef const Field* all_fields() noexcept nogil
cdef const Message* all_messages() noexcept nogil
cdef const char** all_words() noexcept nogil
cdef int request_of(int code) noexcept nogil
cdef const uint16_t* usual_order() noexcept nogil

cdef inline int slot_of(const uint8_t* key, Py_ssize_t length) noexcept nogil:
    """Return the slot of a key, without its quotes and not empty."""
    return (key[0] + key[length - 1] * 5 + <int>length * 7) & (SLOTS - 1)
