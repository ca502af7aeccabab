# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Whom a client span calls, by its attributes.

Attributes have ranks; the first one in rank that has a text says who is called:

1 `peer.service`, 2 `server.address`, 3 `network.peer.address`, 4 `db.name` or `db.namespace`, 5 `db.system` or
`db.system.name`. One of ranks 4 and 5 makes it a call of a database; without one, only rank 1 counts: an address is no
service.

Cost: 30 to 60 ns for a span with ten attributes.
"""

import cython
from cython.cimports.collector.otlp.wire import Extent, next_field
from cython.cimports.libc.stdint import uint8_t, uint32_t, uint64_t
from cython.cimports.libc.string import memcmp

_ATTRIBUTES = cython.declare(uint32_t, 9 << 3 | 2)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def find_callee(
    at: cython.pointer(cython.const[uint8_t]),
    end: cython.pointer(cython.const[uint8_t]),
    found: cython.pointer(Extent),
) -> cython.bint:
    """Find who is called by a span, whose valid message lies from `at` to `end`; tell whether that is a database.

    `found` is NULL when there is nobody.
    """
    tag: uint32_t = 0
    number: uint64_t = 0
    pair: Extent
    text: Extent
    rank: cython.int
    best: cython.int = 9
    peer: Extent
    database: cython.bint = False
    peer.at = cython.NULL
    peer.length = 0
    found.at = cython.NULL
    found.length = 0
    while at < end:
        # Nearly all fields are short, and nearly all attributes have no rank: those are passed over here.
        if end - at > 9 and at[0] < 0x80:
            if at[0] & 7 == 2 and at[1] < 0x80:
                if at[0] != _ATTRIBUTES or (
                    at[1] > 2 and at[2] == 10 and at[3] < at[1] - 1 and _rank(at + 4, at[3]) == 0
                ):
                    at += 2 + at[1]
                    continue
            elif at[0] & 7 == 1:
                at += 9
                continue
        at = next_field(at, end, cython.address(tag), cython.address(number), cython.address(pair))
        if at == cython.NULL:
            break
        if tag != _ATTRIBUTES or pair.at == cython.NULL:
            continue
        rank = _ranked(pair.at, pair.at + pair.length, cython.address(text))
        if rank == 0:
            continue
        if rank >= 4:
            database = True
        if rank == 1:
            peer = text
        if rank < best:
            best = rank
            found[0] = text
    if not database:
        found[0] = peer
    return database


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _ranked(
    at: cython.pointer(cython.const[uint8_t]),
    end: cython.pointer(cython.const[uint8_t]),
    text: cython.pointer(Extent),
) -> cython.int:
    """Return an attribute's rank, and its text; 0 if it has no rank, or no text that is not empty."""
    tag: uint32_t = 0
    number: uint64_t = 0
    part: Extent
    value: Extent
    rank: cython.int = 0
    value.at = cython.NULL
    value.length = 0
    if end - at > 6 and at[0] == 10 and at[1] < 0x80 and end - at > at[1] + 6:
        value.at = at + 2 + at[1]  # as nearly always: a short key, a short value, which is a text
        if (
            value.at[0] == 18
            and value.at[1] == end - value.at - 2
            and value.at[2] == 10
            and value.at[3] == value.at[1] - 2
        ):
            text.at = value.at + 4
            text.length = value.at[3]
            return _rank(at + 2, at[1]) if text.length else 0
        value.at = cython.NULL
    while at < end:
        at = next_field(at, end, cython.address(tag), cython.address(number), cython.address(part))
        if at == cython.NULL:
            return 0
        if tag == 10:
            rank = _rank(part.at, part.length)
            if rank == 0:
                return 0
        elif tag == 18:
            value = part
    if rank == 0 or value.at == cython.NULL or value.length == 0:
        return 0
    next_field(value.at, value.at + value.length, cython.address(tag), cython.address(number), text)
    return rank if tag == 10 and text.at != cython.NULL and text.length else 0


@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def _rank(at: cython.pointer(cython.const[uint8_t]), length: uint32_t) -> cython.int:
    """Return the rank of an attribute among those that name who is called, from 1; 0 for any other."""
    if length == 12:
        if memcmp(at, b"peer.service", 12) == 0:
            return 1
        return 4 if memcmp(at, b"db.namespace", 12) == 0 else 0
    if length == 14:
        if memcmp(at, b"server.address", 14) == 0:
            return 2
        return 5 if memcmp(at, b"db.system.name", 14) == 0 else 0
    if length == 20:
        return 3 if memcmp(at, b"network.peer.address", 20) == 0 else 0
    if length == 7:
        return 4 if memcmp(at, b"db.name", 7) == 0 else 0
    if length == 9:
        return 5 if memcmp(at, b"db.system", 9) == 0 else 0
    return 0
