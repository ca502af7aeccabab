# The walk's table of fields and what it leaves behind. What they promise stands in walk.py.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef enum:  # kinds of field
    UNKNOWN = 0
    VARINT = 1
    FIXED64 = 2
    FIXED32 = 3
    BYTES = 4
    STRING = 5
    MESSAGE = 6
    PACKED_VARINT = 7
    PACKED64 = 8
    PACKED32 = 9
    DEFERRED = 10  # a message that the walk of its container steps over

cdef enum:  # sizes
    FIELDS = 32      # field numbers in a row of the field table; no OTLP message has a larger one
    MESSAGES = 64    # message types in the field table
    SLOTS = 32       # captured fields
    FIRST_RECORD_SLOT = 8

cdef enum:  # slots: fields that become columns; below FIRST_RECORD_SLOT those of containers
    NOTHING = 0
    RESOURCE = 1
    SCOPE = 2
    METRIC_NAME = 3
    UNIT = 4
    TEMPORALITY = 5
    MONOTONIC = 6
    STRINDEX = 7     # a field that only profiles give a meaning, anywhere in the request
    TRACE_ID = 8
    SPAN_ID = 9
    PARENT_SPAN_ID = 10
    NAME = 11
    KIND = 12
    STATUS = 13
    TIME = 14
    OTHER_TIME = 15  # a span's end, a log record's observed time, a point's start time
    BODY = 16
    SEVERITY = 17
    AS_DOUBLE = 18
    AS_INT = 19
    TOTAL = 20
    FLAGS = 21
    BUCKET_COUNTS = 22
    BOUNDS = 23
    ATTRIBUTES = 24  # not an extent: a key of all attributes in their order
    EXEMPLARS = 25
    EXEMPLAR_VALUE = 26
    LACKING = 27     # not a field: an exemplar of the record has no value

cdef enum:  # failures
    FINE = 0
    TRUNCATED = 1
    BAD_TAG = 2
    BAD_VARINT = 3
    BAD_LENGTH = 4
    BAD_UTF8 = 5
    TOO_DEEP = 6
    BAD_GROUP = 7
    BAD_PACKED = 8
    TOO_LARGE = 9
    NO_MEMORY = 10

cdef struct Scan:
    const uint8_t* base     # position 0 of extents: the start of the payload
    const uint8_t* at       # where the failure is
    int failure
    bint merged             # it holds something that only the protobuf library can merge
    uint32_t has            # slots captured, a bit each
    uint64_t value[32]      # a number, or the position of an extent
    uint32_t length[32]     # the length of an extent

cdef bint walk(Scan* scan, const uint8_t* at, const uint8_t* end, int message, int depth) noexcept nogil
cdef bint fail(Scan* scan, const uint8_t* at, int failure) noexcept nogil
cdef int root_of(int code) noexcept nogil
cdef int child_of(int message, int field) noexcept nogil
