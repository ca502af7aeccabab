# Data points. What is promised stands in points.py.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from collector.exporters.fields.elements cimport Repeated
from collector.otlp.wire cimport Extent

cdef enum:  # types, as in otlp/block.py
    GAUGE = 1
    SUM = 2
    HISTOGRAM = 3
    EXPONENTIAL_HISTOGRAM = 4
    SUMMARY = 5

cdef enum:  # types of values, the same
    NO_VALUE = 0
    DOUBLE = 1
    INTEGER = 2

cdef struct Buckets:
    int32_t offset
    Extent counts  # varints: `next_count`

cdef struct Point:
    int value_type
    double as_double
    int64_t as_int
    uint64_t count
    double sum
    double min
    double max
    bint has_sum
    bint has_min
    bint has_max
    Extent bucket_counts  # of 64 bits each
    Extent explicit_bounds  # doubles
    int32_t scale
    uint64_t zero_count
    double zero_threshold
    Buckets positive
    Buckets negative
    Repeated quantiles
    Repeated exemplars
    Repeated attributes

cdef struct Quantile:
    double quantile
    double value

cdef struct Exemplar:
    uint64_t time
    int value_type
    double as_double
    int64_t as_int
    Extent trace_id
    Extent span_id
    Repeated attributes

cdef void read_point(Point* point, const uint8_t* at, const uint8_t* end, int kind) noexcept nogil
cdef bint next_count(Extent* counts, uint64_t* count) noexcept nogil
cdef void read_quantile(Quantile* quantile, Extent message) noexcept nogil
cdef void read_exemplar(Exemplar* exemplar, Extent message) noexcept nogil
