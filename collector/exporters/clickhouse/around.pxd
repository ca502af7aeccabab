# What stands around records, as columns have it. What is promised stands in around.py.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from collector.exporters.fields.records cimport Metric, Scope
from collector.exporters.text cimport Text
from collector.otlp.wire cimport Extent

cdef enum:  # columns of groups
    ENVELOPE = 0
    SERVICE = 2
    RESOURCE = 4
    SCOPE_ENVELOPE = 6
    SCOPE = 8
    METRIC = 10
    TEMPORALITY = 12
    MONOTONIC = 13
    PLACES = 14

cdef class Around:
    # Of the group at hand:
    cdef Extent service
    cdef Extent resource_schema_url
    cdef Text resource_keys
    cdef Text resource_values
    cdef uint64_t resource_pairs
    cdef Scope scope
    cdef Extent scope_schema_url
    cdef Text scope_keys
    cdef Text scope_values
    cdef uint64_t scope_pairs
    cdef Metric metric
    cdef uint8_t temporality
    cdef uint8_t monotonic
    cdef Text container  # a request without records
    # How it is found:
    cdef bint keeps
    cdef const uint8_t[::1] payload
    cdef const uint8_t[::1] table  # the columns of the block's groups
    cdef Py_ssize_t places[14]  # where in it each begins
    cdef Extent envelope
    cdef Extent resource
    cdef Extent scope_envelope
    cdef Text outer  # the fields of the resource's envelope, and of the scope's, but for their children
    cdef Text inner
    cdef Text metric_fields
    cdef Text scratch
    cdef int begin(self, block) except? -1
    cdef int look_at(self, Py_ssize_t group, int kind) except? -1
    cdef Extent part(self, int column, Py_ssize_t group) noexcept
    cdef int put_metric(self, Extent message, uint32_t data) except? -1
    cdef int put_container(self, bint metric) except? -1
