# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Records as ClickHouse's columns in memory, compiled, straight out of payload bytes: what an INSERT in its Native format
has.

A `Sheet` takes rows of blocks and appends each one's fields to buffers, one for each part of a column:

    numbers     little-endian, one after the other
    strings     a varint of the length, and the bytes
    arrays      the numbers of elements so far, 64 bits a row; then the elements as a column of their own
    maps        an array of keys and one of values with the same offsets

`PLACES` says which buffers make which column; table.py knows the columns' types and puts the insert together. No object is
made for a record, and what stands around records (resource, scope, metric) is walked once a group.

values.py has how each value is written.

The GIL is held: a thousand spans take about a millisecond, so add a block in runs of that length.
"""

import cython
from cython.cimports.collector.exporters.clickhouse.sheet import *  # noqa: F403
from cython.cimports.collector.exporters.clickhouse.values import (
    as_double,
    extent,
    put_extent,
    put_float,
    put_id,
    put_key_values,
    put_kind,
    put_number,
    put_others,
    put_status,
    put_text,
    put_time,
    put_value,
    zigzag,
)
from cython.cimports.collector.exporters.jsontext import Text, field_of, put, put_byte, release
from cython.cimports.collector.otlp.wire import Extent, next_field, read_varint, write_varint
from cython.cimports.cpython.bytes import PyBytes_FromStringAndSize
from cython.cimports.libc.stdint import int32_t, int64_t, uint8_t, uint32_t, uint64_t
from cython.cimports.libc.string import memcmp, memcpy, memset

from collector.otlp.records import data_field

_Bytes = cython.typedef(cython.pointer(cython.const[uint8_t]))

_GROUP_COLUMNS: tuple = (
    *("envelope_start", "envelope_length", "service_start", "service_length", "resource_start", "resource_length"),
    *("scope_envelope_start", "scope_envelope_length", "scope_start", "scope_length", "metric_start", "metric_length"),
    *("temporality", "monotonic"),
)


@cython.cclass
class Sheet:
    """Columns of one table under construction. Owner: one thread at a time."""

    def __cinit__(self, keeps: bool):
        memset(self.text, 0, TEXTS * cython.sizeof(Text))
        memset(self.total, 0, TEXTS * cython.sizeof(uint64_t))
        self.count = 0
        self.keeps = keeps

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

    @cython.cfunc
    @cython.exceptval(-1)
    def end_row(self, to: cython.int) -> cython.int:
        """Write how many elements an array has had so far."""
        return put_number(cython.address(self.text[to]), self.total[to], 8)

    @cython.cfunc
    @cython.exceptval(-1)
    def put_pairs(self, to: cython.int, at: _Bytes, end: _Bytes, field: uint32_t) -> cython.int:
        """Append a row to the map at `to`."""
        self.total[to] += put_key_values(
            cython.address(self.text[to + 1]),
            cython.address(self.text[to + 2]),
            cython.address(self.text[SCRATCH]),
            at,
            end,
            field,
        )
        return self.end_row(to)

    @cython.cfunc
    @cython.exceptval(-1)
    def begin(self, block) -> cython.int:
        """Get ready for a block: where its groups' columns lie."""
        self.envelope_at = self.scope_at = -1
        self.resource.length = 0
        self.resource.at = cython.NULL
        self.table = block.groups.buffer
        columns = block.groups.layout.columns
        count: cython.Py_ssize_t = block.groups.count
        i: cython.int
        for i in range(PLACED):
            found = columns.get(_GROUP_COLUMNS[i])
            self.place[i] = 0 if found is None else found[1] * count
        return 0

    @cython.cfunc
    @cython.exceptval(check=False)
    def word(self, column: cython.int, group: cython.Py_ssize_t) -> uint32_t:
        """Return an entry of a column of groups."""
        value: uint32_t = 0
        memcpy(cython.address(value), cython.address(self.table[self.place[column] + 4 * group]), 4)
        return value

    @cython.cfunc
    @cython.exceptval(-1)
    def add_group(self, base: _Bytes, group: cython.Py_ssize_t, kind: cython.int) -> cython.int:
        """Look at what stands around the records of a group; `kind` is the type of data points, else 0. A resource or a scope
        that the last group had, too, is not looked at again."""
        at: _Bytes
        end: _Bytes
        tag: uint32_t = 0
        wanted: uint32_t
        number: uint64_t = 0
        part: Extent
        g: cython.pointer(Group) = cython.address(self.group)
        start: cython.Py_ssize_t = self.word(ENVELOPE, group)
        if start != self.envelope_at:
            self.envelope_at = start
            at = base + start
            end = at + self.word(ENVELOPE + 1, group)
            self.text[GROUP_OUTER].length = 0
            put_others(cython.address(self.text[GROUP_OUTER]), at, end, 2)
            g.resource_schema = field_of(extent(at, end), 3)
            g.service.at = base + self.word(SERVICE_NAME, group)
            g.service.length = self.word(SERVICE_NAME + 1, group)
            part.at = base + self.word(RESOURCE_MESSAGE, group)
            part.length = self.word(RESOURCE_MESSAGE + 1, group)
            if not self.is_resource(part):
                self.resource = part
                self.text[GROUP_RESOURCE_KEYS].length = self.text[GROUP_RESOURCE_VALUES].length = 0
                g.resource_pairs = put_key_values(
                    cython.address(self.text[GROUP_RESOURCE_KEYS]),
                    cython.address(self.text[GROUP_RESOURCE_VALUES]),
                    cython.address(self.text[SCRATCH]),
                    part.at,
                    part.at + part.length,
                    1,
                )
        start = self.word(SCOPE_ENVELOPE, group)
        if start != self.scope_at:
            self.scope_at = start
            at = base + start
            end = at + self.word(SCOPE_ENVELOPE + 1, group)
            self.text[GROUP_INNER].length = 0
            put_others(cython.address(self.text[GROUP_INNER]), at, end, 2)
            g.scope_schema = field_of(extent(at, end), 3)
            at = base + self.word(SCOPE_MESSAGE, group)
            end = at + self.word(SCOPE_MESSAGE + 1, group)
            self.text[GROUP_SCOPE_KEYS].length = self.text[GROUP_SCOPE_VALUES].length = 0
            g.scope_pairs = put_key_values(
                cython.address(self.text[GROUP_SCOPE_KEYS]),
                cython.address(self.text[GROUP_SCOPE_VALUES]),
                cython.address(self.text[SCRATCH]),
                at,
                end,
                3,
            )
            g.scope_name.at = g.scope_version.at = at
            g.scope_name.length = g.scope_version.length = g.scope_dropped = 0
            while at < end:
                at = next_field(at, end, cython.address(tag), cython.address(number), cython.address(part))
                if tag == 10:
                    g.scope_name = part
                elif tag == 18:
                    g.scope_version = part
                elif tag == 32:
                    g.scope_dropped = cython.cast(uint32_t, number)
        self.text[GROUP_METRIC].length = 0
        if kind:
            at = base + self.word(METRIC_MESSAGE, group)
            end = at + self.word(METRIC_MESSAGE + 1, group)
            g.metric = field_of(extent(at, end), 1)
            g.description = field_of(extent(at, end), 2)
            g.unit = field_of(extent(at, end), 3)
            g.temporality = self.table[self.place[TEMPORALITY_BYTE] + group]
            g.monotonic = self.table[self.place[MONOTONIC_BYTE] + group]
            if self.keeps:
                wanted = data_field(kind)
                put_others(cython.address(self.text[GROUP_METRIC]), at, end, wanted)
                self.text[SCRATCH].length = 0
                while at < end:
                    at = next_field(at, end, cython.address(tag), cython.address(number), cython.address(part))
                    if tag == wanted << 3 | 2:
                        put_others(cython.address(self.text[SCRATCH]), part.at, part.at + part.length, 1)
                put_byte(cython.address(self.text[GROUP_METRIC]), cython.cast(uint8_t, wanted << 3 | 2))
                put_text(cython.address(self.text[GROUP_METRIC]), self.text[SCRATCH].at, self.text[SCRATCH].length)
        return self.put_container(kind) if self.keeps else 0

    @cython.cfunc
    @cython.exceptval(check=False)
    def is_resource(self, message: Extent) -> cython.bint:
        """Tell whether a resource is, byte for byte, the last one: small requests have one each."""
        if self.resource.at == cython.NULL or message.length != self.resource.length:
            return False
        return memcmp(message.at, self.resource.at, message.length) == 0

    @cython.cfunc
    @cython.exceptval(-1)
    def put_container(self, kind: cython.int) -> cython.int:
        """Write what stands around the group's records as a request without records."""
        inner: cython.pointer(Text) = cython.address(self.text[SCRATCH])
        whole: cython.pointer(Text) = cython.address(self.text[GROUP_CONTAINER])
        head: uint8_t[10]
        inner.length = whole.length = 0
        put(inner, self.text[GROUP_INNER].at, self.text[GROUP_INNER].length)
        if kind:
            put_byte(inner, 18)
            put_text(inner, self.text[GROUP_METRIC].at, self.text[GROUP_METRIC].length)
        length: cython.Py_ssize_t = write_varint(head, cython.cast(uint64_t, inner.length)) - head
        length += 1 + inner.length + self.text[GROUP_OUTER].length
        put_byte(whole, 10)
        put(whole, head, write_varint(head, cython.cast(uint64_t, length)) - head)
        put(whole, self.text[GROUP_OUTER].at, self.text[GROUP_OUTER].length)
        put_byte(whole, 18)
        return put_text(whole, inner.at, inner.length)

    @cython.cfunc
    @cython.exceptval(-1)
    def put_common(self, record: _Bytes, length: uint32_t, offset: uint64_t) -> cython.int:
        """Append to the columns that all tables have."""
        g: cython.pointer(Group) = cython.address(self.group)
        text: cython.pointer(Text) = self.text
        put(text + RESOURCE + 1, text[GROUP_RESOURCE_KEYS].at, text[GROUP_RESOURCE_KEYS].length)
        put(text + RESOURCE + 2, text[GROUP_RESOURCE_VALUES].at, text[GROUP_RESOURCE_VALUES].length)
        self.total[RESOURCE] += g.resource_pairs
        self.end_row(RESOURCE)
        put(text + SCOPE + 1, text[GROUP_SCOPE_KEYS].at, text[GROUP_SCOPE_KEYS].length)
        put(text + SCOPE + 2, text[GROUP_SCOPE_VALUES].at, text[GROUP_SCOPE_VALUES].length)
        self.total[SCOPE] += g.scope_pairs
        self.end_row(SCOPE)
        put_extent(text + SERVICE, g.service)
        put_extent(text + RESOURCE_SCHEMA, g.resource_schema)
        put_extent(text + SCOPE_NAME, g.scope_name)
        put_extent(text + SCOPE_VERSION, g.scope_version)
        put_extent(text + SCOPE_SCHEMA, g.scope_schema)
        put_number(text + OFFSET, offset, 8)
        if self.keeps:
            put_text(text + CONTAINER, text[GROUP_CONTAINER].at, text[GROUP_CONTAINER].length)
            put_text(text + RECORD, record, length)
        self.count += 1
        return 0

    def add_spans(self, block, first: int, end: int) -> None:
        """Add the rows [first, end) of a block of spans."""
        _check(block, first, end)
        self.begin(block)
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
        row: cython.Py_ssize_t
        group: cython.Py_ssize_t = -1
        at: _Bytes
        begin: _Bytes
        behind: _Bytes
        tag: uint32_t = 0
        number: uint64_t = 0
        part: Extent
        name: Extent
        state: Extent
        message: Extent
        for row in range(first, end):
            if groups[row] != group:
                group = groups[row]
                self.add_group(cython.address(view[0]), group, 0)
            begin = at = cython.address(view[0]) + starts[row]
            behind = at + lengths[row]
            self.put_common(begin, lengths[row], base_offset + row)
            name.at = state.at = message.at = at
            name.length = state.length = message.length = 0
            while at < behind:
                at = next_field(at, behind, cython.address(tag), cython.address(number), cython.address(part))
                if tag == 42:
                    name = part
                elif tag == 26:
                    state = part
                elif tag == 90:
                    self.put_event(part)
                elif tag == 106:
                    self.put_link(part)
                elif tag == 122:
                    message = field_of(part, 2)
            self.put_pairs(ATTRIBUTES, begin, behind, 9)
            self.end_row(EVENTS)
            self.end_row(LINKS)
            put_time(cython.address(self.text[TIME]), times[row])
            number = ends[row] - times[row] if ends[row] > times[row] else 0
            put_number(cython.address(self.text[OTHER_TIME]), number, 8)
            put_id(cython.address(self.text[TRACE_ID]), cython.address(trace_ids[16 * row]), 16)
            put_id(cython.address(self.text[SPAN_ID]), cython.address(span_ids[8 * row]), 8)
            put_id(cython.address(self.text[PARENT]), cython.address(parents[8 * row]), 8)
            put_extent(cython.address(self.text[STATE]), state)
            put_extent(cython.address(self.text[NAME]), name)
            put_extent(cython.address(self.text[MESSAGE]), message)
            put_kind(cython.address(self.text[KIND]), kinds[row])
            put_status(cython.address(self.text[STATUS]), statuses[row])

    @cython.cfunc
    @cython.exceptval(-1)
    def put_event(self, message: Extent) -> cython.int:
        """Append an event of a span."""
        tag: uint32_t = 0
        number: uint64_t = 0
        time: uint64_t = 0
        part: Extent
        at: _Bytes = message.at
        end: _Bytes = at + message.length
        put_extent(cython.address(self.text[EVENT_NAME]), field_of(message, 2))
        while at < end:
            at = next_field(at, end, cython.address(tag), cython.address(number), cython.address(part))
            if tag == 9:
                time = number
        put_time(cython.address(self.text[EVENT_TIME]), time)
        self.total[EVENTS] += 1
        return self.put_pairs(EVENT_MAP, message.at, end, 3)

    @cython.cfunc
    @cython.exceptval(-1)
    def put_link(self, message: Extent) -> cython.int:
        """Append a link of a span."""
        at: _Bytes = message.at
        end: _Bytes = at + message.length
        part: Extent = field_of(message, 1)
        put_id(cython.address(self.text[LINK_TRACE_ID]), part.at, part.length)
        part = field_of(message, 2)
        put_id(cython.address(self.text[LINK_SPAN_ID]), part.at, part.length)
        put_extent(cython.address(self.text[LINK_STATE]), field_of(message, 3))
        self.total[LINKS] += 1
        return self.put_pairs(LINK_MAP, at, end, 4)

    def add_logs(self, block, first: int, end: int) -> None:
        """Add the rows [first, end) of a block of log records."""
        _check(block, first, end)
        self.begin(block)
        view: cython.const[uint8_t][::1] = block.payload
        starts: cython.const[uint32_t][::1] = block.column("start")
        lengths: cython.const[uint32_t][::1] = block.column("length")
        groups: cython.const[uint32_t][::1] = block.column("group")
        times: cython.const[uint64_t][::1] = block.column("time")
        trace_ids: cython.const[uint8_t][::1] = block.records.column_bytes("trace_id")
        span_ids: cython.const[uint8_t][::1] = block.records.column_bytes("span_id")
        severities: cython.const[uint8_t][::1] = block.column("severity")
        base_offset: uint64_t = block.base_offset
        row: cython.Py_ssize_t
        group: cython.Py_ssize_t = -1
        at: _Bytes
        begin: _Bytes
        behind: _Bytes
        tag: uint32_t = 0
        number: uint64_t = 0
        flags: uint64_t
        part: Extent
        body: Extent
        text: Extent
        name: Extent
        for row in range(first, end):
            if groups[row] != group:
                group = groups[row]
                self.add_group(cython.address(view[0]), group, 0)
            begin = at = cython.address(view[0]) + starts[row]
            behind = at + lengths[row]
            self.put_common(begin, lengths[row], base_offset + row)
            body.at = text.at = name.at = at
            body.length = text.length = name.length = 0
            flags = 0
            while at < behind:
                at = next_field(at, behind, cython.address(tag), cython.address(number), cython.address(part))
                if tag == 42:
                    body = part
                elif tag == 26:
                    text = part
                elif tag == 98:
                    name = part
                elif tag == 69:
                    flags = number
            self.put_pairs(ATTRIBUTES, begin, behind, 6)
            put_time(cython.address(self.text[TIME]), times[row])
            put_id(cython.address(self.text[TRACE_ID]), cython.address(trace_ids[16 * row]), 16)
            put_id(cython.address(self.text[SPAN_ID]), cython.address(span_ids[8 * row]), 8)
            put_byte(cython.address(self.text[FLAGS]), cython.cast(uint8_t, flags & 0xFF))
            put_extent(cython.address(self.text[SEVERITY_TEXT]), text)
            put_byte(cython.address(self.text[SEVERITY]), severities[row])
            put_value(
                cython.address(self.text[BODY]), cython.address(self.text[SCRATCH]), body.at, body.at + body.length
            )
            put_extent(cython.address(self.text[NAME]), name)

    def add_points(self, block, first: int, end: int, kind: int) -> None:
        """Add those of the rows [first, end) of a block of data points that are of a type."""
        _check(block, first, end)
        self.begin(block)
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
        exemplars: uint32_t = 0
        row: cython.Py_ssize_t
        group: cython.Py_ssize_t = -1
        at: _Bytes
        begin: _Bytes
        behind: _Bytes
        tag: uint32_t = 0
        number: uint64_t = 0
        count: uint64_t
        zero_count: uint64_t
        scale: int32_t
        value: cython.double
        total: cython.double
        low: cython.double
        high: cython.double
        part: Extent
        field: uint32_t = 9 if wanted == 3 else 1 if wanted == 4 else 7
        if wanted <= 2:
            exemplars = 42
        elif wanted == 3:
            exemplars = 66
        elif wanted == 4:
            exemplars = 90
        for row in range(first, end):
            if types[row] != wanted:
                continue
            if groups[row] != group:
                group = groups[row]
                self.add_group(cython.address(view[0]), group, wanted)
            begin = at = cython.address(view[0]) + starts[row]
            behind = at + lengths[row]
            self.put_common(begin, lengths[row], base_offset + row)
            count = zero_count = 0
            scale = 0
            value = total = low = high = 0
            while at < behind:
                at = next_field(at, behind, cython.address(tag), cython.address(number), cython.address(part))
                if tag == exemplars:
                    self.put_exemplar(part)
                elif wanted <= 2:
                    if tag == 33:
                        value = as_double(number)
                    elif tag == 49:
                        value = cython.cast(cython.double, cython.cast(int64_t, number))
                elif tag == 33:
                    count = number
                elif tag == 41:
                    total = as_double(number)
                elif wanted == 3:
                    if tag == 89:
                        low = as_double(number)
                    elif tag == 97:
                        high = as_double(number)
                elif wanted == 4:
                    if tag == 48:
                        scale = zigzag(number)
                    elif tag == 57:
                        zero_count = number
                    elif tag == 97:
                        low = as_double(number)
                    elif tag == 105:
                        high = as_double(number)
                elif tag == 50:
                    self.put_quantile(part)
            self.put_pairs(ATTRIBUTES, begin, behind, field)
            put_number(cython.address(self.text[SCOPE_DROPPED]), self.group.scope_dropped, 4)
            put_extent(cython.address(self.text[METRIC]), self.group.metric)
            put_extent(cython.address(self.text[DESCRIPTION]), self.group.description)
            put_extent(cython.address(self.text[UNIT]), self.group.unit)
            put_time(cython.address(self.text[TIME]), times[row])
            put_time(cython.address(self.text[OTHER_TIME]), start_times[row])
            put_number(cython.address(self.text[FLAGS]), flags[row], 4)
            if exemplars:
                self.end_row(EXEMPLARS)
            if wanted == 2 or wanted == 3 or wanted == 4:
                put_number(cython.address(self.text[TEMPORALITY]), cython.cast(uint32_t, self.group.temporality), 4)
            if wanted <= 2:
                put_float(cython.address(self.text[VALUE]), value)
                if wanted == 2:
                    put_byte(cython.address(self.text[MONOTONIC]), 1 if self.group.monotonic else 0)
                continue
            put_number(cython.address(self.text[COUNT]), count, 8)
            put_float(cython.address(self.text[SUM]), total)
            if wanted == 5:
                self.end_row(QUANTILES)
                continue
            put_float(cython.address(self.text[MIN]), low)
            put_float(cython.address(self.text[MAX]), high)
            if wanted == 3:
                part = field_of(extent(begin, behind), 6)
                put(cython.address(self.text[BUCKETS + 1]), part.at, part.length)
                self.total[BUCKETS] += part.length // 8
                part = field_of(extent(begin, behind), 7)
                put(cython.address(self.text[BOUNDS + 1]), part.at, part.length)
                self.total[BOUNDS] += part.length // 8
                self.end_row(BOUNDS)
            else:
                put_number(cython.address(self.text[SCALE]), cython.cast(uint32_t, scale), 4)
                put_number(cython.address(self.text[ZERO_COUNT]), zero_count, 8)
                self.put_buckets(BUCKETS, POSITIVE_OFFSET, field_of(extent(begin, behind), 8))
                self.put_buckets(NEGATIVE, NEGATIVE_OFFSET, field_of(extent(begin, behind), 9))
                self.end_row(NEGATIVE)
            self.end_row(BUCKETS)

    @cython.cfunc
    @cython.exceptval(-1)
    def put_buckets(self, to: cython.int, offset_to: cython.int, message: Extent) -> cython.int:
        """Append the buckets of one sign of an exponential histogram."""
        tag: uint32_t = 0
        number: uint64_t = 0
        offset: int32_t = 0
        part: Extent
        at: _Bytes = message.at
        end: _Bytes = at + message.length
        while at < end:
            at = next_field(at, end, cython.address(tag), cython.address(number), cython.address(part))
            if tag == 8:
                offset = zigzag(number)
        part = field_of(message, 2)
        at = part.at
        end = part.at + part.length
        while at < end:
            at = read_varint(at, end, cython.address(number))
            if at == cython.NULL:
                break
            put_number(cython.address(self.text[to + 1]), number, 8)
            self.total[to] += 1
        return put_number(cython.address(self.text[offset_to]), cython.cast(uint32_t, offset), 4)

    @cython.cfunc
    @cython.exceptval(-1)
    def put_quantile(self, message: Extent) -> cython.int:
        """Append a quantile of a summary."""
        tag: uint32_t = 0
        number: uint64_t = 0
        quantile: uint64_t = 0
        value: uint64_t = 0
        part: Extent
        at: _Bytes = message.at
        end: _Bytes = at + message.length
        while at < end:
            at = next_field(at, end, cython.address(tag), cython.address(number), cython.address(part))
            if tag == 9:
                quantile = number
            elif tag == 17:
                value = number
        put_number(cython.address(self.text[QUANTILES + 1]), quantile, 8)
        self.total[QUANTILES] += 1
        return put_number(cython.address(self.text[QUANTILES + 2]), value, 8)

    @cython.cfunc
    @cython.exceptval(-1)
    def put_exemplar(self, message: Extent) -> cython.int:
        """Append an exemplar of a data point."""
        tag: uint32_t = 0
        number: uint64_t = 0
        time: uint64_t = 0
        value: cython.double = 0
        part: Extent
        at: _Bytes = message.at
        end: _Bytes = at + message.length
        while at < end:
            at = next_field(at, end, cython.address(tag), cython.address(number), cython.address(part))
            if tag == 17:
                time = number
            elif tag == 25:
                value = as_double(number)
            elif tag == 49:
                value = cython.cast(cython.double, cython.cast(int64_t, number))
        put_time(cython.address(self.text[EXEMPLAR_TIME]), time)
        put_float(cython.address(self.text[EXEMPLAR_VALUE]), value)
        part = field_of(message, 4)
        put_id(cython.address(self.text[EXEMPLAR_SPAN_ID]), part.at, part.length)
        part = field_of(message, 5)
        put_id(cython.address(self.text[EXEMPLAR_TRACE_ID]), part.at, part.length)
        self.total[EXEMPLARS] += 1
        return self.put_pairs(EXEMPLAR_MAP, message.at, end, 7)


@cython.cfunc
@cython.exceptval(-1)
def _check(block, first: cython.Py_ssize_t, end: cython.Py_ssize_t) -> cython.int:
    if not 0 <= first < end <= block.count:
        raise ValueError(f"rows {first} to {end} of {block.count}")
    return 0


PLACES = {
    "ResourceAttributes": (RESOURCE, RESOURCE + 1, RESOURCE + 2),
    "ScopeAttributes": (SCOPE, SCOPE + 1, SCOPE + 2),
    "ServiceName": (SERVICE,),
    "ResourceSchemaUrl": (RESOURCE_SCHEMA,),
    "ScopeName": (SCOPE_NAME,),
    "ScopeVersion": (SCOPE_VERSION,),
    "ScopeSchemaUrl": (SCOPE_SCHEMA,),
    "ScopeDroppedAttrCount": (SCOPE_DROPPED,),
    "RingtailOffset": (OFFSET,),
    "RingtailRecord": (RECORD,),
    "RingtailContainer": (CONTAINER,),
    **dict.fromkeys(("Timestamp", "TimeUnix"), (TIME,)),
    **dict.fromkeys(("StartTimeUnix", "Duration"), (OTHER_TIME,)),
    "TraceId": (TRACE_ID,),
    "SpanId": (SPAN_ID,),
    "ParentSpanId": (PARENT,),
    "TraceState": (STATE,),
    **dict.fromkeys(("SpanName", "EventName"), (NAME,)),
    "SpanKind": (KIND,),
    "StatusCode": (STATUS,),
    "StatusMessage": (MESSAGE,),
    **dict.fromkeys(("SpanAttributes", "LogAttributes", "Attributes"), (ATTRIBUTES, ATTRIBUTES + 1, ATTRIBUTES + 2)),
    "Events.Timestamp": (EVENTS, EVENT_TIME),
    "Events.Name": (EVENTS, EVENT_NAME),
    "Events.Attributes": (EVENTS, EVENT_MAP, EVENT_MAP + 1, EVENT_MAP + 2),
    "Links.TraceId": (LINKS, LINK_TRACE_ID),
    "Links.SpanId": (LINKS, LINK_SPAN_ID),
    "Links.TraceState": (LINKS, LINK_STATE),
    "Links.Attributes": (LINKS, LINK_MAP, LINK_MAP + 1, LINK_MAP + 2),
    **dict.fromkeys(("TraceFlags", "Flags"), (FLAGS,)),
    "SeverityText": (SEVERITY_TEXT,),
    "SeverityNumber": (SEVERITY,),
    "Body": (BODY,),
    "MetricName": (METRIC,),
    "MetricDescription": (DESCRIPTION,),
    "MetricUnit": (UNIT,),
    "Value": (VALUE,),
    "Count": (COUNT,),
    "Sum": (SUM,),
    "Min": (MIN,),
    "Max": (MAX,),
    "AggregationTemporality": (TEMPORALITY,),
    "IsMonotonic": (MONOTONIC,),
    "BucketCounts": (BUCKETS, BUCKETS + 1),
    "ExplicitBounds": (BOUNDS, BOUNDS + 1),
    "Scale": (SCALE,),
    "ZeroCount": (ZERO_COUNT,),
    "PositiveOffset": (POSITIVE_OFFSET,),
    "PositiveBucketCounts": (BUCKETS, BUCKETS + 1),
    "NegativeOffset": (NEGATIVE_OFFSET,),
    "NegativeBucketCounts": (NEGATIVE, NEGATIVE + 1),
    "Exemplars.FilteredAttributes": (EXEMPLARS, EXEMPLAR_MAP, EXEMPLAR_MAP + 1, EXEMPLAR_MAP + 2),
    "Exemplars.TimeUnix": (EXEMPLARS, EXEMPLAR_TIME),
    "Exemplars.Value": (EXEMPLARS, EXEMPLAR_VALUE),
    "Exemplars.SpanId": (EXEMPLARS, EXEMPLAR_SPAN_ID),
    "Exemplars.TraceId": (EXEMPLARS, EXEMPLAR_TRACE_ID),
    "ValueAtQuantiles.Quantile": (QUANTILES, QUANTILES + 1),
    "ValueAtQuantiles.Value": (QUANTILES, QUANTILES + 2),
}
"""The buffers of each column, in the order that Native has them in."""
