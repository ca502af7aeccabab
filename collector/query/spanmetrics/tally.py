# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Counters by label set over the spans of blocks, in one pass over the columns.

What is counted stands in tables of `labelsets.py`. `Tally` counts each span in the label set of its service, name, kind and status, and pairs spans that call with
spans that are called: a client (or producer) span with the server (or consumer) span whose parent it is. Who comes first
waits in a table of two generations for the other: a new span goes into the newer one, and is looked for in both. `turn`
ends the older one: who still waits there is expired. It is called by the clock, and by the tally itself when the newer
generation is full, so memory is bounded and a span waits for at least `waiting` others. A span that expires makes an
edge with a virtual node when it says who the other is (`peer.service`), and a server span without a parent makes one
with the node `user` at once; a client span with attributes of a database makes an edge with that, without waiting.

Bounds of buckets double from the first one on.

Cost: 10 ns a span; 20 ns more for one that waits, and 60 ns for a client span that finds no server waiting, whose
attributes are walked once (measured while the block's bytes are cached).
"""

import cython
import numpy as np
from cython.cimports.collector.otlp.wire import MIX_1, SEED, Extent, key_of, mix
from cython.cimports.collector.query.spanmetrics.callee import find_callee
from cython.cimports.collector.query.spanmetrics.labelsets import LabelSets
from cython.cimports.cpython.bytes import PyBytes_AS_STRING
from cython.cimports.libc.stdint import int32_t, uint8_t, uint32_t, uint64_t
from cython.cimports.libc.stdlib import calloc, free
from cython.cimports.libc.string import memset

from collector.query.spanmetrics.labelsets import power_of_two

NO_CONNECTION = 0
MESSAGING = 1
DATABASE = 2
VIRTUAL = 3
"""What connects client and server; the last word of an edge's key."""

USER = 1
OVERFLOW = 2
"""Keys of names that are no text of a span: who calls a root, and names that found no room, or are too long."""

_CLIENT = cython.declare(uint8_t, 1)
_SERVER = cython.declare(uint8_t, 2)
_SIDE = cython.declare(uint8_t, 3)
_FAILED = cython.declare(uint8_t, 4)
_MESSAGING = cython.declare(uint8_t, 8)
_NO_CONNECTION = cython.declare(uint64_t, 0)
_BY_MESSAGES = cython.declare(uint64_t, 1)
_TO_DATABASE = cython.declare(uint64_t, 2)
_TO_VIRTUAL = cython.declare(uint64_t, 3)
_USER = cython.declare(uint64_t, 1)
_OVERFLOW = cython.declare(uint64_t, 2)
_NAME_BYTES_MAX = cython.declare(uint32_t, 512)
_STATUS_ERROR = cython.declare(uint8_t, 2)
_KIND_SERVER = cython.declare(uint8_t, 2)
_KIND_CLIENT = cython.declare(uint8_t, 3)
_KIND_PRODUCER = cython.declare(uint8_t, 4)
_KIND_CONSUMER = cython.declare(uint8_t, 5)

_Waiting = cython.struct(
    high=uint64_t, low=uint64_t, span=uint64_t, service=uint64_t, peer=uint64_t, took=uint64_t, flags=uint8_t
)
# Marks are odd; 0 is an empty place. They are all that most lookups read: few bytes, which stay cached.
_Generation = cython.struct(marks=cython.pointer(uint32_t), spans=cython.pointer(_Waiting), count=cython.Py_ssize_t)
_DONE = cython.declare(uint32_t, 2)  # instead of a mark: who waited here was found
_Name = cython.struct(key=uint64_t, start=uint32_t, length=uint32_t)


@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def _bucket(took: uint64_t, first: uint64_t, bounds: cython.Py_ssize_t) -> cython.Py_ssize_t:
    """Return the bucket of a duration: the first whose bound, `first` doubled so often, is not below it."""
    bound: uint64_t = first
    bucket: cython.Py_ssize_t = 0
    _i: cython.Py_ssize_t
    for _i in range(bounds):  # without a branch on the duration, and without a division: both cost more than all steps
        bucket += took > bound
        bound += bound
    return bucket


@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def _key_of(high: uint64_t, low: uint64_t, span: uint64_t) -> uint64_t:
    """Return the key of a span's id within its trace."""
    return mix(high ^ low ^ SEED, span ^ MIX_1)


def bucket_of(took: int, first: int, bounds: int) -> int:
    """Return the bucket of a duration among `bounds` and one beyond; the first bound is `first`, each is twice the last."""
    return _bucket(took, first, bounds)


@cython.cclass
class Tally:
    """Counts spans, and pairs those that call with those that are called. Owned by one thread."""

    calls = cython.declare(LabelSets, visibility="readonly")
    edges = cython.declare(LabelSets, visibility="readonly")
    names = cython.declare(dict, visibility="readonly")
    expired = cython.declare(uint64_t, visibility="readonly")
    _record_places: cython.Py_ssize_t[13]
    _group_places: cython.Py_ssize_t[2]
    _call_bound: uint64_t
    _call_bounds: cython.Py_ssize_t
    _edge_bound: uint64_t
    _edge_bounds: cython.Py_ssize_t
    _waiting_max: cython.Py_ssize_t
    _mask: uint64_t
    _newer: _Generation
    _older: _Generation
    _known: cython.pointer(uint64_t)  # hash table of names' keys
    _known_mask: uint64_t
    _known_count: cython.Py_ssize_t
    _known_max: cython.Py_ssize_t
    _new: cython.pointer(_Name)  # of the block that is being counted
    _new_count: cython.Py_ssize_t

    def __cinit__(
        self, records, groups, calls: LabelSets, call_bounds, edges: LabelSets, edge_bounds, waiting: int, names: int
    ):
        """Take the layouts of blocks; where calls and edges are counted, each with (first bound in ns, bounds); how many
        spans of a generation may wait, and how many names of services and peers may be known.

        A row of calls counts the buckets, and sums seconds. A row of edges counts what failed, the server's buckets and
        the client's, and sums the server's seconds and the client's.
        """
        order = (
            "trace_id", "time", "end_time", "span_id", "parent_span_id", "name", "service", "start", "length", "group",
            "kind", "name_length", "status",
        )  # fmt: skip
        i: cython.int
        for i in range(13):
            self._record_places[i] = records.columns[order[i]][1]
        self._group_places[0] = groups.columns["service_start"][1]
        self._group_places[1] = groups.columns["service_length"][1]
        self.calls, self.edges, self.names = calls, edges, {}
        self._call_bound, self._call_bounds = call_bounds
        self._edge_bound, self._edge_bounds = edge_bounds
        if calls.counts.shape[1] != self._call_bounds + 1 or edges.counts.shape[1] != 2 * self._edge_bounds + 3:
            raise ValueError("the tables have other widths than the buckets")
        self._waiting_max = waiting
        self._mask = power_of_two(2 * waiting) - 1
        self._known_max = names
        self._known_mask = power_of_two(2 * names) - 1
        self._newer.spans = cython.cast(cython.pointer(_Waiting), calloc(self._mask + 1, cython.sizeof(_Waiting)))
        self._older.spans = cython.cast(cython.pointer(_Waiting), calloc(self._mask + 1, cython.sizeof(_Waiting)))
        self._newer.marks = cython.cast(cython.pointer(uint32_t), calloc(self._mask + 1, 4))
        self._older.marks = cython.cast(cython.pointer(uint32_t), calloc(self._mask + 1, 4))
        self._known = cython.cast(cython.pointer(uint64_t), calloc(self._known_mask + 1, 8))
        self._new = cython.cast(cython.pointer(_Name), calloc(names, cython.sizeof(_Name)))
        if (
            self._newer.spans == cython.NULL
            or self._older.spans == cython.NULL
            or self._newer.marks == cython.NULL
            or self._older.marks == cython.NULL
            or self._known == cython.NULL
            or self._new == cython.NULL
        ):
            raise MemoryError

    def __dealloc__(self):
        free(self._newer.spans)
        free(self._older.spans)
        free(self._newer.marks)
        free(self._older.marks)
        free(self._known)
        free(self._new)

    @property
    def waiting(self) -> int:
        """How many spans have been put to wait in both generations, found or not."""
        return self._newer.count + self._older.count

    @property
    def nbytes(self) -> int:
        """The bytes of all arrays; names are estimated."""
        own: cython.Py_ssize_t = 2 * (self._mask + 1) * (cython.sizeof(_Waiting) + 4) + (self._known_mask + 1) * 8
        own += self._known_max * cython.sizeof(_Name) + self._known_count * 200
        return own + self.calls.nbytes + self.edges.nbytes

    def add(self, payload, records: bytes, count: int, groups: bytes, group_count: int, begin: int, end: int) -> None:
        """Count rows begin to end of a block of spans: its payload, and the buffers of its two tables."""
        if not 0 <= begin <= end <= count:
            raise IndexError(f"rows {begin} to {end} of {count}")
        if begin == end:
            return
        view: cython.const[uint8_t][::1] = payload
        base: cython.pointer(cython.const[uint8_t]) = cython.address(view[0]) if len(payload) else cython.NULL
        table: cython.p_char = PyBytes_AS_STRING(records)
        grouped: cython.p_char = PyBytes_AS_STRING(groups)
        first: cython.Py_ssize_t = begin
        last: cython.Py_ssize_t = end
        rows: cython.Py_ssize_t = count
        group_rows: cython.Py_ssize_t = group_count
        i: cython.Py_ssize_t
        with cython.nogil:
            for i in range(first, last):
                self._add(base, table, rows, grouped, group_rows, i)
        for i in range(self._new_count):
            start = self._new[i].start
            raw = bytes(payload[start : start + self._new[i].length])
            self.names[self._new[i].key] = raw.decode("utf-8", "replace")
        self._new_count = 0

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _add(
        self,
        base: cython.pointer(cython.const[uint8_t]),
        table: cython.p_char,
        rows: cython.Py_ssize_t,
        grouped: cython.p_char,
        group_rows: cython.Py_ssize_t,
        i: cython.Py_ssize_t,
    ) -> cython.void:
        places: cython.pointer(cython.Py_ssize_t) = self._record_places
        # Columns are aligned: a table's buffer is, and wide ones come first.
        ids: cython.pointer(uint64_t) = cython.cast(cython.pointer(uint64_t), table + places[0] * rows)
        start: uint64_t = cython.cast(cython.pointer(uint64_t), table + places[1] * rows)[i]
        end: uint64_t = cython.cast(cython.pointer(uint64_t), table + places[2] * rows)[i]
        service: uint64_t = cython.cast(cython.pointer(uint64_t), table + places[6] * rows)[i]
        name: uint64_t = cython.cast(cython.pointer(uint64_t), table + places[5] * rows)[i]
        kind: uint8_t = cython.cast(cython.pointer(uint8_t), table + places[10] * rows)[i]
        status: uint8_t = cython.cast(cython.pointer(uint8_t), table + places[12] * rows)[i]
        took: uint64_t = end - start if end > start else 0
        group: uint32_t = cython.cast(cython.pointer(uint32_t), table + places[9] * rows)[i]
        service_length: uint32_t = cython.cast(cython.pointer(uint32_t), grouped + self._group_places[1] * group_rows)[
            group
        ]
        slot: int32_t = 0
        if (
            service_length > _NAME_BYTES_MAX
            or cython.cast(cython.pointer(uint32_t), table + places[11] * rows)[i] > _NAME_BYTES_MAX
        ):
            self.calls.folded += 1
        else:
            slot = self.calls._slot(service, name, cython.cast(uint64_t, kind) << 8 | status, i)
        self.calls._count[slot, _bucket(took, self._call_bound, self._call_bounds)] += 1
        self.calls._sum[slot, 0] += took * 1e-9
        if service == 0 or kind < _KIND_SERVER or kind > _KIND_CONSUMER:
            return
        flags: uint8_t = _FAILED if status == _STATUS_ERROR else 0
        if kind >= _KIND_PRODUCER:
            flags |= _MESSAGING
        service = self._name(
            service,
            cython.cast(cython.pointer(uint32_t), grouped + self._group_places[0] * group_rows)[group],
            service_length,
        )
        span: uint64_t
        key: uint64_t
        if kind == _KIND_CLIENT or kind == _KIND_PRODUCER:
            span = cython.cast(cython.pointer(uint64_t), table + places[3] * rows)[i]
            self._calling(
                base,
                cython.cast(cython.pointer(uint32_t), table + places[7] * rows)[i],
                cython.cast(cython.pointer(uint32_t), table + places[8] * rows)[i],
                ids[2 * i],
                ids[2 * i + 1],
                span,
                service,
                took,
                flags | _CLIENT,
            )
        else:
            span = cython.cast(cython.pointer(uint64_t), table + places[4] * rows)[i]
            if span == 0:
                self._edge(_USER, service, _TO_VIRTUAL, 0, took, flags)
                return
            key = _key_of(ids[2 * i], ids[2 * i + 1], span)
            flags |= _SERVER
            if not self._paired(key, ids[2 * i], ids[2 * i + 1], span, service, took, flags):
                self._wait(key, ids[2 * i], ids[2 * i + 1], span, service, 0, took, flags)

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _calling(
        self,
        base: cython.pointer(cython.const[uint8_t]),
        start: uint32_t,
        length: uint32_t,
        high: uint64_t,
        low: uint64_t,
        span: uint64_t,
        service: uint64_t,
        took: uint64_t,
        flags: uint8_t,
    ) -> cython.void:
        """Take a client's or producer's span, whose message lies in the payload from `start`."""
        key: uint64_t = _key_of(high, low, span)
        if self._paired(key, high, low, span, service, took, flags):
            return
        callee: Extent
        database: cython.bint = find_callee(base + start, base + start + length, cython.address(callee))
        peer: uint64_t = 0
        if callee.at != cython.NULL and callee.length:
            peer = self._name(key_of(callee.at, callee.length), cython.cast(uint32_t, callee.at - base), callee.length)
        if database and peer:
            self._edge(service, peer, _TO_DATABASE, took, took, flags)
        else:
            self._wait(key, high, low, span, service, peer, took, flags)

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _name(self, key: uint64_t, start: uint32_t, length: uint32_t) -> uint64_t:
        """Return the key of a name whose text is, or will be, known: itself, or _OVERFLOW."""
        at: uint64_t = mix(key, SEED) & self._known_mask
        while self._known[at] != 0:
            if self._known[at] == key:
                return key
            at = (at + 1) & self._known_mask
        if self._known_count >= self._known_max or length > _NAME_BYTES_MAX or key <= _OVERFLOW:
            return _OVERFLOW
        self._known[at] = key
        self._known_count += 1
        self._new[self._new_count].key = key
        self._new[self._new_count].start = start
        self._new[self._new_count].length = length
        self._new_count += 1
        return key

    @cython.cfunc
    @cython.nogil
    @cython.inline
    @cython.exceptval(check=False)
    def _find(
        self, table: cython.pointer(_Generation), key: uint64_t, high: uint64_t, low: uint64_t, span: uint64_t
    ) -> uint64_t:
        """Return the place where a span waits, or the empty one where it belongs. One that was found is passed over."""
        at: uint64_t = key & self._mask
        mark: uint32_t = cython.cast(uint32_t, key >> 32) | 1
        while table.marks[at] != 0 and (
            table.marks[at] != mark
            or table.spans[at].span != span
            or table.spans[at].low != low
            or table.spans[at].high != high
        ):
            at = (at + 1) & self._mask
        return at

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _paired(
        self,
        key: uint64_t,
        high: uint64_t,
        low: uint64_t,
        span: uint64_t,
        service: uint64_t,
        took: uint64_t,
        flags: uint8_t,
    ) -> cython.bint:
        """Make an edge with who waits on the other side, if anybody does. `key` is the id's, of `_key_of`."""
        table: cython.pointer(_Generation) = cython.address(self._newer)
        at: uint64_t = self._find(table, key, high, low, span)
        if table.marks[at] == 0:
            table = cython.address(self._older)
            at = self._find(table, key, high, low, span)
        if table.marks[at] == 0:
            return False
        other: cython.pointer(_Waiting) = cython.address(table.spans[at])
        if other.flags & _SIDE & flags:
            return False
        connection: uint64_t = _BY_MESSAGES if flags & _MESSAGING else _NO_CONNECTION
        both: uint8_t = flags | other.flags
        if flags & _CLIENT:
            self._edge(service, other.service, connection, took, other.took, both)
        else:
            self._edge(other.service, service, connection, other.took, took, both)
        table.marks[at] = _DONE
        return True

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _wait(
        self,
        key: uint64_t,
        high: uint64_t,
        low: uint64_t,
        span: uint64_t,
        service: uint64_t,
        peer: uint64_t,
        took: uint64_t,
        flags: uint8_t,
    ) -> cython.void:
        """Let a span wait. Of two on the same side, the newer one does."""
        if self._newer.count >= self._waiting_max:
            self._turn()
        at: uint64_t = self._find(cython.address(self._newer), key, high, low, span)
        if self._newer.marks[at] == 0:
            self._newer.marks[at] = cython.cast(uint32_t, key >> 32) | 1
            self._newer.count += 1
        place: cython.pointer(_Waiting) = cython.address(self._newer.spans[at])
        place.high, place.low, place.span = high, low, span
        place.service, place.peer, place.took, place.flags = service, peer, took, flags

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _edge(
        self,
        client: uint64_t,
        server: uint64_t,
        connection: uint64_t,
        client_took: uint64_t,
        server_took: uint64_t,
        flags: uint8_t,
    ) -> cython.void:
        slot: int32_t = 0
        if client == _OVERFLOW or server == _OVERFLOW:
            self.edges.folded += 1
        else:
            slot = self.edges._slot(client, server, connection, 0)
        if flags & _FAILED:
            self.edges._count[slot, 0] += 1
        self.edges._count[slot, 1 + _bucket(server_took, self._edge_bound, self._edge_bounds)] += 1
        self.edges._count[slot, 2 + self._edge_bounds + _bucket(client_took, self._edge_bound, self._edge_bounds)] += 1
        self.edges._sum[slot, 0] += server_took * 1e-9
        self.edges._sum[slot, 1] += client_took * 1e-9

    def turn(self) -> None:
        """End the older generation: who still waits there is expired."""
        self._turn()

    @cython.cfunc
    @cython.nogil
    @cython.exceptval(check=False)
    def _turn(self) -> cython.void:
        place: cython.pointer(_Waiting)
        at: uint64_t
        if self._older.count:
            for at in range(self._mask + 1):
                if self._older.marks[at] == 0 or self._older.marks[at] == _DONE:
                    continue
                self.expired += 1
                place = cython.address(self._older.spans[at])
                if place.flags & _CLIENT and place.peer:
                    self._edge(place.service, place.peer, _TO_VIRTUAL, place.took, 0, place.flags)
            memset(self._older.marks, 0, (self._mask + 1) * 4)
        older: _Generation = self._older
        self._older = self._newer
        self._newer = older
        self._newer.count = 0

    def names_known(self) -> int:
        """How many names are known."""
        return self._known_count

    def forget_names(self) -> None:
        """Forget all names but those of spans that wait; the others become known again with their next span."""
        at: uint64_t
        wanted = set()
        for at in range(self._mask + 1):
            if self._newer.marks[at] != 0:
                wanted |= {self._newer.spans[at].service, self._newer.spans[at].peer}
            if self._older.marks[at] != 0:
                wanted |= {self._older.spans[at].service, self._older.spans[at].peer}
        self.names = {key: text for key, text in self.names.items() if key in wanted}
        memset(self._known, 0, (self._known_mask + 1) * 8)
        self._known_count = 0
        key: uint64_t
        for key in self.names:
            at = mix(key, SEED) & self._known_mask
            while self._known[at] != 0:
                at = (at + 1) & self._known_mask
            self._known[at] = key
            self._known_count += 1
