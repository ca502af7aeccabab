# Columns under construction. What they are stands in sheet.py.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from collector.exporters.jsontext cimport Text
from collector.otlp.wire cimport Extent

cdef enum:  # buffers; a map has three: offsets, keys, values
    RESOURCE = 0
    SCOPE = 3
    ATTRIBUTES = 6
    EVENT_MAP = 9
    LINK_MAP = 12
    EXEMPLAR_MAP = 15
    SERVICE = 18
    RESOURCE_SCHEMA = 19
    SCOPE_NAME = 20
    SCOPE_VERSION = 21
    SCOPE_SCHEMA = 22
    SCOPE_DROPPED = 23
    TIME = 24
    OTHER_TIME = 25  # a span's duration, a point's start time
    TRACE_ID = 26
    SPAN_ID = 27
    FLAGS = 28
    OFFSET = 29
    RECORD = 30
    CONTAINER = 31
    PARENT = 32
    STATE = 33
    NAME = 34
    KIND = 35
    STATUS = 36
    MESSAGE = 37
    EVENTS = 38  # offsets
    EVENT_TIME = 39
    EVENT_NAME = 40
    LINKS = 41  # offsets
    LINK_TRACE_ID = 42
    LINK_SPAN_ID = 43
    LINK_STATE = 44
    SEVERITY_TEXT = 45
    SEVERITY = 46
    BODY = 47
    METRIC = 48
    DESCRIPTION = 49
    UNIT = 50
    VALUE = 51
    COUNT = 52
    SUM = 53
    MIN = 54
    MAX = 55
    TEMPORALITY = 56
    MONOTONIC = 57
    BUCKETS = 58  # offsets, then numbers
    BOUNDS = 60
    NEGATIVE = 62
    SCALE = 64
    ZERO_COUNT = 65
    POSITIVE_OFFSET = 66
    NEGATIVE_OFFSET = 67
    EXEMPLARS = 68  # offsets
    EXEMPLAR_TIME = 69
    EXEMPLAR_VALUE = 70
    EXEMPLAR_SPAN_ID = 71
    EXEMPLAR_TRACE_ID = 72
    QUANTILES = 73  # offsets, then quantiles, then values
    SCRATCH = 76
    GROUP_RESOURCE_KEYS = 77
    GROUP_RESOURCE_VALUES = 78
    GROUP_SCOPE_KEYS = 79
    GROUP_SCOPE_VALUES = 80
    GROUP_OUTER = 81  # the fields of the resource's envelope, of the scope's, and of the metric, but for their children
    GROUP_INNER = 82
    GROUP_METRIC = 83
    GROUP_CONTAINER = 84
    TEXTS = 85

cdef enum:
    # Columns of groups, each a start and then a length: _GROUP_COLUMNS.
    ENVELOPE = 0
    SERVICE_NAME = 2
    RESOURCE_MESSAGE = 4
    SCOPE_ENVELOPE = 6
    SCOPE_MESSAGE = 8
    METRIC_MESSAGE = 10
    TEMPORALITY_BYTE = 12
    MONOTONIC_BYTE = 13
    PLACED = 14

cdef struct Group:
    Extent service
    Extent resource_schema
    Extent scope_name
    Extent scope_version
    Extent scope_schema
    Extent metric
    Extent description
    Extent unit
    uint32_t scope_dropped
    uint64_t resource_pairs
    uint64_t scope_pairs
    int32_t temporality
    uint8_t monotonic

cdef class Sheet:
    cdef Text text[85]
    cdef uint64_t total[85]  # how many elements an offsets buffer has counted
    cdef readonly Py_ssize_t count
    cdef readonly bint keeps
    cdef Group group
    cdef Py_ssize_t envelope_at  # where what the group has was found, in the block at hand
    cdef Py_ssize_t scope_at
    cdef Extent resource
    cdef const uint8_t[::1] table  # the columns of the block's groups
    cdef Py_ssize_t place[14]  # where in it each begins
    cdef int begin(self, block) except? -1
    cdef uint32_t word(self, int column, Py_ssize_t group) noexcept
    cdef bint is_resource(self, Extent message) noexcept
    cdef int add_group(self, const uint8_t* base, Py_ssize_t group, int kind) except? -1
    cdef int put_container(self, int kind) except? -1
    cdef int put_common(self, const uint8_t* record, uint32_t length, uint64_t offset) except? -1
    cdef int put_pairs(self, int to, const uint8_t* at, const uint8_t* end, uint32_t field) except? -1
    cdef int put_event(self, Extent message) except? -1
    cdef int put_link(self, Extent message) except? -1
    cdef int put_exemplar(self, Extent message) except? -1
    cdef int put_quantile(self, Extent message) except? -1
    cdef int put_buckets(self, int to, int offset_to, Extent message) except? -1
    cdef int end_row(self, int to) except? -1
