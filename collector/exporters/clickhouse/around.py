# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""What stands around the records of a group (resource, scope, metric), as ClickHouse's columns have it, compiled: made once a
group, and copied into each of its rows.

Small requests have a group each, often with the resource of the one before: what the last group had, too, is not made again.
"""

import cython
from cython.cimports.collector.exporters.clickhouse.around import (
    ENVELOPE,
    METRIC,
    MONOTONIC,
    PLACES,
    RESOURCE,
    SCOPE,
    SCOPE_ENVELOPE,
    SERVICE,
    TEMPORALITY,
)
from cython.cimports.collector.exporters.clickhouse.values import put_key_values, put_text
from cython.cimports.collector.exporters.fields.elements import field_of, next_of, repeated
from cython.cimports.collector.exporters.fields.elements import Repeated
from cython.cimports.collector.exporters.fields.records import read_metric, read_scope
from cython.cimports.collector.exporters.text import Text, put, put_byte, put_others, release
from cython.cimports.collector.otlp.wire import Extent, write_varint
from cython.cimports.libc.stdint import uint8_t, uint32_t, uint64_t
from cython.cimports.libc.string import memcmp, memcpy

from collector.otlp.records import data_field

_COLUMNS: tuple = (
    *("envelope_start", "envelope_length", "service_start", "service_length", "resource_start", "resource_length"),
    *("scope_envelope_start", "scope_envelope_length", "scope_start", "scope_length", "metric_start", "metric_length"),
    *("temporality", "monotonic"),
)


@cython.cclass
class Around:
    """See the module. Owner: a sheet."""

    def __cinit__(self, keeps: bool):
        self.keeps = keeps

    def __dealloc__(self):
        release(cython.address(self.resource_keys))
        release(cython.address(self.resource_values))
        release(cython.address(self.scope_keys))
        release(cython.address(self.scope_values))
        release(cython.address(self.container))
        release(cython.address(self.outer))
        release(cython.address(self.inner))
        release(cython.address(self.metric_fields))
        release(cython.address(self.scratch))

    @cython.cfunc
    @cython.exceptval(-1)
    def begin(self, block) -> cython.int:
        """Get ready for a block: where its groups' columns lie."""
        self.envelope.at = self.scope_envelope.at = self.resource.at = cython.NULL
        self.payload = block.payload
        self.table = block.groups.buffer
        columns = block.groups.layout.columns
        count: cython.Py_ssize_t = block.groups.count
        i: cython.int
        for i in range(PLACES):
            found = columns.get(_COLUMNS[i])
            self.places[i] = 0 if found is None else found[1] * count
        return 0

    @cython.cfunc
    @cython.exceptval(check=False)
    def part(self, column: cython.int, group: cython.Py_ssize_t) -> Extent:
        """Return a part of the payload that columns of groups name."""
        found: Extent
        start: uint32_t = 0
        memcpy(cython.address(start), cython.address(self.table[self.places[column] + 4 * group]), 4)
        memcpy(cython.address(found.length), cython.address(self.table[self.places[column + 1] + 4 * group]), 4)
        found.at = cython.address(self.payload[0]) + start
        return found

    @cython.cfunc
    @cython.exceptval(-1)
    def look_at(self, group: cython.Py_ssize_t, kind: cython.int) -> cython.int:
        """Turn to a group; `kind` is the type of its data points, else 0."""
        message: Extent = self.part(ENVELOPE, group)
        if message.at != self.envelope.at:
            self.envelope = message
            self.outer.length = 0
            put_others(cython.address(self.outer), message, 2)
            self.resource_schema_url = field_of(message, 3)
            self.service = self.part(SERVICE, group)
            message = self.part(RESOURCE, group)
            if not _alike(message, self.resource):
                self.resource = message
                self.resource_keys.length = self.resource_values.length = 0
                self.resource_pairs = put_key_values(
                    cython.address(self.resource_keys),
                    cython.address(self.resource_values),
                    cython.address(self.scratch),
                    repeated(message, 1),
                )
        message = self.part(SCOPE_ENVELOPE, group)
        if message.at != self.scope_envelope.at:
            self.scope_envelope = message
            self.inner.length = 0
            put_others(cython.address(self.inner), message, 2)
            self.scope_schema_url = field_of(message, 3)
            read_scope(cython.address(self.scope), self.part(SCOPE, group))
            self.scope_keys.length = self.scope_values.length = 0
            self.scope_pairs = put_key_values(
                cython.address(self.scope_keys),
                cython.address(self.scope_values),
                cython.address(self.scratch),
                self.scope.attributes,
            )
        if kind:
            message = self.part(METRIC, group)
            read_metric(cython.address(self.metric), message)
            self.temporality = self.table[self.places[TEMPORALITY] + group]
            self.monotonic = self.table[self.places[MONOTONIC] + group]
            if self.keeps:
                self.put_metric(message, data_field(kind))
        return self.put_container(kind != 0) if self.keeps else 0

    @cython.cfunc
    @cython.exceptval(-1)
    def put_metric(self, message: Extent, data: uint32_t) -> cython.int:
        """Write the fields of a metric whose data is that field, without its points."""
        out: cython.pointer(Text) = cython.address(self.metric_fields)
        datas: Repeated = repeated(message, data)
        content: Extent
        out.length = self.scratch.length = 0
        put_others(out, message, data)
        while next_of(cython.address(datas), cython.address(content)):
            put_others(cython.address(self.scratch), content, 1)
        put_byte(out, cython.cast(uint8_t, data << 3 | 2))
        return put_text(out, self.scratch.at, self.scratch.length)

    @cython.cfunc
    @cython.exceptval(-1)
    def put_container(self, metric: cython.bint) -> cython.int:
        """Write what stands around the group's records as a request without records."""
        inner: cython.pointer(Text) = cython.address(self.scratch)
        whole: cython.pointer(Text) = cython.address(self.container)
        head: uint8_t[10]
        inner.length = whole.length = 0
        put(inner, self.inner.at, self.inner.length)
        if metric:
            put_byte(inner, 18)
            put_text(inner, self.metric_fields.at, self.metric_fields.length)
        length: cython.Py_ssize_t = write_varint(head, cython.cast(uint64_t, inner.length)) - head
        length += 1 + inner.length + self.outer.length
        put_byte(whole, 10)
        put(whole, head, write_varint(head, cython.cast(uint64_t, length)) - head)
        put(whole, self.outer.at, self.outer.length)
        put_byte(whole, 18)
        return put_text(whole, inner.at, inner.length)


@cython.cfunc
@cython.exceptval(check=False)
def _alike(one: Extent, other: Extent) -> cython.bint:
    """Tell whether two messages are the same, byte for byte; what begins nowhere is like nothing."""
    if other.at == cython.NULL or one.length != other.length:
        return False
    return memcmp(one.at, other.at, one.length) == 0
