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

A value that is no string becomes one, as the Collector writes it: numbers and truth in their shortest form, bytes in base64,
arrays and lists as JSON. Ids are hexadecimal, absent ones empty. Times behind 2**63 - 1 ns, the year 2262, are that.

The GIL is held: a thousand spans take about a millisecond, so add a block in runs of that length.
"""

import cython
from cython.cimports.collector.exporters.clickhouse.sheet import *  # noqa: F403
from cython.cimports.collector.exporters.jsontext import Text, put, put_any, put_byte, release
from cython.cimports.collector.otlp.wire import Extent, next_field, read_varint, write_varint
from cython.cimports.cpython.bytes import PyBytes_FromStringAndSize
from cython.cimports.libc.stdint import int32_t, int64_t, uint8_t, uint32_t, uint64_t
from cython.cimports.libc.string import memcmp, memcpy, memset

_Bytes = cython.typedef(cython.pointer(cython.const[uint8_t]))
_DIGITS = cython.declare(cython.p_const_char, b"0123456789abcdef")
_LAST: uint64_t = cython.declare(uint64_t, 0x7FFFFFFFFFFFFFFF)


@cython.cfunc
@cython.exceptval(-1)
def _number(out: cython.pointer(Text), value: uint64_t, width: cython.Py_ssize_t) -> cython.int:
    return put(out, cython.cast(_Bytes, cython.address(value)), width)


@cython.cfunc
@cython.exceptval(-1)
def _time(out: cython.pointer(Text), value: uint64_t) -> cython.int:
    return _number(out, value if value <= _LAST else _LAST, 8)


@cython.cfunc
@cython.exceptval(-1)
def _double(out: cython.pointer(Text), value: cython.double) -> cython.int:
    return put(out, cython.cast(_Bytes, cython.address(value)), 8)


@cython.cfunc
@cython.exceptval(-1)
def _string(out: cython.pointer(Text), at: _Bytes, length: cython.Py_ssize_t) -> cython.int:
    head: uint8_t[10]
    put(out, head, write_varint(head, cython.cast(uint64_t, length)) - head)
    return put(out, at, length)


@cython.cfunc
@cython.exceptval(-1)
def _extent(out: cython.pointer(Text), part: Extent) -> cython.int:
    return _string(out, part.at, part.length)


@cython.cfunc
@cython.exceptval(-1)
def _hex(out: cython.pointer(Text), at: _Bytes, length: cython.Py_ssize_t) -> cython.int:
    """Append an id as hexadecimal digits; an absent one, or one of zeros, as nothing."""
    digits: uint8_t[64]
    absent: uint8_t[32]
    i: cython.Py_ssize_t
    memset(absent, 0, 32)
    if length > 32:
        length = 32
    if memcmp(at, absent, length) == 0:
        return put_byte(out, 0)
    for i in range(length):
        digits[2 * i] = _DIGITS[at[i] >> 4]
        digits[2 * i + 1] = _DIGITS[at[i] & 15]
    return _string(out, digits, 2 * length)


@cython.cfunc
@cython.exceptval(-1)
def _value(out: cython.pointer(Text), scratch: cython.pointer(Text), begin: _Bytes, end: _Bytes) -> cython.int:
    """Append an AnyValue as a string."""
    tag: uint32_t = 0
    number: uint64_t = 0
    part: Extent
    at: _Bytes = begin
    first: _Bytes
    length: cython.Py_ssize_t
    while at < end:
        at = next_field(at, end, cython.address(tag), cython.address(number), cython.address(part))
        if tag == 10:
            return _extent(out, part)
        if tag == 16 or tag == 24 or tag == 33 or tag == 42 or tag == 50 or tag == 58:
            scratch.length = 0
            put_any(scratch, begin, end, 0)
            first = scratch.at
            length = scratch.length
            if (tag == 58 or tag == 33) and first[0] == 34:
                first += 1
                length -= 2
            elif tag == 33 and length > 2 and first[length - 1] == 48 and first[length - 2] == 46:
                length -= 2
            return _string(out, first, length)
    return put_byte(out, 0)


@cython.cfunc
def _field(at: _Bytes, end: _Bytes, wanted: uint32_t) -> Extent:
    """Return the content of a length-delimited field; of length 0 when it is absent."""
    tag: uint32_t = 0
    number: uint64_t = 0
    part: Extent
    found: Extent
    found.at = at
    found.length = 0
    while at < end:
        at = next_field(at, end, cython.address(tag), cython.address(number), cython.address(part))
        if tag == wanted << 3 | 2:
            found = part
    return found


@cython.cfunc
@cython.exceptval(-1, check=True)
def _pairs(
    keys: cython.pointer(Text),
    values: cython.pointer(Text),
    scratch: cython.pointer(Text),
    at: _Bytes,
    end: _Bytes,
    field: uint32_t,
) -> int64_t:
    """Append the KeyValues in a repeated field of a message; return how many."""
    tag: uint32_t = 0
    number: uint64_t = 0
    pair: Extent
    key: Extent
    value: Extent
    part: Extent
    inside: _Bytes
    count: int64_t = 0
    while at < end:
        at = next_field(at, end, cython.address(tag), cython.address(number), cython.address(pair))
        if tag != (field << 3 | 2):
            continue
        key.at = value.at = inside = pair.at
        key.length = value.length = 0
        while inside < pair.at + pair.length:
            inside = next_field(
                inside, pair.at + pair.length, cython.address(tag), cython.address(number), cython.address(part)
            )
            if tag == 10:
                key = part
            elif tag == 18:
                value = part
        _extent(keys, key)
        _value(values, scratch, value.at, value.at + value.length)
        count += 1
    return count


@cython.cfunc
@cython.exceptval(-1)
def _others(out: cython.pointer(Text), at: _Bytes, end: _Bytes, child: uint32_t) -> cython.int:
    """Append the fields of a message but those of a number, as they stand."""
    tag: uint32_t = 0
    number: uint64_t = 0
    part: Extent
    begin: _Bytes
    while at < end:
        begin = at
        at = next_field(at, end, cython.address(tag), cython.address(number), cython.address(part))
        if tag >> 3 != child:
            put(out, begin, at - begin)
    return 0


@cython.cfunc
@cython.exceptval(check=False)
def _data_field(kind: cython.int) -> uint32_t:
    """Return the field of Metric that holds the points of a type."""
    return 5 if kind == 1 else 7 if kind == 2 else 6 + kind


@cython.cfunc
@cython.exceptval(check=False)
def _as_double(bits: uint64_t) -> cython.double:
    value: cython.double = 0
    memcpy(cython.address(value), cython.address(bits), 8)
    return value


@cython.cfunc
@cython.exceptval(check=False)
def _zigzag(value: uint64_t) -> int32_t:
    word: uint32_t = cython.cast(uint32_t, value)
    return cython.cast(int32_t, (word >> 1) ^ (0 - (word & 1)))


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
        return _number(cython.address(self.text[to]), self.total[to], 8)

    @cython.cfunc
    @cython.exceptval(-1)
    def put_pairs(self, to: cython.int, at: _Bytes, end: _Bytes, field: uint32_t) -> cython.int:
        """Append a row to the map at `to`."""
        self.total[to] += _pairs(
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
    def add_group(self, block, group: cython.Py_ssize_t, kind: cython.int) -> cython.int:
        """Look at what stands around the records of a group; `kind` is the type of data points, else 0. A resource or a scope
        that the last group had, too, is not looked at again."""
        view: cython.const[uint8_t][::1] = block.payload
        base: _Bytes = cython.address(view[0])
        numbers = block.groups.number
        at: _Bytes
        end: _Bytes
        tag: uint32_t = 0
        number: uint64_t = 0
        part: Extent
        length: cython.Py_ssize_t
        g: cython.pointer(Group) = cython.address(self.group)
        start: cython.Py_ssize_t = numbers("envelope_start", group)
        if start != self.envelope_at:
            self.envelope_at = start
            length = numbers("envelope_length", group)
            self.text[GROUP_OUTER].length = 0
            _others(cython.address(self.text[GROUP_OUTER]), base + start, base + start + length, 2)
            g.resource_schema = _field(base + start, base + start + length, 3)
            start = numbers("service_start", group)
            g.service.at = base + start
            g.service.length = numbers("service_length", group)
            start = numbers("resource_start", group)
            length = numbers("resource_length", group)
            self.text[GROUP_RESOURCE_KEYS].length = self.text[GROUP_RESOURCE_VALUES].length = 0
            g.resource_pairs = _pairs(
                cython.address(self.text[GROUP_RESOURCE_KEYS]),
                cython.address(self.text[GROUP_RESOURCE_VALUES]),
                cython.address(self.text[SCRATCH]),
                base + start,
                base + start + length,
                1,
            )
        start = numbers("scope_envelope_start", group)
        if start != self.scope_at:
            self.scope_at = start
            length = numbers("scope_envelope_length", group)
            self.text[GROUP_INNER].length = 0
            _others(cython.address(self.text[GROUP_INNER]), base + start, base + start + length, 2)
            g.scope_schema = _field(base + start, base + start + length, 3)
            start = numbers("scope_start", group)
            length = numbers("scope_length", group)
            at = base + start
            end = at + length
            self.text[GROUP_SCOPE_KEYS].length = self.text[GROUP_SCOPE_VALUES].length = 0
            g.scope_pairs = _pairs(
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
            start = numbers("metric_start", group)
            length = numbers("metric_length", group)
            at = base + start
            end = at + length
            g.metric = _field(at, end, 1)
            g.description = _field(at, end, 2)
            g.unit = _field(at, end, 3)
            g.temporality = numbers("temporality", group)
            g.monotonic = numbers("monotonic", group)
            if self.keeps:
                tag = _data_field(kind)
                _others(cython.address(self.text[GROUP_METRIC]), at, end, tag)
                part = _field(at, end, tag)
                self.text[SCRATCH].length = 0
                _others(cython.address(self.text[SCRATCH]), part.at, part.at + part.length, 1)
                put_byte(cython.address(self.text[GROUP_METRIC]), cython.cast(uint8_t, tag << 3 | 2))
                _string(cython.address(self.text[GROUP_METRIC]), self.text[SCRATCH].at, self.text[SCRATCH].length)
        return self.put_container(kind) if self.keeps else 0

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
            _string(inner, self.text[GROUP_METRIC].at, self.text[GROUP_METRIC].length)
        length: cython.Py_ssize_t = write_varint(head, cython.cast(uint64_t, inner.length)) - head
        length += 1 + inner.length + self.text[GROUP_OUTER].length
        put_byte(whole, 10)
        put(whole, head, write_varint(head, cython.cast(uint64_t, length)) - head)
        put(whole, self.text[GROUP_OUTER].at, self.text[GROUP_OUTER].length)
        put_byte(whole, 18)
        return _string(whole, inner.at, inner.length)

    @cython.cfunc
    @cython.exceptval(-1)
    def put_common(self, record: _Bytes, length: uint32_t, offset: uint64_t) -> cython.int:
        """Append to the columns that all tables have."""
        g: cython.pointer(Group) = cython.address(self.group)
        put(
            cython.address(self.text[RESOURCE + 1]),
            self.text[GROUP_RESOURCE_KEYS].at,
            self.text[GROUP_RESOURCE_KEYS].length,
        )
        put(
            cython.address(self.text[RESOURCE + 2]),
            self.text[GROUP_RESOURCE_VALUES].at,
            self.text[GROUP_RESOURCE_VALUES].length,
        )
        self.total[RESOURCE] += g.resource_pairs
        self.end_row(RESOURCE)
        put(cython.address(self.text[SCOPE + 1]), self.text[GROUP_SCOPE_KEYS].at, self.text[GROUP_SCOPE_KEYS].length)
        put(
            cython.address(self.text[SCOPE + 2]), self.text[GROUP_SCOPE_VALUES].at, self.text[GROUP_SCOPE_VALUES].length
        )
        self.total[SCOPE] += g.scope_pairs
        self.end_row(SCOPE)
        _extent(cython.address(self.text[SERVICE]), g.service)
        _extent(cython.address(self.text[RESOURCE_SCHEMA]), g.resource_schema)
        _extent(cython.address(self.text[SCOPE_NAME]), g.scope_name)
        _extent(cython.address(self.text[SCOPE_VERSION]), g.scope_version)
        _extent(cython.address(self.text[SCOPE_SCHEMA]), g.scope_schema)
        _number(cython.address(self.text[OFFSET]), offset, 8)
        if self.keeps:
            _string(
                cython.address(self.text[CONTAINER]),
                self.text[GROUP_CONTAINER].at,
                self.text[GROUP_CONTAINER].length,
            )
            _string(cython.address(self.text[RECORD]), record, length)
        self.count += 1
        return 0

    def add_spans(self, block, first: int, end: int) -> None:
        """Add the rows [first, end) of a block of spans."""
        _check(block, first, end)
        self.envelope_at = self.scope_at = -1
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
                self.add_group(block, group, 0)
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
                    message = _field(part.at, part.at + part.length, 2)
            self.put_pairs(ATTRIBUTES, begin, behind, 9)
            self.end_row(EVENTS)
            self.end_row(LINKS)
            _time(cython.address(self.text[TIME]), times[row])
            number = ends[row] - times[row] if ends[row] > times[row] else 0
            _number(cython.address(self.text[OTHER_TIME]), number, 8)
            _hex(cython.address(self.text[TRACE_ID]), cython.address(trace_ids[16 * row]), 16)
            _hex(cython.address(self.text[SPAN_ID]), cython.address(span_ids[8 * row]), 8)
            _hex(cython.address(self.text[PARENT]), cython.address(parents[8 * row]), 8)
            _extent(cython.address(self.text[STATE]), state)
            _extent(cython.address(self.text[NAME]), name)
            _extent(cython.address(self.text[MESSAGE]), message)
            _kind(cython.address(self.text[KIND]), kinds[row])
            _status(cython.address(self.text[STATUS]), statuses[row])

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
        _extent(cython.address(self.text[EVENT_NAME]), _field(at, end, 2))
        while at < end:
            at = next_field(at, end, cython.address(tag), cython.address(number), cython.address(part))
            if tag == 9:
                time = number
        _time(cython.address(self.text[EVENT_TIME]), time)
        self.total[EVENTS] += 1
        return self.put_pairs(EVENT_MAP, message.at, end, 3)

    @cython.cfunc
    @cython.exceptval(-1)
    def put_link(self, message: Extent) -> cython.int:
        """Append a link of a span."""
        at: _Bytes = message.at
        end: _Bytes = at + message.length
        part: Extent = _field(at, end, 1)
        _hex(cython.address(self.text[LINK_TRACE_ID]), part.at, part.length)
        part = _field(at, end, 2)
        _hex(cython.address(self.text[LINK_SPAN_ID]), part.at, part.length)
        _extent(cython.address(self.text[LINK_STATE]), _field(at, end, 3))
        self.total[LINKS] += 1
        return self.put_pairs(LINK_MAP, at, end, 4)

    def add_logs(self, block, first: int, end: int) -> None:
        """Add the rows [first, end) of a block of log records."""
        _check(block, first, end)
        self.envelope_at = self.scope_at = -1
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
                self.add_group(block, group, 0)
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
            _time(cython.address(self.text[TIME]), times[row])
            _hex(cython.address(self.text[TRACE_ID]), cython.address(trace_ids[16 * row]), 16)
            _hex(cython.address(self.text[SPAN_ID]), cython.address(span_ids[8 * row]), 8)
            put_byte(cython.address(self.text[FLAGS]), cython.cast(uint8_t, flags & 0xFF))
            _extent(cython.address(self.text[SEVERITY_TEXT]), text)
            put_byte(cython.address(self.text[SEVERITY]), severities[row])
            _value(cython.address(self.text[BODY]), cython.address(self.text[SCRATCH]), body.at, body.at + body.length)
            _extent(cython.address(self.text[NAME]), name)

    def add_points(self, block, first: int, end: int, kind: int) -> None:
        """Add those of the rows [first, end) of a block of data points that are of a type."""
        _check(block, first, end)
        self.envelope_at = self.scope_at = -1
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
                self.add_group(block, group, wanted)
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
                        value = _as_double(number)
                    elif tag == 49:
                        value = cython.cast(cython.double, cython.cast(int64_t, number))
                elif tag == 33:
                    count = number
                elif tag == 41:
                    total = _as_double(number)
                elif wanted == 3:
                    if tag == 89:
                        low = _as_double(number)
                    elif tag == 97:
                        high = _as_double(number)
                elif wanted == 4:
                    if tag == 48:
                        scale = _zigzag(number)
                    elif tag == 57:
                        zero_count = number
                    elif tag == 97:
                        low = _as_double(number)
                    elif tag == 105:
                        high = _as_double(number)
                elif tag == 50:
                    self.put_quantile(part)
            self.put_pairs(ATTRIBUTES, begin, behind, field)
            _number(cython.address(self.text[SCOPE_DROPPED]), self.group.scope_dropped, 4)
            _extent(cython.address(self.text[METRIC]), self.group.metric)
            _extent(cython.address(self.text[DESCRIPTION]), self.group.description)
            _extent(cython.address(self.text[UNIT]), self.group.unit)
            _time(cython.address(self.text[TIME]), times[row])
            _time(cython.address(self.text[OTHER_TIME]), start_times[row])
            _number(cython.address(self.text[FLAGS]), flags[row], 4)
            if exemplars:
                self.end_row(EXEMPLARS)
            if wanted == 2 or wanted == 3 or wanted == 4:
                _number(cython.address(self.text[TEMPORALITY]), cython.cast(uint32_t, self.group.temporality), 4)
            if wanted <= 2:
                _double(cython.address(self.text[VALUE]), value)
                if wanted == 2:
                    put_byte(cython.address(self.text[MONOTONIC]), 1 if self.group.monotonic else 0)
                continue
            _number(cython.address(self.text[COUNT]), count, 8)
            _double(cython.address(self.text[SUM]), total)
            if wanted == 5:
                self.end_row(QUANTILES)
                continue
            _double(cython.address(self.text[MIN]), low)
            _double(cython.address(self.text[MAX]), high)
            if wanted == 3:
                part = _field(begin, behind, 6)
                put(cython.address(self.text[BUCKETS + 1]), part.at, part.length)
                self.total[BUCKETS] += part.length // 8
                part = _field(begin, behind, 7)
                put(cython.address(self.text[BOUNDS + 1]), part.at, part.length)
                self.total[BOUNDS] += part.length // 8
                self.end_row(BOUNDS)
            else:
                _number(cython.address(self.text[SCALE]), cython.cast(uint32_t, scale), 4)
                _number(cython.address(self.text[ZERO_COUNT]), zero_count, 8)
                self.put_buckets(BUCKETS, POSITIVE_OFFSET, _field(begin, behind, 8))
                self.put_buckets(NEGATIVE, NEGATIVE_OFFSET, _field(begin, behind, 9))
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
                offset = _zigzag(number)
        part = _field(message.at, end, 2)
        at = part.at
        end = part.at + part.length
        while at < end:
            at = read_varint(at, end, cython.address(number))
            if at == cython.NULL:
                break
            _number(cython.address(self.text[to + 1]), number, 8)
            self.total[to] += 1
        return _number(cython.address(self.text[offset_to]), cython.cast(uint32_t, offset), 4)

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
        _number(cython.address(self.text[QUANTILES + 1]), quantile, 8)
        self.total[QUANTILES] += 1
        return _number(cython.address(self.text[QUANTILES + 2]), value, 8)

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
                value = _as_double(number)
            elif tag == 49:
                value = cython.cast(cython.double, cython.cast(int64_t, number))
        _time(cython.address(self.text[EXEMPLAR_TIME]), time)
        _double(cython.address(self.text[EXEMPLAR_VALUE]), value)
        part = _field(message.at, end, 4)
        _hex(cython.address(self.text[EXEMPLAR_SPAN_ID]), part.at, part.length)
        part = _field(message.at, end, 5)
        _hex(cython.address(self.text[EXEMPLAR_TRACE_ID]), part.at, part.length)
        self.total[EXEMPLARS] += 1
        return self.put_pairs(EXEMPLAR_MAP, message.at, end, 7)


@cython.cfunc
@cython.exceptval(-1)
def _check(block, first: cython.Py_ssize_t, end: cython.Py_ssize_t) -> cython.int:
    if not 0 <= first < end <= block.count:
        raise ValueError(f"rows {first} to {end} of {block.count}")
    return 0


@cython.cfunc
@cython.exceptval(-1)
def _word(out: cython.pointer(Text), word: cython.p_const_char, length: cython.Py_ssize_t) -> cython.int:
    return _string(out, cython.cast(_Bytes, word), length)


@cython.cfunc
@cython.exceptval(-1)
def _kind(out: cython.pointer(Text), kind: uint8_t) -> cython.int:
    if kind == 1:
        return _word(out, b"Internal", 8)
    if kind == 2:
        return _word(out, b"Server", 6)
    if kind == 3:
        return _word(out, b"Client", 6)
    if kind == 4:
        return _word(out, b"Producer", 8)
    if kind == 5:
        return _word(out, b"Consumer", 8)
    return _word(out, b"Unspecified", 11)


@cython.cfunc
@cython.exceptval(-1)
def _status(out: cython.pointer(Text), status: uint8_t) -> cython.int:
    if status == 1:
        return _word(out, b"Ok", 2)
    if status == 2:
        return _word(out, b"Error", 5)
    return _word(out, b"Unset", 5)


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
    "Timestamp": (TIME,),
    "TimeUnix": (TIME,),
    "StartTimeUnix": (OTHER_TIME,),
    "Duration": (OTHER_TIME,),
    "TraceId": (TRACE_ID,),
    "SpanId": (SPAN_ID,),
    "ParentSpanId": (PARENT,),
    "TraceState": (STATE,),
    "SpanName": (NAME,),
    "EventName": (NAME,),
    "SpanKind": (KIND,),
    "StatusCode": (STATUS,),
    "StatusMessage": (MESSAGE,),
    "SpanAttributes": (ATTRIBUTES, ATTRIBUTES + 1, ATTRIBUTES + 2),
    "LogAttributes": (ATTRIBUTES, ATTRIBUTES + 1, ATTRIBUTES + 2),
    "Attributes": (ATTRIBUTES, ATTRIBUTES + 1, ATTRIBUTES + 2),
    "Events.Timestamp": (EVENTS, EVENT_TIME),
    "Events.Name": (EVENTS, EVENT_NAME),
    "Events.Attributes": (EVENTS, EVENT_MAP, EVENT_MAP + 1, EVENT_MAP + 2),
    "Links.TraceId": (LINKS, LINK_TRACE_ID),
    "Links.SpanId": (LINKS, LINK_SPAN_ID),
    "Links.TraceState": (LINKS, LINK_STATE),
    "Links.Attributes": (LINKS, LINK_MAP, LINK_MAP + 1, LINK_MAP + 2),
    "TraceFlags": (FLAGS,),
    "Flags": (FLAGS,),
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
