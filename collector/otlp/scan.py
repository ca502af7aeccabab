# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The scanner: one pass over a request that validates it to the bottom and fills a block's columns.

`walk.py` validates; here the containers are descended: a container is walked for its own fields first, then
its children one by one, because protobuf does not say that a resource comes before its spans.

Two kinds of input are left to others, and `add` says so:

* `canonical` is false when a singular field occurs twice, or numbers that are always packed are not. The
  protobuf library merges such fields; rewriting the payload with it (`validate.py`) makes extents exact.
* `rejected` lists records that OTLP's data model does not allow. They are cut out of the payload before it is
  stored, so that every record of a stored payload has an offset, whatever later versions think of the rules.

In both cases, and when the payload is refused, the builder is left as it was.

Cost: about a tenth of a microsecond for a span of 400 B; no Python object is made for a record.
"""

import cython
from cython.cimports.collector.otlp.columns import (
    Rows,
    put8,
    put32,
    put64,
    put_double,
    release,
    reserve,
    shape,
    table_of,
)
from cython.cimports.collector.otlp.walk import (
    AS_DOUBLE,
    AS_INT,
    ATTRIBUTES,
    BAD_GROUP,
    BAD_LENGTH,
    BAD_PACKED,
    BAD_TAG,
    BAD_UTF8,
    BAD_VARINT,
    BODY,
    BOUNDS,
    BUCKET_COUNTS,
    FIRST_RECORD_SLOT,
    FLAGS,
    KIND,
    LACKING,
    METRIC_NAME,
    MONOTONIC,
    NAME,
    NO_MEMORY,
    OTHER_TIME,
    PARENT_SPAN_ID,
    RESOURCE,
    SCOPE,
    SEVERITY,
    SLOTS,
    SPAN_ID,
    STATUS,
    STRINDEX,
    TEMPORALITY,
    TIME,
    TOO_DEEP,
    TOO_LARGE,
    TOTAL,
    TRACE_ID,
    TRUNCATED,
    UNIT,
    Scan,
    child_of,
    fail,
    root_of,
    walk,
)
from cython.cimports.collector.otlp.wire import MIX_1, MIX_2, MIX_4, Extent, find_attribute, key_of, mix, next_field
from cython.cimports.libc.stdint import int64_t, uint8_t, uint32_t, uint64_t
from cython.cimports.libc.string import memcpy, memset

from collector.errors import Malformed
from collector.otlp.block import GROUPS, RECORDS, Block

_FAILURES = {
    TRUNCATED: "the message ends in the middle of a field",
    BAD_TAG: "a field tag is not valid",
    BAD_VARINT: "a varint is cut short or longer than 10 bytes",
    BAD_LENGTH: "a length reaches beyond the end of its message",
    BAD_UTF8: "a string is not valid UTF-8",
    TOO_DEEP: "messages are nested more than 100 deep",
    BAD_GROUP: "a group or a wire type is not valid",
    BAD_PACKED: "packed numbers are cut short",
    TOO_LARGE: "a payload reaches 4 GiB",
    NO_MEMORY: "no memory for the columns",
}

REASONS = (
    "trace_id must be 16 bytes and not all zero",
    "span_id must be 8 bytes and not all zero",
    "time_unix_nano is not set",
    "the data point has no value",
    "bucket_counts must have one element more than explicit_bounds, or both none",
    "explicit_bounds must increase strictly",
    "aggregation_temporality is not specified",
    "an exemplar has no value",
)
"""Why a record can be rejected; `Added.reasons` counts in this order."""

_FIRST_ROWS = cython.declare(cython.Py_ssize_t, 16)
_SLACK_SHARE = cython.declare(cython.Py_ssize_t, 32)  # one part in so many of a payload's buffer may lie unused
_KEPT_ROOM = cython.declare(cython.Py_ssize_t, 65536)  # rows of scratch that a builder keeps between blocks


@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def _small(value: uint64_t) -> uint8_t:
    """Fit an enum's number into a byte; 255 stands for all that no version of OTLP has named."""
    return cython.cast(uint8_t, value) if value < 255 else 255


@cython.cclass
class Added:
    """What became of one payload: `canonical`, the number of `records`, and those `rejected` by ordinal.

    `reasons` counts rejected records in the order of `REASONS`. `strindex` tells of a reference into the string table
    of profiles, which nothing else has.
    """

    canonical = cython.declare(cython.bint, visibility="readonly")
    records = cython.declare(cython.Py_ssize_t, visibility="readonly")
    rejected = cython.declare(list, visibility="readonly")
    reasons = cython.declare(list, visibility="readonly")
    strindex = cython.declare(cython.bint, visibility="readonly")


@cython.cclass
class BlockBuilder:
    """The block under construction: the payloads of the commit to come, and their columns so far.

    Owned by one thread. `add` scans a payload and appends it; `build` seals what was added into a Block and
    leaves the builder empty.
    """

    signal = cython.declare(object, visibility="readonly")
    payloads = cython.declare(list, visibility="readonly")
    size = cython.declare(cython.Py_ssize_t, visibility="readonly")
    _code: cython.int
    _strict: cython.bint
    _time: cython.int  # the place of the column `time`
    _scan: Scan
    _records: Rows
    _groups: Rows
    _ordinal: cython.Py_ssize_t
    _rejected: list
    _reasons: uint32_t[8]
    # the containers that the record at hand lies in
    _envelope: Extent
    _resource: Extent
    _scope_envelope: Extent
    _scope: Extent
    _metric: Extent
    _name: Extent
    _unit: Extent
    _service: Extent
    _service_key: uint64_t
    _name_key: uint64_t
    _resource_key: uint64_t
    _series_key: uint64_t
    _temporality: uint8_t
    _monotonic: uint8_t
    _type: uint8_t
    _group_open: cython.bint

    def __cinit__(self, signal):
        self.signal = signal
        self.payloads = []
        self._code = signal.code
        self._strict = True
        self._time = list(RECORDS[signal].columns).index("time")
        shape(cython.address(self._records), RECORDS[signal])
        shape(cython.address(self._groups), GROUPS[signal])

    def __dealloc__(self):
        release(cython.address(self._records))
        release(cython.address(self._groups))

    @property
    def records(self) -> int:
        """The number of records added since the last `build`."""
        return self._records.count

    def add(self, payload: object) -> Added:
        """Scan a payload and append it, if it is canonical and no record of it is rejected.

        The payload (bytes or bytearray) is kept without a copy and must not change afterwards. Raises
        Malformed, naming the byte, if the protobuf library would refuse it too.
        """
        records: cython.Py_ssize_t = self._records.count
        groups: cython.Py_ssize_t = self._groups.count
        added: Added = Added.__new__(Added)
        if not self._scan_payload(payload, False):
            self._records.count = records
            self._groups.count = groups
            raise self._malformed()
        added.canonical = not self._scan.merged
        added.rejected = self._rejected
        added.strindex = self._scan.has >> STRINDEX & 1
        added.records = self._records.count - records
        if self._rejected is not None:
            added.reasons = [self._reasons[i] for i in range(len(REASONS))]
        if self._scan.merged or self._rejected is not None:
            self._records.count = records
            self._groups.count = groups
        elif added.records:
            self.payloads.append(payload)
            self.size += len(payload)
        return added

    def build(self, base_offset: int) -> Block:
        """Return everything added since the last call as one block, and start again with an empty one."""
        payload = self.payloads[0] if len(self.payloads) == 1 else b"".join(self.payloads)
        if isinstance(payload, bytearray) and payload.__alloc__() - len(payload) > len(payload) // _SLACK_SHARE:
            payload = bytes(payload)
        records = table_of(cython.address(self._records), RECORDS[self.signal])
        groups = table_of(cython.address(self._groups), GROUPS[self.signal])
        times: cython.pointer(uint64_t) = cython.cast(cython.pointer(uint64_t), self._records.column[self._time])
        first: uint64_t = 0
        last: uint64_t = 0
        i: cython.Py_ssize_t
        for i in range(self._records.count):
            if i == 0 or times[i] < first:
                first = times[i]
            if i == 0 or times[i] > last:
                last = times[i]
        self.payloads = []
        self.size = 0
        self._records.count = 0
        self._groups.count = 0
        if self._records.room > _KEPT_ROOM or self._groups.room > _KEPT_ROOM:
            release(cython.address(self._records))
            release(cython.address(self._groups))
        return Block(self.signal, base_offset, payload, records, groups, first, last)

    def _malformed(self) -> Malformed:
        position = self._scan.at - self._scan.base
        message = self.signal.request_type.DESCRIPTOR.name
        return Malformed(f"not a valid {message}: at byte {position}, {_FAILURES[self._scan.failure]}")

    @cython.cfunc
    def _scan_payload(self, payload: object, release_gil: cython.bint) -> cython.bint:
        view: cython.const[uint8_t][::1] = payload if len(payload) else b"\0"
        length: cython.Py_ssize_t = len(payload)
        at: cython.pointer(cython.const[uint8_t]) = cython.address(view[0])
        fine: cython.bint
        memset(cython.address(self._scan), 0, cython.sizeof(Scan))
        memset(self._reasons, 0, cython.sizeof(self._reasons))
        self._rejected = None
        self._ordinal = 0
        self._scan.base = at
        if length + self.size >= 0xFFFFFFFF:
            return fail(cython.address(self._scan), at, TOO_LARGE)
        if release_gil:
            with cython.nogil:
                fine = self._request(at, at + length)
        else:
            fine = self._request(at, at + length)
        return fine

    # --- containers, from the outside in ------------------------------------------------------------------

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _request(
        self, at: cython.pointer(cython.const[uint8_t]), end: cython.pointer(cython.const[uint8_t])
    ) -> cython.bint:
        tag: uint32_t = 0
        number: uint64_t = 0
        child: Extent
        message: cython.int = root_of(self._code)
        if not walk(cython.address(self._scan), at, end, message, 0):
            return False
        message = child_of(message, 1)
        while at < end:
            at = next_field(at, end, cython.address(tag), cython.address(number), cython.address(child))
            if tag == 10 and not self._scan_envelope(child.at, child.at + child.length, message):
                return False
        return True

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _scan_envelope(
        self, at: cython.pointer(cython.const[uint8_t]), end: cython.pointer(cython.const[uint8_t]), message: cython.int
    ) -> cython.bint:
        tag: uint32_t = 0
        number: uint64_t = 0
        child: Extent
        value: Extent
        self._captured_none(RESOURCE)
        if not walk(cython.address(self._scan), at, end, message, 1):
            return False
        self._envelope.at = at
        self._envelope.length = cython.cast(uint32_t, end - at)
        self._capture(RESOURCE, cython.address(self._resource))
        self._service.at = cython.NULL
        self._service.length = 0
        self._service_key = 0
        self._resource_key = 0
        if self._resource.at != cython.NULL:
            self._resource_key = key_of(self._resource.at, self._resource.length)
            if find_attribute(
                self._resource.at,
                self._resource.at + self._resource.length,
                1,
                cython.cast(cython.pointer(cython.const[uint8_t]), cython.cast(cython.p_const_char, b"service.name")),
                12,
                cython.address(value),
            ):
                self._take_service(value)
        message = child_of(message, 2)
        while at < end:
            at = next_field(at, end, cython.address(tag), cython.address(number), cython.address(child))
            if tag == 18 and not self._scan_scope(child.at, child.at + child.length, message):
                return False
        return True

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _take_service(self, value: Extent) -> cython.void:
        """Let the service be the string that an AnyValue holds, if it holds one that is not empty."""
        tag: uint32_t = 0
        number: uint64_t = 0
        content: Extent
        at: cython.pointer(cython.const[uint8_t]) = value.at
        end: cython.pointer(cython.const[uint8_t]) = value.at + value.length
        while at < end:
            at = next_field(at, end, cython.address(tag), cython.address(number), cython.address(content))
            if tag == 10 and content.length > 0:
                self._service = content
                self._service_key = key_of(content.at, content.length)

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _scan_scope(
        self, at: cython.pointer(cython.const[uint8_t]), end: cython.pointer(cython.const[uint8_t]), message: cython.int
    ) -> cython.bint:
        tag: uint32_t = 0
        number: uint64_t = 0
        child: Extent
        self._captured_none(SCOPE)
        if not walk(cython.address(self._scan), at, end, message, 2):
            return False
        self._scope_envelope.at = at
        self._scope_envelope.length = cython.cast(uint32_t, end - at)
        self._capture(SCOPE, cython.address(self._scope))
        self._group_open = False
        message = child_of(message, 2)
        while at < end:
            at = next_field(at, end, cython.address(tag), cython.address(number), cython.address(child))
            if tag != 18:
                continue
            if self._code == 3:
                if not self._scan_metric(child.at, child.at + child.length, message):
                    return False
            elif not self._scan_record(child.at, child.at + child.length, message, 3):
                return False
        return True

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _scan_metric(
        self, at: cython.pointer(cython.const[uint8_t]), end: cython.pointer(cython.const[uint8_t]), message: cython.int
    ) -> cython.bint:
        tag: uint32_t = 0
        number: uint64_t = 0
        field: uint32_t
        data: Extent
        scan: cython.pointer(Scan) = cython.address(self._scan)
        self._captured_none(METRIC_NAME)
        self._captured_none(UNIT)
        if not walk(scan, at, end, message, 3):
            return False
        self._metric.at = at
        self._metric.length = cython.cast(uint32_t, end - at)
        self._capture(METRIC_NAME, cython.address(self._name))
        self._capture(UNIT, cython.address(self._unit))
        self._name_key = key_of(self._name.at, self._name.length) if self._name.length else 0
        self._group_open = False
        while at < end:
            at = next_field(at, end, cython.address(tag), cython.address(number), cython.address(data))
            field = tag >> 3
            # Metric's data: 5 gauge, 7 sum, 9 histogram, 10 exponential histogram, 11 summary.
            if data.at != cython.NULL and (field == 5 or field == 7 or (field >= 9 and field <= 11)):
                self._type = 1 if field == 5 else 2 if field == 7 else field - 6
                if not self._scan_points(data.at, data.at + data.length, child_of(message, field)):
                    return False
        return True

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _scan_points(
        self, at: cython.pointer(cython.const[uint8_t]), end: cython.pointer(cython.const[uint8_t]), message: cython.int
    ) -> cython.bint:
        tag: uint32_t = 0
        number: uint64_t = 0
        key: uint64_t
        point: Extent
        scan: cython.pointer(Scan) = cython.address(self._scan)
        self._captured_none(TEMPORALITY)
        self._captured_none(MONOTONIC)
        if not walk(scan, at, end, message, 4):
            return False
        self._temporality = cython.cast(uint8_t, scan.value[TEMPORALITY] & 0xFF)
        self._monotonic = 1 if scan.value[MONOTONIC] else 0
        key = self._resource_key
        if self._scope.at != cython.NULL:
            key = mix(key ^ key_of(self._scope.at, self._scope.length), MIX_2)
        key = mix(key ^ self._name_key, MIX_1)
        if self._unit.length:
            key = mix(key ^ key_of(self._unit.at, self._unit.length), MIX_2)
        self._series_key = mix(
            key ^ (self._type | cython.cast(uint32_t, self._temporality) << 8 | self._monotonic << 16), MIX_1
        )
        message = child_of(message, 1)
        while at < end:
            at = next_field(at, end, cython.address(tag), cython.address(number), cython.address(point))
            if tag == 10 and not self._scan_record(point.at, point.at + point.length, message, 5):
                return False
        return True

    # --- records ------------------------------------------------------------------------------------------

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _scan_record(
        self,
        at: cython.pointer(cython.const[uint8_t]),
        end: cython.pointer(cython.const[uint8_t]),
        message: cython.int,
        depth: cython.int,
    ) -> cython.bint:
        scan: cython.pointer(Scan) = cython.address(self._scan)
        reason: cython.int
        scan.has &= (1 << FIRST_RECORD_SLOT) - 1
        memset(scan.value + FIRST_RECORD_SLOT, 0, (SLOTS - FIRST_RECORD_SLOT) * 8)
        memset(scan.length + FIRST_RECORD_SLOT, 0, (SLOTS - FIRST_RECORD_SLOT) * 4)
        if not walk(scan, at, end, message, depth):
            return False
        if self._strict:
            reason = self._judge()
            if reason >= 0:
                self._reject(reason)
                self._ordinal += 1
                return True
        self._ordinal += 1
        if not self._group_open:
            if not reserve(cython.address(self._groups), _FIRST_ROWS):
                return fail(scan, at, NO_MEMORY)
            self._emit_group()
            self._group_open = True
        if not reserve(cython.address(self._records), _FIRST_ROWS):
            return fail(scan, at, NO_MEMORY)
        if self._code == 1:
            self._emit_span(at, end)
        elif self._code == 2:
            self._emit_log(at, end)
        else:
            self._emit_point(at, end)
        self._records.count += 1
        return True

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _judge(self) -> cython.int:
        """Return the index in REASONS of the rule that the record breaks, or -1."""
        scan: cython.pointer(Scan) = cython.address(self._scan)
        if self._code == 1:
            if not self._is_id(TRACE_ID, 16):
                return 0
            return -1 if self._is_id(SPAN_ID, 8) else 1
        if self._code == 2:
            return -1
        if scan.value[TIME] == 0:
            return 2
        if self._type <= 2 and not scan.has & (1 << AS_DOUBLE | 1 << AS_INT) and not scan.value[FLAGS] & 1:
            return 3
        if 2 <= self._type <= 4 and self._temporality == 0:
            return 6
        if scan.has & (1 << LACKING):
            return 7
        return self._judge_buckets() if self._type == 3 else -1

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _judge_buckets(self) -> cython.int:
        scan: cython.pointer(Scan) = cython.address(self._scan)
        counts: uint32_t = scan.length[BUCKET_COUNTS] // 8
        bounds: uint32_t = scan.length[BOUNDS] // 8
        at: cython.pointer(cython.const[uint8_t]) = scan.base + scan.value[BOUNDS]
        lower: cython.double
        upper: cython.double
        i: uint32_t
        if (counts == 0 and bounds != 0) or (counts != 0 and counts != bounds + 1):
            return 4
        for i in range(1, bounds):
            memcpy(cython.address(lower), at + 8 * (i - 1), 8)
            memcpy(cython.address(upper), at + 8 * i, 8)
            if not lower < upper:
                return 5
        return -1

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _is_id(self, slot: cython.int, length: uint32_t) -> cython.bint:
        at: cython.pointer(cython.const[uint8_t]) = self._scan.base + self._scan.value[slot]
        i: uint32_t
        if self._scan.length[slot] != length:
            return False
        for i in range(length):
            if at[i]:
                return True
        return False

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _reject(self, reason: cython.int) -> cython.void:
        self._reasons[reason] += 1
        with cython.gil:
            if self._rejected is None:
                self._rejected = []
            self._rejected.append(self._ordinal)

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _captured_none(self, slot: cython.int) -> cython.void:
        self._scan.has &= ~(cython.cast(uint32_t, 1) << slot)
        self._scan.value[slot] = 0
        self._scan.length[slot] = 0

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _capture(self, slot: cython.int, extent: cython.pointer(Extent)) -> cython.void:
        extent.at = cython.NULL
        extent.length = self._scan.length[slot]
        if self._scan.has & (cython.cast(uint32_t, 1) << slot):
            extent.at = self._scan.base + self._scan.value[slot]

    # --- emission: column numbers are places in block.RECORDS and block.GROUPS ----------------------------

    @cython.cfunc
    @cython.nogil
    @cython.inline
    @cython.exceptval(check=False)
    def _place(self, at: cython.pointer(cython.const[uint8_t])) -> uint64_t:
        """Where a byte of this payload will lie in the block's payload."""
        return cython.cast(uint64_t, at - self._scan.base) + self.size

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _put_id(self, column: cython.int, slot: cython.int, length: uint32_t) -> cython.void:
        """Store an id of the right length as it is, and any other as absent: all zero."""
        place: cython.pointer(uint8_t) = self._records.column[column] + self._records.count * length
        if self._scan.length[slot] == length:
            memcpy(place, self._scan.base + self._scan.value[slot], length)
        else:
            memset(place, 0, length)

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _put_extent(self, column: cython.int, extent: Extent) -> cython.void:
        """Store a group's extent in two columns, its start and its length."""
        rows: cython.pointer(Rows) = cython.address(self._groups)
        put32(rows, column, self._place(extent.at) if extent.at != cython.NULL else 0)
        put32(rows, column + 1, extent.length)

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _emit_group(self) -> cython.void:
        rows: cython.pointer(Rows) = cython.address(self._groups)
        put64(rows, 0, self._service_key)
        self._put_extent(1, self._envelope)
        self._put_extent(3, self._resource)
        self._put_extent(5, self._scope_envelope)
        self._put_extent(7, self._scope)
        self._put_extent(9, self._service)
        if self._code == 3:
            self._put_extent(11, self._metric)
            self._put_extent(13, self._name)
            self._put_extent(15, self._unit)
            put8(rows, 17, self._temporality)
            put8(rows, 18, self._monotonic)
        rows.count += 1

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _emit_span(
        self, at: cython.pointer(cython.const[uint8_t]), end: cython.pointer(cython.const[uint8_t])
    ) -> cython.void:
        rows: cython.pointer(Rows) = cython.address(self._records)
        scan: cython.pointer(Scan) = cython.address(self._scan)
        length: uint32_t = scan.length[NAME]
        name: cython.pointer(cython.const[uint8_t]) = scan.base + scan.value[NAME]
        self._put_id(0, TRACE_ID, 16)
        put64(rows, 1, scan.value[TIME])
        put64(rows, 2, scan.value[OTHER_TIME])
        self._put_id(3, SPAN_ID, 8)
        self._put_id(4, PARENT_SPAN_ID, 8)
        put64(rows, 5, key_of(name, length) if length else 0)
        put64(rows, 6, self._service_key)
        put32(rows, 7, self._place(at))
        put32(rows, 8, end - at)
        put32(rows, 9, self._groups.count - 1)
        put32(rows, 10, self._place(name) if length else 0)
        put32(rows, 11, length)
        put8(rows, 12, _small(scan.value[KIND]))
        put8(rows, 13, _small(scan.value[STATUS]))

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _emit_log(
        self, at: cython.pointer(cython.const[uint8_t]), end: cython.pointer(cython.const[uint8_t])
    ) -> cython.void:
        rows: cython.pointer(Rows) = cython.address(self._records)
        scan: cython.pointer(Scan) = cython.address(self._scan)
        self._put_id(0, TRACE_ID, 16)
        put64(rows, 1, scan.value[TIME] if scan.value[TIME] else scan.value[OTHER_TIME])
        put64(rows, 2, scan.value[OTHER_TIME])
        self._put_id(3, SPAN_ID, 8)
        put64(rows, 4, self._service_key)
        put32(rows, 5, self._place(at))
        put32(rows, 6, end - at)
        put32(rows, 7, self._groups.count - 1)
        put32(rows, 8, self._place(scan.base + scan.value[BODY]) if scan.length[BODY] else 0)
        put32(rows, 9, scan.length[BODY])
        put8(rows, 10, _small(scan.value[SEVERITY]))

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _emit_point(
        self, at: cython.pointer(cython.const[uint8_t]), end: cython.pointer(cython.const[uint8_t])
    ) -> cython.void:
        rows: cython.pointer(Rows) = cython.address(self._records)
        scan: cython.pointer(Scan) = cython.address(self._scan)
        value: cython.double = 0
        value_type: uint8_t = 0
        if scan.has & (1 << AS_INT):
            value = cython.cast(cython.double, cython.cast(int64_t, scan.value[AS_INT]))
            value_type = 2
        elif scan.has & (1 << AS_DOUBLE):
            memcpy(cython.address(value), cython.address(scan.value[AS_DOUBLE]), 8)
            value_type = 1
        elif scan.has & (1 << TOTAL):
            memcpy(cython.address(value), cython.address(scan.value[TOTAL]), 8)
            value_type = 1
        put64(rows, 0, scan.value[TIME])
        put64(rows, 1, scan.value[OTHER_TIME])
        put_double(rows, 2, value)
        put64(rows, 3, mix(self._series_key ^ scan.value[ATTRIBUTES], MIX_4))
        put64(rows, 4, self._name_key)
        put64(rows, 5, self._service_key)
        put32(rows, 6, self._place(at))
        put32(rows, 7, end - at)
        put32(rows, 8, self._groups.count - 1)
        put32(rows, 9, scan.value[FLAGS])
        put8(rows, 10, self._type)
        put8(rows, 11, value_type)


def scan(signal: object, payload: object, base_offset: int) -> Block:
    """Return the block of a payload that was accepted before, as read back from the log.

    Every record counts, whatever today's rules of acceptance. The GIL is released meanwhile. Raises Malformed
    when the payload does not scan, which means that what was stored is not what was accepted.
    """
    builder: BlockBuilder = BlockBuilder(signal)
    builder._strict = False
    if not builder._scan_payload(payload, True):
        raise builder._malformed()
    builder.payloads.append(payload)
    return builder.build(base_offset)
