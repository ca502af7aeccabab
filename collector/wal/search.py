# cython: language_level=3, boundscheck=False, wraparound=False
"""Binary search in the entries of an offset index: which of them lead to a range of offsets.

Entries are two arrays of u32, rising: offsets relative to the segment's base, and positions in its file. They are read
in place, while the interpreter's lock is held, so the log's writer may add to them between two calls.

Cost: some 10 ns for each array, and what Python asks for a call and a list of pairs.
"""

import cython
from cython.cimports.cpython import array
from cython.cimports.libc.stdint import int64_t


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _below(values: cython.pointer(cython.uint), count: cython.Py_ssize_t, limit: int64_t) -> cython.Py_ssize_t:
    """Return how many of the first `count` values are less than `limit`."""
    low: cython.Py_ssize_t = 0
    middle: cython.Py_ssize_t
    while low < count:
        middle = (low + count) >> 1
        if cython.cast(int64_t, values[middle]) < limit:
            low = middle + 1
        else:
            count = middle
    return low


def marks(
    offsets: array.array, positions: array.array, base: int64_t, start: int64_t, wanted: tuple, end: tuple
) -> list:
    """Return (offset, position) pairs between which frames of the `wanted` (first, end) offsets lie, in order.

    `base` is the segment's base offset and `start` where its first frame begins; `end` is its (size, next offset).
    Entries at or behind `size` are not looked at.
    """
    # Beyond the segment every offset is like its end; a range without one ends at 2^64.
    first_offset: int64_t = min(wanted[0], end[1])
    end_offset: int64_t = min(wanted[1], end[1])
    size: int64_t = end[0]
    relative: cython.pointer(cython.uint) = offsets.data.as_uints
    places: cython.pointer(cython.uint) = positions.data.as_uints
    known: cython.Py_ssize_t = _below(places, len(offsets), size)
    first: cython.Py_ssize_t = _below(relative, known, first_offset - base + 1) - 1
    last: cython.Py_ssize_t = _below(relative, known, end_offset - base)
    found: list = []
    reached: int64_t = -1
    i: cython.Py_ssize_t
    if first < 0:
        found.append((base, start))
        reached = start
        first = 0
    for i in range(first, min(last + 1, known)):
        if cython.cast(int64_t, places[i]) > reached:
            reached = places[i]
            found.append((base + cython.cast(int64_t, relative[i]), reached))
    if last >= known and size > reached:
        found.append((end[1], size))
    return found
