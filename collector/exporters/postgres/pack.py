# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Records as rows in the binary form of COPY, compiled, straight out of a block.

    header    "PGCOPY\\n\\xff\\r\\n\\0", and 8 bytes of 0
    a row     its number of fields (int16), then for each its length (int32, -1 for NULL) and its bytes
    trailer   -1 (int16)

All is big endian (PostgreSQL's documentation, COPY, binary format). `COLUMNS` of copying.py has the columns in the order in
which they are written here, values.py how each field is.

The GIL is held: a thousand rows take about a millisecond, so add a block in runs of that length.
"""

import cython
from cython.cimports.collector.exporters.fields.elements import STRING_VALUE, AnyValue, Repeated, read_value
from cython.cimports.collector.exporters.fields.points import DOUBLE, HISTOGRAM, INTEGER, NO_VALUE, Point, read_point
from cython.cimports.collector.exporters.fields.records import LogRecord, Span, check_rows, read_log, read_span
from cython.cimports.collector.exporters.jsonparts import put_distribution, put_events, put_exemplars, put_links
from cython.cimports.collector.exporters.jsontext import put_any, put_object
from cython.cimports.collector.exporters.postgres.values import (
    begin_field,
    begin_json,
    end_field,
    end_json,
    is_irregular,
    put_bool,
    put_bytes,
    put_double,
    put_id,
    put_int2,
    put_int4,
    put_int8,
    put_null,
    put_number,
    put_text,
    put_time,
)
from cython.cimports.collector.exporters.text import Text, as_bytes, as_str, put, release
from cython.cimports.collector.otlp.wire import Extent
from cython.cimports.cpython.bytes import PyBytes_AS_STRING, PyBytes_GET_SIZE
from cython.cimports.libc.stdint import int32_t, uint8_t, uint32_t, uint64_t

HEADER: bytes = b"PGCOPY\n\xff\r\n\0" + bytes(8)

_Bytes = cython.typedef(cython.pointer(cython.const[uint8_t]))
_SPAN_FIELDS = cython.declare(cython.int, 25)
_LOG_FIELDS = cython.declare(cython.int, 18)
_POINT_FIELDS = cython.declare(cython.int, 22)


@cython.cfunc
@cython.exceptval(-1)
def _put_content(out: cython.pointer(Text), content: bytes) -> cython.int:
    return put_bytes(out, cython.cast(_Bytes, PyBytes_AS_STRING(content)), PyBytes_GET_SIZE(content))


@cython.cfunc
@cython.exceptval(-1)
def _put_body(out: cython.pointer(Text), body: Extent) -> cython.int:
    """Append a string as it is, any other value as JSON."""
    begin: cython.Py_ssize_t
    value: AnyValue
    if not body.length:
        return put_null(out)
    value = read_value(body)
    if value.tag == STRING_VALUE:
        return put_text(out, value.content)
    begin = begin_field(out)
    put_any(out, body, 0)
    end_field(out, begin)
    return 0


@cython.cclass
class Rows:
    """What COPY is sent to one table, under construction. Owner: one thread at a time."""

    out: Text
    source: int32_t
    # of the block at hand
    payload: cython.const[uint8_t][::1]
    starts: cython.const[uint32_t][::1]
    lengths: cython.const[uint32_t][::1]
    groups: cython.const[uint32_t][::1]
    times: cython.const[uint64_t][::1]
    service_starts: cython.const[uint32_t][::1]
    service_lengths: cython.const[uint32_t][::1]
    containers: list
    base_offset: uint64_t

    def __cinit__(self, source: int):
        header: bytes = HEADER
        self.out.at = cython.NULL
        self.out.length = self.out.room = 0
        self.source = source
        put(cython.address(self.out), cython.cast(_Bytes, PyBytes_AS_STRING(header)), PyBytes_GET_SIZE(header))

    def __dealloc__(self):
        release(cython.address(self.out))

    def take(self) -> bytes:
        """Return everything that COPY is sent; nothing can be added any more."""
        put_number(cython.address(self.out), 0xFFFF, 2)
        return as_bytes(cython.address(self.out))

    @cython.cfunc
    @cython.exceptval(-1)
    def begin(self, block, first: cython.Py_ssize_t, end: cython.Py_ssize_t, containers: list) -> cython.int:
        """Turn to these rows of a block."""
        check_rows(block, first, end)
        if len(containers) != block.groups.count:
            raise ValueError(f"{len(containers)} containers of {block.groups.count} groups")
        self.payload = block.payload
        self.starts = block.column("start")
        self.lengths = block.column("length")
        self.groups = block.column("group")
        self.times = block.column("time")
        self.service_starts = block.group_column("service_start")
        self.service_lengths = block.group_column("service_length")
        self.containers = containers
        self.base_offset = block.base_offset
        return 0

    @cython.cfunc
    @cython.exceptval(check=False)
    def record(self, row: cython.Py_ssize_t) -> Extent:
        """Return a record's bytes."""
        found: Extent
        found.at = cython.address(self.payload[0]) + self.starts[row]
        found.length = self.lengths[row]
        return found

    @cython.cfunc
    @cython.exceptval(-1)
    def begin_row(
        self, row: cython.Py_ssize_t, width: cython.int, record: Extent, attributes: Repeated, flags: uint32_t
    ) -> cython.int:
        """Write the first fields of a row of so many, which all tables have."""
        out: cython.pointer(Text) = cython.address(self.out)
        service: Extent
        group: cython.Py_ssize_t = self.groups[row]
        begin: cython.Py_ssize_t
        lossy: cython.bint
        put_number(out, width, 2)
        put_time(out, self.times[row])
        put_int2(out, cython.cast(uint32_t, self.times[row] % 1000))
        put_int4(out, cython.cast(uint32_t, self.source))
        put_int8(out, self.base_offset + row)
        _put_content(out, self.containers[group])
        service.at = cython.address(self.payload[0]) + self.service_starts[group]
        service.length = self.service_lengths[group]
        put_text(out, service)
        begin = begin_json(out)
        put_object(out, attributes, 0)
        lossy = is_irregular(out.at + begin + 1, out.at + out.length)
        end_json(out, begin)
        put_bool(out, lossy)
        put_int8(out, flags)
        return put_bytes(out, record.at, record.length)

    def add_spans(self, block, first: int, end: int, containers: list) -> list:
        """Add the rows [first, end) of a block of spans, and return their names; `containers` has the id of each group's
        container."""
        self.begin(block, first, end, containers)
        out: cython.pointer(Text) = cython.address(self.out)
        ends: cython.const[uint64_t][::1] = block.column("end_time")
        trace_ids: cython.const[uint8_t][::1] = block.records.column_bytes("trace_id")
        span_ids: cython.const[uint8_t][::1] = block.records.column_bytes("span_id")
        parents: cython.const[uint8_t][::1] = block.records.column_bytes("parent_span_id")
        kinds: cython.const[uint8_t][::1] = block.column("kind")
        statuses: cython.const[uint8_t][::1] = block.column("status")
        i: cython.Py_ssize_t
        begin: cython.Py_ssize_t
        record: Extent
        span: Span
        names: list = []
        for i in range(first, end):
            record = self.record(i)
            read_span(cython.address(span), record.at, record.at + record.length)
            self.begin_row(i, _SPAN_FIELDS, record, span.attributes, span.flags)
            put_id(out, cython.address(trace_ids[16 * i]), 16)
            put_id(out, cython.address(span_ids[8 * i]), 8)
            put_id(out, cython.address(parents[8 * i]), 8)
            put_text(out, span.trace_state)
            put_text(out, span.name)
            put_int2(out, kinds[i])
            put_time(out, ends[i])
            put_int8(out, ends[i] - self.times[i])
            put_int2(out, statuses[i])
            put_text(out, span.status_message)
            if span.events.count:
                begin = begin_json(out)
                put_events(out, span.events)
                end_json(out, begin)
            else:
                put_null(out)
            if span.links.count:
                begin = begin_json(out)
                put_links(out, span.links)
                end_json(out, begin)
            else:
                put_null(out)
            put_int8(out, span.dropped_attributes_count)
            put_int8(out, span.dropped_events_count)
            put_int8(out, span.dropped_links_count)
            names.append(as_str(span.name.at, span.name.length))
        return names

    def add_logs(self, block, first: int, end: int, containers: list) -> None:
        """Add the rows [first, end) of a block of log records; `containers` has the id of each group's container."""
        self.begin(block, first, end, containers)
        out: cython.pointer(Text) = cython.address(self.out)
        observed: cython.const[uint64_t][::1] = block.column("observed_time")
        trace_ids: cython.const[uint8_t][::1] = block.records.column_bytes("trace_id")
        span_ids: cython.const[uint8_t][::1] = block.records.column_bytes("span_id")
        severities: cython.const[uint8_t][::1] = block.column("severity")
        i: cython.Py_ssize_t
        record: Extent
        log: LogRecord
        for i in range(first, end):
            record = self.record(i)
            read_log(cython.address(log), record.at, record.at + record.length)
            self.begin_row(i, _LOG_FIELDS, record, log.attributes, log.flags)
            put_time(out, observed[i])
            put_id(out, cython.address(trace_ids[16 * i]), 16)
            put_id(out, cython.address(span_ids[8 * i]), 8)
            put_int2(out, severities[i])
            put_text(out, log.severity_text)
            put_text(out, log.event_name)
            _put_body(out, log.body)
            put_int8(out, log.dropped_attributes_count)

    def add_points(self, block, first: int, end: int, containers: list, metrics: list) -> None:
        """Add the rows [first, end) of a block of data points; `containers` and `metrics` have the ids of each group's."""
        self.begin(block, first, end, containers)
        out: cython.pointer(Text) = cython.address(self.out)
        types: cython.const[uint8_t][::1] = block.column("type")
        start_times: cython.const[uint64_t][::1] = block.column("start_time")
        flags: cython.const[uint32_t][::1] = block.column("flags")
        name_starts: cython.const[uint32_t][::1] = block.group_column("name_start")
        name_lengths: cython.const[uint32_t][::1] = block.group_column("name_length")
        i: cython.Py_ssize_t
        group: cython.Py_ssize_t
        begin: cython.Py_ssize_t
        record: Extent
        name: Extent
        point: Point
        for i in range(first, end):
            record = self.record(i)
            group = self.groups[i]
            read_point(cython.address(point), record.at, record.at + record.length, types[i])
            self.begin_row(i, _POINT_FIELDS, record, point.attributes, flags[i])
            _put_content(out, metrics[group])
            name.at = cython.address(self.payload[0]) + name_starts[group]
            name.length = name_lengths[group]
            put_text(out, name)
            put_int2(out, types[i])
            put_time(out, start_times[i])
            if point.value_type == INTEGER:
                point.as_double = cython.cast(cython.double, point.as_int)
            put_double(out, point.value_type != NO_VALUE, point.as_double)
            if point.value_type == INTEGER:
                put_int8(out, cython.cast(uint64_t, point.as_int))
            else:
                put_null(out)
            put_double(out, types[i] >= HISTOGRAM, cython.cast(cython.double, point.count))
            put_double(out, point.has_sum, point.sum)
            put_double(out, point.has_min, point.min)
            put_double(out, point.has_max, point.max)
            if types[i] >= HISTOGRAM:
                begin = begin_json(out)
                put_distribution(out, cython.address(point), types[i])
                end_json(out, begin)
            else:
                put_null(out)
            if point.exemplars.count:
                begin = begin_json(out)
                put_exemplars(out, point.exemplars)
                end_json(out, begin)
            else:
                put_null(out)
