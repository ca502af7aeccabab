# Messages from JSON to protobuf. What this promises stands in message.py.

from collector.otlp.json.fields cimport Field
from collector.otlp.json.scalar cimport Pass
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

cdef const uint8_t* read_message(Pass* p, const uint8_t* at, int number, int depth) noexcept

cdef inline bint is_key(const uint8_t* at, const uint8_t* end, const Field* field) noexcept nogil:
    """Tell whether a field's key stands here, quotes and all. False says nothing near the end of the text."""
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
