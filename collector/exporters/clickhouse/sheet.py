# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Records as ClickHouse's columns in memory, compiled, straight out of payload bytes: what an INSERT in its Native format
has.

A `Sheet` takes rows of blocks and appends each one's fields to buffers, one for each part of a column:

    numbers     little-endian, one after the other
    strings     a varint of the length, and the bytes
    arrays      the numbers of elements so far, 64 bits a row; then the elements as a column of their own
    maps        an array of keys and one of values with the same offsets

buffers.py says which of them make which column; native.py knows the columns' types and puts the insert together. No object is
made for a record.

values.py has how each value is written, around.py what all records of a group share.

The GIL is held: a thousand spans take about a millisecond, so add a block in runs of that length.
"""

import cython
from cython.cimports.collector.exporters.clickhouse.around import Around
from cython.cimports.collector.exporters.clickhouse.buffers import *  # noqa: F403
from cython.cimports.collector.exporters.clickhouse.values import (
    put_extent,
    put_float,
    put_id,
    put_key_values,
    put_kind,
    put_number,
    put_status,
    put_text,
    put_time,
    put_value,
)
from cython.cimports.collector.exporters.fields.elements import Repeated, next_of
from cython.cimports.collector.exporters.fields.points import (
    EXPONENTIAL_HISTOGRAM,
    HISTOGRAM,
    INTEGER,
    SUM,
    SUMMARY,
    Buckets,
    Exemplar,
    Point,
    Quantile,
    next_count,
    read_exemplar,
    read_point,
    read_quantile,
)
from cython.cimports.collector.exporters.fields.records import (
    Event,
    Link,
    LogRecord,
    Span,
    check_rows,
    read_event,
    read_link,
    read_log,
    read_span,
)
from cython.cimports.collector.exporters.text import Text, put, put_byte, release
from cython.cimports.collector.otlp.wire import Extent
from cython.cimports.cpython.bytes import PyBytes_FromStringAndSize
from cython.cimports.libc.stdint import uint8_t, uint32_t, uint64_t
from cython.cimports.libc.string import memset

_Bytes = cython.typedef(cython.pointer(cython.const[uint8_t]))


@cython.cclass
class Sheet:
    """Columns of one table under construction. Owner: one thread at a time."""

    def __cinit__(self, keeps: bool):
        memset(self.text, 0, TEXTS * cython.sizeof(Text))
        memset(self.total, 0, TEXTS * cython.sizeof(uint64_t))
        self.count = 0
        self.keeps = keeps
        self.around = Around(keeps)

    def __dealloc__(self):
        i: cython.int
        for i in range(TEXTS):
            release(cython.address(self.text[i]))

    def clear(self) -> None:
        """Begin anew, with the same buffers."""
        i: cython.int
        for i in range(TEXTS):
            self.text[i].length = 0
            self.total[i] = 0
        self.count = 0

    def take(self, place: int) -> bytes:
        """Return what a buffer holds."""
        if not 0 <= place < TEXTS:
            raise IndexError(place)
        i: cython.int = place
        if not self.text[i].length:
            return b""
        return PyBytes_FromStringAndSize(cython.cast(cython.p_char, self.text[i].at), self.text[i].length)

    # --- parts of rows --------------------------------------------------------------------------------------------

    @cython.cfunc
    @cython.exceptval(-1)
    def end_row(self, to: cython.int) -> cython.int:
        """Write how many elements an array has had so far."""
        return put_number(cython.address(self.text[to]), self.total[to], 8)

    @cython.cfunc
    @cython.exceptval(-1)
    def put_pairs(self, to: cython.int, pairs: Repeated) -> cython.int:
        """Append a row to the map at `to`."""
        self.total[to] += put_key_values(
            cython.address(self.text[to + 1]),
            cython.address(self.text[to + 2]),
            cython.address(self.text[SCRATCH]),
            pairs,
        )
        return self.end_row(to)

    @cython.cfunc
    @cython.exceptval(-1)
    def put_common(self, record: _Bytes, length: uint32_t, offset: uint64_t) -> cython.int:
        """Append to the columns that all tables have."""
        around: Around = self.around
        text: cython.pointer(Text) = self.text
        put(text + RESOURCE + 1, around.resource_keys.at, around.resource_keys.length)
        put(text + RESOURCE + 2, around.resource_values.at, around.resource_values.length)
        self.total[RESOURCE] += around.resource_pairs
        self.end_row(RESOURCE)
        put(text + SCOPE + 1, around.scope_keys.at, around.scope_keys.length)
        put(text + SCOPE + 2, around.scope_values.at, around.scope_values.length)
        self.total[SCOPE] += around.scope_pairs
        self.end_row(SCOPE)
        put_extent(text + SERVICE, around.service)
        put_extent(text + RESOURCE_SCHEMA, around.resource_schema_url)
        put_extent(text + SCOPE_NAME, around.scope.name)
        put_extent(text + SCOPE_VERSION, around.scope.version)
        put_extent(text + SCOPE_SCHEMA, around.scope_schema_url)
        put_number(text + OFFSET, offset, 8)
        if self.keeps:
            put_text(text + CONTAINER, around.container.at, around.container.length)
            put_text(text + RECORD, record, length)
        self.count += 1
        return 0

    # --- spans ----------------------------------------------------------------------------------------------------

    def add_spans(self, block, first: int, end: int) -> None:
        """Add the rows [first, end) of a block of spans."""
        check_rows(block, first, end)
        self.around.begin(block)
        view: cython.const[uint8_t][::1] = block.payload
        starts: cython.const[uint32_t][::1] = block.column("start")
        lengths: cython.const[uint32_t][::1] = block.column("length")
        groups: cython.const[uint32_t][::1] = block.column("group")
        times: cython.const[uint64_t][::1] = block.column("time")
        ends: cython.const[uint64_t][::1] = block.column("end_time")
        trace_ids: cython.const[uint8_t][::1] = block.records.column_bytes("trace_id")
        span_ids: cython.const[uint8_t][::1] = block.records.column_bytes("span_id")
        parents: cython.const[uint8_t][::1] = block.records.column_bytes("parent_span_id")
        kinds: cython.const[uint8_t][::1] = block.column("kind")
        statuses: cython.const[uint8_t][::1] = block.column("status")
        base_offset: uint64_t = block.base_offset
        text: cython.pointer(Text) = self.text
        row: cython.Py_ssize_t
        group: cython.Py_ssize_t = -1
        at: _Bytes
        span: Span
        for row in range(first, end):
            if groups[row] != group:
                group = groups[row]
                self.around.look_at(group, 0)
            at = cython.address(view[0]) + starts[row]
            read_span(cython.address(span), at, at + lengths[row])
            self.put_common(at, lengths[row], base_offset + row)
            put_time(text + TIME, times[row])
            put_number(text + OTHER_TIME, ends[row] - times[row] if ends[row] > times[row] else 0, 8)
            put_id(text + TRACE_ID, cython.address(trace_ids[16 * row]), 16)
            put_id(text + SPAN_ID, cython.address(span_ids[8 * row]), 8)
            put_id(text + PARENT, cython.address(parents[8 * row]), 8)
            put_extent(text + STATE, span.trace_state)
            put_extent(text + NAME, span.name)
            put_extent(text + MESSAGE, span.status_message)
            put_kind(text + KIND, kinds[row])
            put_status(text + STATUS, statuses[row])
            self.put_pairs(ATTRIBUTES, span.attributes)
            self.put_events(span.events)
            self.put_links(span.links)

    @cython.cfunc
    @cython.exceptval(-1)
    def put_events(self, events: Repeated) -> cython.int:
        """Append the events of a span."""
        event: Event
        content: Extent
        while next_of(cython.address(events), cython.address(content)):
            read_event(cython.address(event), content)
            put_time(cython.address(self.text[EVENT_TIME]), event.time)
            put_extent(cython.address(self.text[EVENT_NAME]), event.name)
            self.put_pairs(EVENT_MAP, event.attributes)
            self.total[EVENTS] += 1
        return self.end_row(EVENTS)

    @cython.cfunc
    @cython.exceptval(-1)
    def put_links(self, links: Repeated) -> cython.int:
        """Append the links of a span."""
        link: Link
        content: Extent
        while next_of(cython.address(links), cython.address(content)):
            read_link(cython.address(link), content)
            put_id(cython.address(self.text[LINK_TRACE_ID]), link.trace_id.at, link.trace_id.length)
            put_id(cython.address(self.text[LINK_SPAN_ID]), link.span_id.at, link.span_id.length)
            put_extent(cython.address(self.text[LINK_STATE]), link.trace_state)
            self.put_pairs(LINK_MAP, link.attributes)
            self.total[LINKS] += 1
        return self.end_row(LINKS)

    # --- log records ----------------------------------------------------------------------------------------------

    def add_logs(self, block, first: int, end: int) -> None:
        """Add the rows [first, end) of a block of log records."""
        check_rows(block, first, end)
        self.around.begin(block)
        view: cython.const[uint8_t][::1] = block.payload
        starts: cython.const[uint32_t][::1] = block.column("start")
        lengths: cython.const[uint32_t][::1] = block.column("length")
        groups: cython.const[uint32_t][::1] = block.column("group")
        times: cython.const[uint64_t][::1] = block.column("time")
        trace_ids: cython.const[uint8_t][::1] = block.records.column_bytes("trace_id")
        span_ids: cython.const[uint8_t][::1] = block.records.column_bytes("span_id")
        severities: cython.const[uint8_t][::1] = block.column("severity")
        base_offset: uint64_t = block.base_offset
        text: cython.pointer(Text) = self.text
        row: cython.Py_ssize_t
        group: cython.Py_ssize_t = -1
        at: _Bytes
        log: LogRecord
        for row in range(first, end):
            if groups[row] != group:
                group = groups[row]
                self.around.look_at(group, 0)
            at = cython.address(view[0]) + starts[row]
            read_log(cython.address(log), at, at + lengths[row])
            self.put_common(at, lengths[row], base_offset + row)
            put_time(text + TIME, times[row])
            put_id(text + TRACE_ID, cython.address(trace_ids[16 * row]), 16)
            put_id(text + SPAN_ID, cython.address(span_ids[8 * row]), 8)
            put_byte(text + FLAGS, cython.cast(uint8_t, log.flags & 0xFF))
            put_extent(text + SEVERITY_TEXT, log.severity_text)
            put_byte(text + SEVERITY, severities[row])
            put_value(text + BODY, text + SCRATCH, log.body)
            put_extent(text + NAME, log.event_name)
            self.put_pairs(ATTRIBUTES, log.attributes)

    # --- data points ----------------------------------------------------------------------------------------------

    def add_points(self, block, first: int, end: int, kind: int) -> None:
        """Add those of the rows [first, end) of a block of data points that are of a type."""
        check_rows(block, first, end)
        self.around.begin(block)
        view: cython.const[uint8_t][::1] = block.payload
        starts: cython.const[uint32_t][::1] = block.column("start")
        lengths: cython.const[uint32_t][::1] = block.column("length")
        groups: cython.const[uint32_t][::1] = block.column("group")
        times: cython.const[uint64_t][::1] = block.column("time")
        start_times: cython.const[uint64_t][::1] = block.column("start_time")
        flags: cython.const[uint32_t][::1] = block.column("flags")
        types: cython.const[uint8_t][::1] = block.column("type")
        base_offset: uint64_t = block.base_offset
        wanted: cython.int = kind
        around: Around = self.around
        text: cython.pointer(Text) = self.text
        row: cython.Py_ssize_t
        group: cython.Py_ssize_t = -1
        at: _Bytes
        point: Point
        for row in range(first, end):
            if types[row] != wanted:
                continue
            if groups[row] != group:
                group = groups[row]
                around.look_at(group, wanted)
            at = cython.address(view[0]) + starts[row]
            read_point(cython.address(point), at, at + lengths[row], wanted)
            self.put_common(at, lengths[row], base_offset + row)
            put_number(text + SCOPE_DROPPED, around.scope.dropped_attributes_count, 4)
            put_extent(text + METRIC, around.metric.name)
            put_extent(text + DESCRIPTION, around.metric.description)
            put_extent(text + UNIT, around.metric.unit)
            put_time(text + TIME, times[row])
            put_time(text + OTHER_TIME, start_times[row])
            put_number(text + FLAGS, flags[row], 4)
            self.put_pairs(ATTRIBUTES, point.attributes)
            if wanted != SUMMARY:
                self.put_exemplars(point.exemplars)
            if wanted == SUM or wanted == HISTOGRAM or wanted == EXPONENTIAL_HISTOGRAM:
                put_number(text + TEMPORALITY, around.temporality, 4)
            if wanted == SUM:
                put_byte(text + MONOTONIC, 1 if around.monotonic else 0)
            if wanted >= HISTOGRAM:
                self.put_distribution(cython.address(point), wanted)
            elif point.value_type == INTEGER:
                put_float(text + VALUE, cython.cast(cython.double, point.as_int))
            else:
                put_float(text + VALUE, point.as_double)

    @cython.cfunc
    @cython.exceptval(-1)
    def put_distribution(self, point: cython.pointer(Point), kind: cython.int) -> cython.int:
        """Append what histograms and summaries have."""
        text: cython.pointer(Text) = self.text
        put_number(text + COUNT, point.count, 8)
        put_float(text + SUM_OF_VALUES, point.sum)
        if kind == SUMMARY:
            return self.put_quantiles(point.quantiles)
        put_float(text + MIN, point.min)
        put_float(text + MAX, point.max)
        if kind == HISTOGRAM:
            self.put_packed(BUCKETS, point.bucket_counts)
            return self.put_packed(BOUNDS, point.explicit_bounds)
        put_number(text + SCALE, cython.cast(uint32_t, point.scale), 4)
        put_number(text + ZERO_COUNT, point.zero_count, 8)
        put_number(text + POSITIVE_OFFSET, cython.cast(uint32_t, point.positive.offset), 4)
        put_number(text + NEGATIVE_OFFSET, cython.cast(uint32_t, point.negative.offset), 4)
        self.put_counts(BUCKETS, point.positive)
        return self.put_counts(NEGATIVE, point.negative)

    @cython.cfunc
    @cython.exceptval(-1)
    def put_packed(self, to: cython.int, packed: Extent) -> cython.int:
        """Append a row of numbers of 64 bits."""
        put(cython.address(self.text[to + 1]), packed.at, packed.length)
        self.total[to] += packed.length // 8
        return self.end_row(to)

    @cython.cfunc
    @cython.exceptval(-1)
    def put_counts(self, to: cython.int, buckets: Buckets) -> cython.int:
        """Append the counts of one sign of an exponential histogram."""
        number: uint64_t = 0
        while next_count(cython.address(buckets.counts), cython.address(number)):
            put_number(cython.address(self.text[to + 1]), number, 8)
            self.total[to] += 1
        return self.end_row(to)

    @cython.cfunc
    @cython.exceptval(-1)
    def put_quantiles(self, quantiles: Repeated) -> cython.int:
        """Append the quantiles of a summary."""
        quantile: Quantile
        content: Extent
        while next_of(cython.address(quantiles), cython.address(content)):
            read_quantile(cython.address(quantile), content)
            put_float(cython.address(self.text[QUANTILES + 1]), quantile.quantile)
            put_float(cython.address(self.text[QUANTILES + 2]), quantile.value)
            self.total[QUANTILES] += 1
        return self.end_row(QUANTILES)

    @cython.cfunc
    @cython.exceptval(-1)
    def put_exemplars(self, exemplars: Repeated) -> cython.int:
        """Append the exemplars of a data point."""
        exemplar: Exemplar
        content: Extent
        text: cython.pointer(Text) = self.text
        while next_of(cython.address(exemplars), cython.address(content)):
            read_exemplar(cython.address(exemplar), content)
            put_time(text + EXEMPLAR_TIME, exemplar.time)
            if exemplar.value_type == INTEGER:
                put_float(text + EXEMPLAR_VALUE, cython.cast(cython.double, exemplar.as_int))
            else:
                put_float(text + EXEMPLAR_VALUE, exemplar.as_double)
            put_id(text + EXEMPLAR_SPAN_ID, exemplar.span_id.at, exemplar.span_id.length)
            put_id(text + EXEMPLAR_TRACE_ID, exemplar.trace_id.at, exemplar.trace_id.length)
            self.put_pairs(EXEMPLAR_MAP, exemplar.attributes)
            self.total[EXEMPLARS] += 1
        return self.end_row(EXEMPLARS)
